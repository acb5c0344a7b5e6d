"""Stdout as the receiver: whole lines behind their names, and a reader who is slow holds up nobody else."""

from __future__ import annotations

import json
import os

import pytest
import trio

from ottoscaler.logs.backlog import Backlog, Room
from ottoscaler.logs.lane import Sender
from ottoscaler.logs.lines import LogLine
from ottoscaler.logs.mark import Entry, Gap, Mark
from ottoscaler.logs.messages import Who
from ottoscaler.logs.outbox import Outbox
from ottoscaler.logs.printing import PrintedWording, PrintingReceiver

pytestmark = pytest.mark.slow_clock
STAMP = "2026-11-20T20:41:21.140944177Z"


def who(name: str) -> Who:
    """A worker."""
    return Who(name, "task-1", "5-0", 1, 1, "otto")


async def printed(receiver: PrintingReceiver, reading: int, entries: dict[str, list[Entry]], size: int) -> bytes:
    """What `size` bytes of output are, when these workers' entries are printed."""
    outboxes = []
    out = bytearray()
    async with trio.open_nursery() as nursery:
        await nursery.start(receiver.run)
        for name, theirs in entries.items():
            backlog = Backlog(Room())
            await backlog.put(theirs)
            outboxes.append(Outbox(backlog, Mark()))
            receiver.attach(Sender(outboxes[-1], backlog, receiver.wording(who(name)).encode, lambda: None))
        async with trio.lowlevel.FdStream(reading) as stream:
            with trio.fail_after(10):
                while len(out) < size:
                    out += await stream.receive_some(100_000)
                    await trio.sleep(0.001)
        nursery.cancel_scope.cancel(reason="all was read")
    return bytes(out)


async def test_lines_of_many_workers_never_mix_inside() -> None:
    """Every line comes whole behind its worker's name, each worker's in order."""
    reading, writing = os.pipe()
    entries: dict[str, list[Entry]] = {
        name: [LogLine(STAMP, b"%d " % number + b"x" * 90, 0, number) for number in range(2000)]
        for name in ("w1", "w2", "w3")
    }
    every = [line for lines in entries.values() for line in lines if isinstance(line, LogLine)]
    size = sum(len(b"w1 | \n") + len(line.text) for line in every)
    text = await printed(PrintingReceiver(as_json=False, descriptor=writing), reading, entries, size)
    os.close(writing)
    lines = text.decode().splitlines()
    assert len(lines) == 6000
    for name in entries:
        numbers = [int(line.split()[2]) for line in lines if line.startswith(f"{name} | ")]
        assert numbers == list(range(2000))


def test_as_json_each_line_is_an_object() -> None:
    """With LOG_FORMAT json a line says whose it is, when it was written, its level and number."""
    wording = PrintedWording(who("w1"), as_json=True)
    line = json.loads(wording.encode(LogLine(STAMP, b"WARN \xff", 0, 7)))
    assert line == {
        "worker": "w1",
        "event_id": "5-0",
        "task_id": "task-1",
        "time": STAMP,
        "level": "warn",
        "line": 7,
        "message": "WARN \\xff",
    }
    gap = json.loads(wording.encode(Gap("a", "b", "PodGone")))
    assert (gap["gap"], gap["message"]) == (
        "PodGone",
        "lines are missing between a and b: the pod was gone before its log was read to the end",
    )
    assert PrintedWording(who("w1"), as_json=False).encode(Gap("a", "", "PodGone")) == (
        b"w1 | [lines are missing between a and the end: the pod was gone before its log was read to the end]\n"
    )
