"""Many workers on one stream: turns, answers, cuts, and nobody slowed by another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.backoff import Backoff
from ottoscaler.logs import backlog as backlog_module
from ottoscaler.logs.backlog import Backlog, Room
from ottoscaler.logs.lane import STALL_SECONDS, Lane, Sender
from ottoscaler.logs.lines import LogLine
from ottoscaler.logs.mark import Entry, Mark
from ottoscaler.logs.outbox import Outbox
from tests.logs.receiver import FakeAnswer, FakeReceiver


class Worker:
    """One worker in a lane."""

    def __init__(self, lane: Lane, name: str, room: Room | None = None) -> None:
        self.name = name
        self.number = 0
        self.backlog = Backlog(room or Room(spool_bytes=0), lambda: self.sender.stir())
        self.outbox = Outbox(self.backlog, Mark())
        self.sender = Sender(self.outbox, self.backlog, self.encode, lambda: None)
        lane.add(self.sender)

    def encode(self, entry: Entry) -> bytes:
        """`name number`."""
        assert isinstance(entry, LogLine)
        return f"{self.name} {entry.number}".encode()

    async def say(self, count: int) -> None:
        """Write lines."""
        first, self.number = self.number + 1, self.number + count
        lines: Sequence[Entry] = [LogLine("2026-11-20T20:41:21Z", b"x", 0, at) for at in range(first, self.number + 1)]
        for start in range(0, count, 100):
            await self.backlog.put(lines[start : start + 100])


def told(receiver: FakeReceiver, name: str) -> list[int]:
    """The numbers of a worker's lines that were received, in order."""
    pairs = [entry.decode().split() for _, entry in receiver.got]
    return [int(number) for who, number in pairs if who == name]


async def open_lane(nursery: trio.Nursery) -> tuple[Lane, FakeReceiver]:
    """A lane that runs, and where it leads."""
    receiver = FakeReceiver()
    lane = Lane(receiver.open, trio.lowlevel.checkpoint, Backoff(0.1, 1.0, jitter=0.0))
    nursery.start_soon(lane.run)
    return lane, receiver


