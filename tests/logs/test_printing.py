"""Stdout as the receiver: whole lines behind their names, and a reader who is slow holds up nobody else."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import cast

import pytest
import trio

from ottoscaler.errors import SettingsError
from ottoscaler.kube.access import Access
from ottoscaler.logs.backlog import Backlog, Room
from ottoscaler.logs.lane import Sender
from ottoscaler.logs.lines import LogLine
from ottoscaler.logs.mark import Entry, Gap, Mark
from ottoscaler.logs.messages import Who
from ottoscaler.logs.opening import open_log_keeper
from ottoscaler.logs.outbox import Outbox
from ottoscaler.logs.printing import PrintedWording, PrintingReceiver
from ottoscaler.settings import load_settings
from ottoscaler.spine.site import Site

pytestmark = pytest.mark.slow_clock
STAMP = "2026-11-20T20:41:21.140944177Z"


def who(name: str) -> Who:
    """A worker."""
    return Who(name, "task-1", "5-0", 1, 1, "otto")


async def printed(receiver: PrintingReceiver, reading: int, entries: dict[str, list[Entry]], size: int) -> bytes:
    """What `size` bytes of output are, when these workers' entries are printed."""
    outboxes = []
    async with trio.open_nursery() as nursery:
        await nursery.start(receiver.run)
        for name, theirs in entries.items():
            backlog = Backlog(Room())
            await backlog.put(theirs)
            outboxes.append(Outbox(backlog, Mark()))
            receiver.attach(Sender(outboxes[-1], backlog, receiver.wording(who(name)).encode, lambda: None))
        async with trio.lowlevel.FdStream(reading) as stream:
            with trio.fail_after(30):
                out = await read_all(stream, size)
        nursery.cancel_scope.cancel(reason="all was read")
    return out


async def read_all(stream: trio.lowlevel.FdStream, size: int) -> bytes:
    """So many bytes, read slowly."""
    out = bytearray()
    while len(out) < size:
        out += await stream.receive_some(100_000)
        await trio.sleep(0.001)
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


async def test_a_full_disk_is_waited_for() -> None:
    """While stdout takes nothing it is tried again, and then every line comes, once and whole."""
    reading, writing = os.pipe()
    full = os.open("/dev/full", os.O_WRONLY)
    receiver = PrintingReceiver(as_json=False, descriptor=full)

    async def make_room() -> None:
        while not receiver.lines.is_silent_for(0.3):  # noqa: ASYNC110 - nothing says so
            await trio.sleep(0.05)
        os.dup2(writing, full)

    entries: dict[str, list[Entry]] = {"w1": [LogLine(STAMP, b"one", 0, 1), LogLine(STAMP, b"two", 0, 2)]}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(make_room)
        assert await printed(receiver, reading, entries, 18) == b"w1 | one\nw1 | two\n"
    os.close(writing)
    os.close(full)


async def test_a_reader_that_is_gone_stops_nothing() -> None:
    """A line of which a reader took a part before it left is brought to its end for the next, and then repeated."""
    reading, writing = os.pipe()
    after, next_writing = os.pipe()
    receiver = PrintingReceiver(as_json=False, descriptor=writing)
    text = b"x" * 200_000

    async def change() -> None:
        await trio.to_thread.run_sync(os.read, reading, 1000)
        os.close(reading)
        await trio.sleep(0.2)
        os.dup2(next_writing, writing)

    backlog, out = Backlog(Room()), b""
    await backlog.put([LogLine(STAMP, text, 0, 1)])
    receiver.attach(Sender(Outbox(backlog, Mark()), backlog, receiver.wording(who("w1")).encode, lambda: None))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(change)
        await nursery.start(receiver.run)
        async with trio.lowlevel.FdStream(after) as stream:
            with trio.fail_after(30):
                while out.count(b"\n") < 2:
                    out += await stream.receive_some(100_000)
        nursery.cancel_scope.cancel(reason="all was read")
    rest, whole, nothing = out.split(b"\n")
    assert (whole, nothing) == (b"w1 | " + text, b"")
    assert 0 < len(rest) < len(text)
    assert set(rest) == set(b"x")
    os.close(writing)
    os.close(next_writing)


async def test_a_slow_reader_of_a_stdout_that_does_not_block_costs_nothing() -> None:
    """Where a write would block, the next one waits until there is room."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    page = PrintingReceiver(as_json=False, descriptor=writing)
    entries: dict[str, list[Entry]] = {"w1": [LogLine(STAMP, b"x" * 995, 0, number) for number in range(200)]}

    async with trio.open_nursery() as nursery:
        backlog = Backlog(Room())
        await backlog.put(entries["w1"])
        page.attach(Sender(Outbox(backlog, Mark()), backlog, page.wording(who("w1")).encode, lambda: None))
        await nursery.start(page.run)
        begun = time.process_time()
        await trio.sleep(1.0)
        assert time.process_time() - begun < 0.4
        async with trio.lowlevel.FdStream(reading) as stream:
            with trio.fail_after(30):
                assert len(await read_all(stream, 200 * 1001)) == 200 * 1001
        nursery.cancel_scope.cancel(reason="all was read")
    os.close(writing)


async def test_a_reader_who_has_stopped_holds_up_no_end() -> None:
    """Printing can be cancelled while stdout is full and nobody reads."""
    reading, writing = os.pipe()
    receiver, backlog = PrintingReceiver(as_json=False, descriptor=writing), Backlog(Room())
    await backlog.put([LogLine(STAMP, b"x" * 995, 0, number) for number in range(200)])
    receiver.attach(Sender(Outbox(backlog, Mark()), backlog, receiver.wording(who("w1")).encode, lambda: None))
    helper = threading.Timer(30.0, os.close, [reading])  # lets a write that hangs go on
    helper.start()
    begun = time.monotonic()
    with trio.move_on_after(0.5):
        await receiver.run()
    assert time.monotonic() - begun < 15
    helper.cancel()
    os.close(reading)
    os.close(writing)


async def test_a_file_takes_lines_of_any_length(tmp_path: Path) -> None:
    """Where there is nothing to wait for, as with a file on disk, a line goes in one piece."""
    descriptor = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    receiver, backlog = PrintingReceiver(as_json=False, descriptor=descriptor), Backlog(Room())
    await backlog.put([LogLine(STAMP, b"x" * 1_000_000, 0, 1)])
    outbox = Outbox(backlog, Mark())
    receiver.attach(Sender(outbox, backlog, receiver.wording(who("w1")).encode, lambda: None))
    async with trio.open_nursery() as nursery:
        await nursery.start(receiver.run)
        with trio.fail_after(30):
            while not outbox.is_empty:  # noqa: ASYNC110 - there is nothing that says so
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel(reason="all was written")
    os.close(descriptor)
    assert (tmp_path / "out").read_bytes() == b"w1 | %b\n" % (b"x" * 1_000_000)


async def test_a_stdout_that_is_closed_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Started with `>&-` the scaler says what LOG_SINK expects: whatever is opened next would get the lines."""
    settings = load_settings({"LOG_SINK": "stdout", "REDIS_URL": "memory://", "OTTO_AGENT_IMAGE": "a/b:c"})
    monkeypatch.setattr(sys, "stdout", None)
    opening = open_log_keeper(settings, cast(Access, None), lambda: None, cast(Site, None))
    with pytest.raises(SettingsError, match="LOG_SINK is 'stdout', expected a stdout that is open"):
        async with opening:
            pass


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
