"""Where what the handler took goes. A sink's `take` returns when the record is safe; only then comes the answer."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec

Record = dict[str, Any]
"""What came, by the names of its message's fields; besides these `answer` and `sequence`."""
FILES = {
    "ForwardWorkerLogs": "worker_logs.jsonl",
    "NotifyWorkerStatus": "statuses.jsonl",
    "StreamLogs": "log_stream.jsonl",
    "RegisterWorker": "registrations.jsonl",
}
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) != "\t"}


class Sink(Protocol):
    """Takes records, one at a time."""

    def take(self, rpc: str, record: Record) -> None:
        """Keep what an rpc brought; OSError where that is not possible."""


class Stored:
    """One JSON object per line, in a file per rpc below a folder; what was there before is kept.

    Every line is with the kernel before `take` returns: killing the handler loses nothing that it answered.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._files: dict[str, IO[bytes]] = {
            rpc: (folder / name).open("ab", buffering=0) for rpc, name in FILES.items()
        }
        self._encode = msgspec.json.Encoder().encode

    def take(self, rpc: str, record: Record) -> None:
        """Append the record to its file."""
        self._files[rpc].write(self._encode(record) + b"\n")

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()


class Printed:
    """Lines for people on stdout; what is answered RETRY is left out, for it comes again."""

    def take(self, rpc: str, record: Record) -> None:
        """Print the record; where nobody reads any more, the whole handler is told to end."""
        if record["answer"] == "RETRY":
            return
        try:
            print(_in_words(rpc, record), flush=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            os.kill(os.getpid(), signal.SIGTERM)


class Told:
    """Calls a function with rpc and record: for tests, `Told(lambda rpc, record: list.append(...))`."""

    def __init__(self, tell: Callable[[str, Record], None]) -> None:
        self.take = tell


def _in_words(rpc: str, record: Record) -> str:
    worker = record["worker_id"]
    match rpc:
        case "NotifyWorkerStatus":
            words = f"{worker}  {record['status']}" + (f": {record['reason']}" if record["reason"] else "")
        case "RegisterWorker":
            words = f"{worker}  registers: {record['answer']}"
        case _:
            words = f"{worker} | {record['message']}" + ("  (DROP)" if record["answer"] == "DROP" else "")
    return words.translate(_ESCAPES)  # a worker's line must not steer the terminal
