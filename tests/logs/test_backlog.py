"""What waits to be sent: in order, within its room, whatever is in memory or on disk."""

from __future__ import annotations

import tempfile
from collections import deque
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from ottoscaler.logs import backlog as backlog_module
from ottoscaler.logs.backlog import AGAIN_SECONDS, Backlog, Room
from ottoscaler.logs.keeping import CLOSE_SECONDS
from ottoscaler.logs.lines import LogLine
from ottoscaler.logs.mark import Entry, Gap


def line(number: int, size: int = 0) -> LogLine:
    """A numbered line."""
    return LogLine(f"stamp {number}", b"x" * size, 0, number)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.integers(-40, 40), max_size=25),
    memory=st.sampled_from([0, 1 << 14, 1 << 20]),
)
def test_what_is_put_is_taken_in_order(steps: list[int], memory: int) -> None:
    """However puts and takes alternate, and whatever goes to disk, every entry comes back unchanged, in order."""

    async def main() -> None:
        room = Room(memory)
        backlog, model, number = Backlog(room), deque[Entry](), 0
        for step in steps:
            if step > 0:
                batch: list[Entry] = [line(number + at, 700) for at in range(step)]
                batch.append(Gap("a", "b", "LogRotated"))
                number += step
                model += batch
                await backlog.put(batch)
            for _ in range(-step):
                await backlog.refill()
                assert backlog.peek() == (model[0] if model else None)
                if model:
                    assert backlog.pop() == model.popleft()
        await backlog.close()
        assert (room.spooled, room.workers) == (0, 0)

    trio.run(main)


@pytest.mark.slow_clock
async def test_nothing_overtakes_what_is_read_back() -> None:
    """While one task puts and another takes, through memory and disk, everything comes in its order."""
    backlog, count, taken = Backlog(Room(40_000)), 12_000, list[int]()

    async def put() -> None:
        for number in range(0, count, 20):
            await backlog.put([line(at, 100) for at in range(number, number + 20)])
            if number % 400 == 0:
                await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put)
        while len(taken) < count:
            await backlog.refill()
            for _ in range(150):
                if (entry := backlog.peek()) is not None:
                    assert backlog.pop() is entry
                    assert isinstance(entry, LogLine)
                    taken.append(entry.number)
            await trio.lowlevel.checkpoint()
    assert taken == list(range(count))
    await backlog.close()


async def test_room_that_was_read_back_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is always a little behind writes any amount to disk, and never has more there than waits."""
    monkeypatch.setattr("ottoscaler.logs.backlog.SEGMENT_BYTES", 4000)
    room = Room(0, spool_bytes=800_000)
    backlog = Backlog(room)
    with trio.fail_after(45):
        for number in range(1000):
            await backlog.put([line(number, 900)])
            if number >= 50:
                await backlog.refill()
                assert backlog.pop() == line(number - 50, 900)
    assert 40_000 < room.spooled < 60_000
    await backlog.close()
    assert room.spooled == 0


async def test_without_room_nothing_is_read_on(autojump_clock: MockClock) -> None:
    """`put` waits while memory and disk are full, and goes on when something was taken."""
    backlog, done = Backlog(Room(0, spool_bytes=0)), 0

    async def put() -> None:
        nonlocal done
        for number in range(10):
            await backlog.put([line(number, 5000)])
            done += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put)
        await wait_all_tasks_blocked()
        assert done == 1
        for number in range(10):
            assert backlog.peek() == line(number, 5000)
            assert backlog.pop() == line(number, 5000)
            await wait_all_tasks_blocked()
    assert done == 10


async def test_one_worker_takes_no_more_than_its_share_of_the_disk() -> None:
    """The disk's room is shared: an eighth for one worker, the limit for all."""
    room = Room(0, spool_bytes=80_000)
    backlog, put = Backlog(room), 0

    async def put_all() -> None:
        nonlocal put
        for number in range(1000):
            await backlog.put([line(number, 900)])
            put += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put_all)
        with trio.fail_after(20):
            while room.spooled <= 5_000:  # noqa: ASYNC110 - there is nothing that says so
                await trio.sleep(0.01)
        await trio.sleep(0.2)
        nursery.cancel_scope.cancel(reason="it waits")
    assert 5_000 < room.spooled <= 10_000
    assert put < 30
    await backlog.close()
    assert room.spooled == 0


async def test_a_full_disk_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no spool can be written the backlog is what memory holds, and nothing breaks."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    backlog = Backlog(Room(0))
    with trio.move_on_after(0.2) as waited:
        for number in range(100):
            await backlog.put([line(number, 900)])
    assert waited.cancelled_caught
    assert backlog.pop() == line(0, 900)


async def test_a_disk_that_was_full_is_tried_again(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that waits for room goes on, on disk, a minute after there is some, and not only after a restart."""
    make, is_full = tempfile.TemporaryFile, True

    def refuse(*said: Any, **more: Any) -> Any:
        if is_full:
            raise OSError(28, "No space left on device")
        return make(*said, **more)

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    room, put = Room(0), 0
    backlog = Backlog(room)

    async def put_all() -> None:
        nonlocal put
        for number in range(100):
            await backlog.put([line(number, 900)])
            put += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put_all)
        await trio.sleep(600)
        assert put < 20
        is_full = False
        with trio.fail_after(1e6):  # files are written in real time, which this clock does not know
            while put < 100:  # noqa: ASYNC110 - there is nothing that says so
                await trio.sleep(AGAIN_SECONDS)
    assert room.spooled
    await backlog.close()


async def test_a_thousand_stalled_workers_share_the_memory() -> None:
    """What waits in memory is bounded for all together."""
    room = Room()
    backlogs = [Backlog(room) for _ in range(1000)]
    assert room.share * len(backlogs) <= 20 << 20
    assert Backlog(Room()).peek() is None


async def test_room_is_given_back_though_the_disk_hangs(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that ends while its spool is being read for long leaves no room taken behind, for nobody else could
    have it until a restart.
    """

    async def read_slowly(file: object, size: int) -> bytes:
        await trio.sleep(60)
        return b""

    room = Room(40_000)
    backlog = Backlog(room)
    await backlog.put([line(at, 1000) for at in range(100)])
    await backlog.put([line(at, 1000) for at in range(100)])
    while backlog.peek() is not None:
        backlog.pop()
    assert room.spooled
    monkeypatch.setattr(backlog_module, "_read", read_slowly)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(backlog.refill)
        await wait_all_tasks_blocked()
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            await backlog.close()
        assert room.spooled == 0
        nursery.cancel_scope.cancel(reason="the test is over")
    await backlog.close()
    assert room.spooled == 0
