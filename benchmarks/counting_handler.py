"""An otto-handler that counts lines and acknowledges them, at so little cost that it is not what is measured.

`python -m benchmarks.counting_handler --records FILE` prints where it listens. It notes `TIME LINES` every 0.1 s in
which lines came, the time by CLOCK_MONOTONIC (s), which all processes of a machine share. With `--timed FILE` it notes
`TIME DELAY STAMP` for every line that contains `TIMED` (its arrival, the seconds that had passed since the
kubelet's stamp, and the stamp) and counts it nowhere else.

It speaks HTTP/2 as any server does, with one DATA frame for each answer, but has no gRPC library below it: grpcio's
server takes ten times as long for a line as this one.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import defaultdict
from contextlib import suppress
from datetime import datetime
from io import TextIOWrapper
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import trio

from ottoscaler.rpc.http2.framing import MessageReader
from ottoscaler.rpc.v1.worker_logs_pb2 import WorkerLogEntry

NOTE_SECONDS = 0.1
TIMED = b"timed-line"
WINDOW_BYTES = 8 << 20
RECEIVE_BYTES = 16 << 10
"""Few, so that lines of one connection wait no longer than it takes to count some of another."""
ACK = b"\0\0\0\0\0"
"""A LogForwardResponse or WorkerStatusAck in which all fields have their defaults: ACK and RECEIVED."""
HEADERS = [(":status", "200"), ("content-type", "application/grpc")]


class Counter:
    """What came, over all connections."""

    def __init__(self, timed: TextIOWrapper | None) -> None:
        self.lines = 0
        self._timed = timed

    def count(self, entries: list[bytes]) -> None:
        """Count entries, and note when the timed ones came."""
        self.lines += len(entries)
        if self._timed is not None:
            for entry in entries:
                if TIMED in entry:
                    self.lines -= 1
                    self._note(WorkerLogEntry.FromString(entry), self._timed)

    def _note(self, entry: WorkerLogEntry, timed: TextIOWrapper) -> None:
        delay = time.time() - datetime.fromisoformat(entry.timestamp).timestamp()
        timed.write(f"{time.monotonic():.6f} {delay:.6f} {entry.timestamp}\n")

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, h2.exceptions.ProtocolError):
            async with stream:
                await self._converse(stream)

    async def _converse(self, stream: trio.SocketStream) -> None:
        peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        window = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW_BYTES}
        peer.local_settings = h2.settings.Settings(client=False, initial_values=window)
        peer.initiate_connection()
        peer.increment_flow_control_window(WINDOW_BYTES)
        readers: defaultdict[int, MessageReader] = defaultdict(MessageReader)
        await stream.send_all(peer.data_to_send())
        while raw := await stream.receive_some(RECEIVE_BYTES):
            for event in peer.receive_data(raw):
                if isinstance(event, h2.events.RequestReceived):
                    peer.send_headers(event.stream_id, HEADERS)
                elif isinstance(event, h2.events.DataReceived):
                    entries = readers[event.stream_id].feed(event.data)
                    peer.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    await stream.send_all(peer.data_to_send() + _answers(event.stream_id, len(entries)))
                    if event.stream_ended is None:  # states are calls of their own
                        self.count(entries)
                    else:
                        peer.send_headers(event.stream_id, [("grpc-status", "0")], end_stream=True)
                        del readers[event.stream_id]
            await stream.send_all(peer.data_to_send())


def _answers(stream: int, count: int) -> bytes:
    """So many DATA frames with an answer each, past h2, which takes 30 µs for one; its windows are large enough."""
    return (b"\0\0\5\0\0" + stream.to_bytes(4, "big") + ACK) * count


async def run(records: Path, timed: Path | None) -> None:
    """Serve until SIGTERM."""
    with records.open("a", buffering=1) as notes:
        counter = Counter(timed.open("a", buffering=1) if timed else None)
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, counter.serve, listeners)
            nursery.start_soon(_end_at_signal, nursery.cancel_scope)
            print(f"ready at 127.0.0.1:{listeners[0].socket.getsockname()[1]}", flush=True)
            noted = 0
            while True:
                await trio.sleep(NOTE_SECONDS)
                if counter.lines != noted:
                    noted = counter.lines
                    notes.write(f"{time.monotonic():.6f} {noted}\n")


async def _end_at_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel(reason="SIGTERM")


def main() -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.counting_handler")
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--timed", type=Path)
    args = parser.parse_args()
    trio.run(run, args.records, args.timed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
