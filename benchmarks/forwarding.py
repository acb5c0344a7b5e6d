"""An otto-handler that counts beside the arena, and how many lines have reached it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.arena import ROOT, Arena
from ottoscaler.cli.playground import HANDLER_READY
from ottoscaler.cli.programs import Program, open_program

COUNTING_HANDLER = (sys.executable, "-m", "benchmarks.counting_handler")


class Arrival(NamedTuple):
    """When a timed line came (CLOCK_MONOTONIC, s), how many seconds after the kubelet's stamp, and that stamp."""

    at: float
    delay: float
    stamp: str


@dataclass(frozen=True, slots=True)
class Handler:
    """The running handler; `address` is what OTTO_HANDLER_HOST has to be."""

    program: Program
    records: Path
    timed: Path = Path("/dev/null")

    @property
    def address(self) -> str:
        """Host and port, as it told them in its first line."""
        return self.program.tail[0].rpartition(" ")[2]

    def lines(self) -> int:
        """How many have come, as of a tenth of a second ago."""
        notes = self._notes()
        return notes[-1][1] if notes else 0

    def rate(self) -> float:
        """Lines a second from the first note to the last one."""
        notes = self._notes()
        if len(notes) < 2:
            return float("nan")
        (begun, before), (ended, after) = notes[0], notes[-1]
        return (after - before) / (ended - begun)

    def arrivals(self) -> list[Arrival]:
        """The timed lines that have come, in their order."""
        whole = self.timed.read_text().rpartition("\n")[0]
        notes = (line.split(" ") for line in whole.splitlines())
        return [Arrival(float(at), float(delay), stamp) for at, delay, stamp in notes]

    def _notes(self) -> list[tuple[float, int]]:
        whole = self.records.read_text().rpartition("\n")[0]
        pairs = (line.split(" ") for line in whole.splitlines())
        return [(float(moment), int(lines)) for moment, lines in pairs]


@asynccontextmanager
async def open_counting_handler(arena: Arena) -> AsyncIterator[Handler]:
    """A handler of its own process, until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="ottoscaler-bench-") as name:
        records, timed = Path(name) / "lines", Path(name) / "timed"
        records.touch()
        timed.touch()
        command = [*COUNTING_HANDLER, "--records", str(records), "--timed", str(timed)]
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        async with open_program(arena.nursery, "handler", command, ready=HANDLER_READY, environ=environ) as program:
            yield Handler(program, records, timed)
