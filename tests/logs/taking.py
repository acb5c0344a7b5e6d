"""An otto-handler that only takes: `python -m tests.logs.taking PORT FILE`. Every entry is a line of the file, with the
kernel before it is answered, so that killing the handler loses nothing that it acknowledged.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import msgspec

from ottoscaler.rpc.v1 import worker_logs_pb2 as pb


def main(port: str, path: str) -> None:
    """Serve until killed."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def forward(entries: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for entry in entries:
            facts = dict(entry.metadata)
            row: Any = (time.time(), entry.worker_id, facts.get("line", ""), entry.timestamp, entry.message, facts)
            os.write(file, msgspec.json.encode(row) + b"\n")
            yield pb.LogForwardResponse()

    def notify(notification: Any, context: grpc.ServicerContext) -> Any:
        facts, status = dict(notification.metadata), pb.WorkerStatusNotification.StatusType.Name(notification.status)
        row: Any = (time.time(), notification.worker_id, "state", "", status, facts)
        os.write(file, msgspec.json.encode(row) + b"\n")
        return pb.WorkerStatusAck()

    server = grpc.server(ThreadPoolExecutor(64), options=[("grpc.so_reuseport", 0)])
    handlers: dict[str, Any] = {
        "ForwardWorkerLogs": grpc.stream_stream_rpc_method_handler(
            forward, pb.WorkerLogEntry.FromString, lambda message: message.SerializeToString()
        ),
        "NotifyWorkerStatus": grpc.unary_unary_rpc_method_handler(
            notify, pb.WorkerStatusNotification.FromString, lambda message: message.SerializeToString()
        ),
    }
    service = "ottoscaler.v1.OttoHandlerLogService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
