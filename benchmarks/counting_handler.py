"""An otto-handler that counts lines and acknowledges them, at the least cost that grpcio's server has.

`python -m benchmarks.counting_handler --records FILE` prints where it listens. It notes `TIME LINES` every 0.1 s in
which lines came, the time by CLOCK_MONOTONIC (s), which all processes of a machine share.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

import ottoscaler.rpc  # noqa: F401  first: it keeps gRPC's core from writing to stderr

SERVICE = "ottoscaler.v1.OttoHandlerLogService"
NOTE_SECONDS = 0.1
MOST_STREAMS = 64
ACK = b""
"""A LogForwardResponse and a WorkerStatusAck in which all fields have their defaults: ACK and RECEIVED."""


class Counter:
    """Counts in many threads; `next` of `itertools.count` is one step of the interpreter."""

    def __init__(self) -> None:
        self._lines = itertools.count(1)
        self.lines = 0

    def forward(self, entries: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """ForwardWorkerLogs."""
        for _ in entries:
            self.lines = next(self._lines)
            yield ACK

    def notify(self, notification: bytes, context: grpc.ServicerContext) -> bytes:
        """NotifyWorkerStatus."""
        return ACK


def main() -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.counting_handler")
    parser.add_argument("--records", type=Path, required=True)
    args = parser.parse_args()
    over, counter = threading.Event(), Counter()
    signal.signal(signal.SIGTERM, lambda number, frame: over.set())
    server = grpc.server(ThreadPoolExecutor(MOST_STREAMS))
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "ForwardWorkerLogs": grpc.stream_stream_rpc_method_handler(counter.forward),
        "NotifyWorkerStatus": grpc.unary_unary_rpc_method_handler(counter.notify),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"ready at 127.0.0.1:{port}", flush=True)
    with args.records.open("a", buffering=1) as notes:
        noted = 0
        while not over.wait(NOTE_SECONDS):
            if counter.lines != noted:
                noted = counter.lines
                notes.write(f"{time.monotonic():.6f} {noted}\n")
    server.stop(None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
