"""The handler's gRPC server: calls are taken in threads, of which every open stream holds one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

from ottoscaler.otto_handler.behaviour import Behaviour, Control
from ottoscaler.otto_handler.services import Services
from ottoscaler.otto_handler.store import Sink

MOST_CALLS = 1000
"""Calls and streams at a time; threads are only made as they are needed."""
END_SECONDS = 0.2
"""For answers under way when the handler ends; streams, which never end by themselves, are cut."""


@dataclass(slots=True)
class OttoHandler:
    """A handler that serves. Give `control.base` another `Behaviour` and it behaves so from the next entry on."""

    port: int
    control: Control


@contextmanager
def open_otto_handler(
    sink: Sink,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    control: Control | None = None,
    token: str = "",
    certificate: tuple[bytes, bytes] | None = None,
    die: Callable[[], None] | None = None,
) -> Iterator[OttoHandler]:
    """Serve for as long as the block runs; port 0 is a free one. OSError where the port is taken.

    `certificate` is key and chain in PEM; without it the handler speaks plain text. `die` must end the process at once
    (`die_after`); without it the server is stopped without a word.
    """
    control = control or Control(Behaviour())
    pool = ThreadPoolExecutor(MOST_CALLS, thread_name_prefix="otto-handler")
    server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])  # a second one on the port is told so
    services = Services(control, sink, die or (lambda: _stop(server)), token)
    for service, handlers in services.handlers().items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    bound = _bind(server, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", certificate)
    server.start()
    try:
        yield OttoHandler(bound, control)
    finally:
        server.stop(END_SECONDS).wait()
        pool.shutdown()


def _bind(server: grpc.Server, address: str, certificate: tuple[bytes, bytes] | None) -> int:
    try:
        if certificate is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, grpc.ssl_server_credentials([certificate]))
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: is the port taken?") from error


def _stop(server: grpc.Server) -> None:
    server.stop(None)