async def test_lines_arrive_in_order_over_one_stream(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """All lines of all workers, each worker's in order, over a stream that is opened once."""
    lane, receiver = await open_lane(nursery)
    workers = [Worker(lane, f"w{number}") for number in range(5)]
    for worker in workers:
        await worker.say(1000)
    await trio.sleep(60)
    for worker in workers:
        assert told(receiver, worker.name) == list(range(1, 1001))
        assert worker.outbox.mark.line == 1000
    assert receiver.opened == 1


async def test_a_quiet_worker_does_not_wait_for_a_loud_one(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Beside 30,000 lines of one worker the line of another arrives as fast as answers take, and no slower."""
    lane, receiver = await open_lane(nursery)
    loud, quiet = Worker(lane, "loud"), Worker(lane, "quiet")
    nursery.start_soon(loud.say, 30_000)
    await trio.sleep(5)
    waits: list[float] = []
    for number in range(1, 6):
        begun = trio.current_time()
        await quiet.say(1)
        await trio.sleep(1)
        arrived = [at for at, entry in receiver.got if entry == f"quiet {number}".encode()]
        waits.append(arrived[0] - begun)
    assert max(waits) < 0.6
    assert len(told(receiver, "loud")) > 5_000


async def test_a_cut_stream_repeats_only_what_had_no_answer(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """After each cut the worker's lines go on at the first that was not answered; nothing is lost."""
    lane, receiver = await open_lane(nursery)
    worker = Worker(lane, "w")
    await worker.say(400)
    for _ in range(8):
        await trio.sleep(0.05)
        receiver.cut()
        receiver.is_away = True
        await trio.sleep(0.5)
        receiver.is_away = False
    await trio.sleep(10)
    numbers = told(receiver, "w")
    assert sorted(set(numbers)) == list(range(1, 401))
    assert worker.outbox.mark.line == 400
    restarts = [at for at in range(1, len(numbers)) if numbers[at] <= numbers[at - 1]]
    assert all(numbers[at] >= numbers[at - 1] - 64 for at in restarts)


async def test_retry_drop_and_throttle_touch_only_their_line_or_worker(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """RETRY sends that line again, DROP leaves it, throttle slows that worker; the other one notices nothing."""
    lane, receiver = await open_lane(nursery)
    refused = {b"a 3": 2, b"a 7": 1}

    def judge(entry: bytes) -> FakeAnswer:
        if refused.get(entry, 0):
            refused[entry] -= 1
            return FakeAnswer("RETRY")
        if entry == b"a 5":
            return FakeAnswer("DROP")
        return FakeAnswer(throttle=10.0) if entry == b"a 20" else FakeAnswer()

    receiver.judge = judge
    a, b = Worker(lane, "a"), Worker(lane, "b")
    await a.say(400)
    await b.say(400)
    await trio.sleep(5)
    assert told(receiver, "b") == list(range(1, 401))
    early = len(told(receiver, "a"))
    assert early < 300
    await trio.sleep(30)
    numbers = told(receiver, "a")
    assert [numbers.count(number) for number in (3, 5, 7)] == [3, 1, 2]
    assert [number for at, number in enumerate(numbers) if number not in numbers[:at]] == list(range(1, 401))
    assert (a.outbox.mark.line, a.outbox.dropped) == (400, 1)


async def test_a_slow_receiver_has_a_short_queue(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """With 50 ms for each answer no more is under way than is answered in a moment."""
    lane, receiver = await open_lane(nursery)
    receiver.delay = 0.05
    workers = [Worker(lane, f"w{number}") for number in range(20)]
    for worker in workers:
        await worker.say(100)
    await trio.sleep(30)
    assert lane.statistics().limit <= 20


async def test_a_stream_without_answers_is_opened_again(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """A receiver that takes entries and says nothing for a minute is called anew."""
    lane, receiver = await open_lane(nursery)
    worker = Worker(lane, "w")
    receiver.is_stalled = True
    await worker.say(3)
    await trio.sleep(STALL_SECONDS + 5)
    assert receiver.opened == 2
    receiver.is_stalled = False
    await trio.sleep(5)
    assert told(receiver, "w") == [1, 2, 3]


@pytest.mark.slow_clock
async def test_what_went_to_disk_is_sent_too(nursery: trio.Nursery) -> None:
    """A worker with hardly any memory sends everything, in order."""
    lane, receiver = await open_lane(nursery)
    receiver.delay = 0.0
    worker = Worker(lane, "w", Room(0))
    await worker.say(3000)
    with trio.fail_after(30):
        while worker.outbox.mark.line < 3000:  # noqa: ASYNC110 - there is nothing that says so
            await trio.sleep(0.01)
    assert told(receiver, "w") == list(range(1, 3001))


@pytest.mark.slow_clock
async def test_a_disk_that_cannot_be_read_ends_one_log_alone(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines that cannot be brought back break their own worker; the other one sends everything."""
    read, broken = backlog_module._read, list[Exception]()

    async def read_or_fail(file: Any, size: int) -> bytes:
        if file is bad.backlog._blocks[0].segment.file:
            raise OSError(5, "Input/output error")
        return await read(file, size)

    lane, receiver = await open_lane(nursery)
    bad, good = Worker(lane, "bad", Room(0)), Worker(lane, "good", Room(0))
    bad.sender.broke = broken.append
    monkeypatch.setattr(backlog_module, "_read", read_or_fail)
    await bad.say(600)
    await good.say(600)
    with trio.fail_after(30):
        while good.outbox.mark.line < 600 or not broken:  # noqa: ASYNC110 - there is nothing that says so
            await trio.sleep(0.01)
    assert told(receiver, "good") == list(range(1, 601))
    assert isinstance(broken[0], OSError)
    assert bad.sender.lane is None
    await bad.backlog.close()


async def test_a_worker_that_left_is_forgotten(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Answers to lines of a worker that was removed are ignored, and the next one's fit."""
    lane, receiver = await open_lane(nursery)
    a, b = Worker(lane, "a"), Worker(lane, "b")
    await a.say(50)
    await trio.sleep(0.01)
    lane.remove(a.sender)
    await b.say(50)
    await trio.sleep(5)
    assert told(receiver, "b") == list(range(1, 51))
    assert b.outbox.mark.line == 50
    assert a.outbox.mark.line < 50


async def test_a_receiver_that_leaves_gets_nothing_twice(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """A stream that the receiver wants to end is left once all is answered, and lines go on over another one."""
    lane, receiver = await open_lane(nursery)
    worker = Worker(lane, "w")
    receiver.delay = 0.01
    await worker.say(500)
    for _ in range(4):
        await trio.sleep(1)
        receiver.leave()
    await trio.sleep(20)
    assert told(receiver, "w") == list(range(1, 501))
    assert receiver.opened == 5
