"""A gRPC server that takes smaller messages than such servers do by default."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc


@contextmanager
def open_narrow_server(service: str, handlers: dict[str, Any], limit: int) -> Iterator[int]:
    """Serve these rpcs of a service, with messages of `limit` bytes at most; its port."""
    server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.max_receive_message_length", limit)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0.2).wait()
