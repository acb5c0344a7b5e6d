"""What the observed cluster noted, read while it goes on noting."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import trio


class Records:
    """Everything noted so far; `read` takes in what is new.

    `created` and `running` tell when (CLOCK_MONOTONIC, s) the create of a pod arrived first, and when it first ran.
    `runs` counts how often each ran, `killed` names those that were deleted before their end, `requests` counts
    requests by verb, and `sent` tells when lines of logs with a certain stamp had left the cluster.
    """

    def __init__(self, path: Path) -> None:
        self.created: dict[str, float] = {}
        self.running: dict[str, float] = {}
        self.runs: Counter[str] = Counter()
        self.killed: set[str] = set()
        self.requests: Counter[str] = Counter()
        self.sent: dict[str, float] = {}
        self._path = path
        self._offset = 0

    def read(self) -> None:
        """Take in what was noted since the last time; a line that is not whole yet is left for the next."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.decode().splitlines():
            moment, what, name = line.split(" ")
            if what == "running":
                self.running.setdefault(name, float(moment))
                self.runs[name] += 1
                continue
            if what == "killed":
                self.killed.add(name)
                continue
            if what == "sent":
                self.sent.setdefault(name, float(moment))
                continue
            self.requests[what] += 1
            if name != "-":
                self.created.setdefault(name, float(moment))

    async def wait_running(self, count: int, limit_seconds: float) -> None:
        """Wait until so many pods have run in all; raises trio.TooSlowError."""
        with trio.fail_after(limit_seconds):
            while len(self.running) < count:
                await trio.sleep(0.1)
                self.read()
