"""Loud workers beside quiet ones: lanes of their own, and the way there and back, on which no line is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.logs.backlog import Backlog, Room
from ottoscaler.logs.forwarding import LANES, HandlerReceiver
from ottoscaler.logs.lane import CALM_SECONDS, Sender
from ottoscaler.logs.lines import LogLine
from ottoscaler.logs.mark import Entry, Mark
from ottoscaler.logs.outbox import Outbox
from tests.logs.receiver import FakeAnswer, FakeReceiver


class Handler:
    """An otto-handler that takes a millisecond for an entry of each stream."""

    def __init__(self) -> None:
        self.lines = FakeReceiver()
        self.open_log_stream = self.lines.open

    async def notify(self, notification: bytes, *, wait_open: Callable[[], Awaitable[None]]) -> bool:
        """Nobody tells states here."""
        raise NotImplementedError

    def came(self, name: str) -> list[tuple[float, int]]:
        """When a worker's lines were received, and their numbers."""
        whole = [(at, entry.decode().split()) for at, entry in self.lines.got]
        return [(at, int(number)) for at, (who, number) in whole if who == name]


class Worker:
    """A worker with an unlimited room in memory."""

    def __init__(self, receiver: HandlerReceiver, name: str) -> None:
        self.name = name
        self.number = 0
        self.backlog = Backlog(Room(1 << 30, spool_bytes=0), lambda: self.sender.stir())
        self.outbox = Outbox(self.backlog, Mark())
        self.sender = Sender(self.outbox, self.backlog, self.encode, lambda: None)
        receiver.attach(self.sender)

    def encode(self, entry: Entry) -> bytes:
        """`name number`."""
        assert isinstance(entry, LogLine)
        return f"{self.name} {entry.number}".encode()

    async def say(self, count: int) -> None:
        """Write lines, as fast as there is room for them."""
        for _ in range(count):
            self.number += 1
            await self.backlog.put([LogLine("2026-11-20T20:41:21Z", b"x" * 100, 0, self.number)])


@asynccontextmanager
async def open_receiver() -> AsyncIterator[tuple[HandlerReceiver, Handler]]:
    """A receiver that runs, and the handler behind it."""
    handler = Handler()
    receiver = HandlerReceiver(handler, trio.lowlevel.checkpoint)
    async with trio.open_nursery() as nursery:
        await nursery.start(receiver.run)
        yield receiver, handler
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_quiet_line_never_queues_behind_a_loud_one(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Beside as many loud workers as there are streams, each with a full window, quiet lines come as when alone."""
    async with open_receiver() as (receiver, handler):
        quiet = [Worker(receiver, f"quiet{number}") for number in range(2 * LANES)]
        loud = [Worker(receiver, f"loud{number}") for number in range(LANES)]
        for worker in loud:
            nursery.start_soon(worker.say, 4000)
        await trio.sleep(1)
        assert all(worker.outbox.weight > 4 << 10 and len(worker.backlog) > 500 for worker in loud)
        for number in range(1, 4):
            for worker in quiet:
                begun = trio.current_time()
                await worker.say(1)
                await trio.sleep(0.03)
                at, last = handler.came(worker.name)[-1]
                assert last == number
                assert at - begun < 0.004
        assert all(worker.outbox.weight > 4 << 10 and len(worker.backlog) > 500 for worker in loud)
        nursery.cancel_scope.cancel(reason="seen")


async def test_a_first_line_leaves_at_once(autojump_clock: MockClock) -> None:
    """A line of a worker that had been silent waits for no others to gather."""
    async with open_receiver() as (receiver, handler):
        worker = Worker(receiver, "w")
        await worker.say(1)
        await trio.sleep(5)
        begun = trio.current_time()
        await worker.say(1)
        await trio.sleep(1)
        assert handler.came("w")[-1][0] - begun == pytest.approx(handler.lines.delay)


async def test_who_turns_loud_and_calm_again_changes_streams_in_order(autojump_clock: MockClock) -> None:
    """There and back every line comes once and in order, over other streams; those for loud ones open when needed."""
    async with open_receiver() as (receiver, handler):
        worker = Worker(receiver, "w")
        await worker.say(1)
        await trio.sleep(1)
        home = worker.sender.lane
        assert handler.lines.opened == 2  # one is for last words
        for _ in range(2):
            await worker.say(3000)
            await trio.sleep(10)
            assert worker.sender.lane is not home
            await trio.sleep(CALM_SECONDS)
            await worker.say(1)
            await trio.sleep(1)
            assert worker.sender.lane is not None
            assert not worker.sender.is_loud
        assert [number for _, number in handler.came("w")] == list(range(1, worker.number + 1))
        assert worker.outbox.mark.line == worker.number
        assert handler.lines.opened == 3


async def test_cuts_retries_and_drops_on_the_way_lose_nothing(autojump_clock: MockClock) -> None:
    """With streams cut and lines refused while workers change lanes, every line comes, and every mark to the end."""
    async with open_receiver() as (receiver, handler):
        refused: set[bytes] = set()

        def judge(entry: bytes) -> FakeAnswer:
            if entry.endswith(b"7") and entry not in refused:
                refused.add(entry)
                return FakeAnswer("RETRY")
            return FakeAnswer()

        handler.lines.judge = judge
        workers = [Worker(receiver, f"w{number}") for number in range(6)]
        for turn in range(4):
            for at, worker in enumerate(workers):
                await worker.say(2000 if (at + turn) % 3 == 0 else 2)
            await trio.sleep(0.7)
            handler.lines.cut()
            await trio.sleep(CALM_SECONDS * (turn % 2))
        await trio.sleep(300)
        for worker in workers:
            assert {number for _, number in handler.came(worker.name)} == set(range(1, worker.number + 1))
            assert worker.outbox.mark.line == worker.number
            assert worker.outbox.is_empty
