"""Otto-handler as the receiver: lines over a few long-lived streams, states call by call."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

import trio

from ottoscaler.backoff import Backoff
from ottoscaler.errors import Unavailable
from ottoscaler.log import log
from ottoscaler.logs.backlog import Backlog, Room
from ottoscaler.logs.lane import Lane, LaneStatistics, OpenStream, Sender
from ottoscaler.logs.lines import LogLine
from ottoscaler.logs.mark import Entry, Mark
from ottoscaler.logs.messages import Who, Wording
from ottoscaler.logs.outage import Outage
from ottoscaler.logs.outbox import Outbox
from ottoscaler.logs.turns import Turns

LANES, LOUD_LANES = 4, 4
"""Streams for workers with few lines, and as many for loud ones, which are opened when there are any."""
CALLS = 16
"""States told at a time."""
TELL_AGAIN = Backoff(0.2, 10.0)
FAREWELLS = 10_000
"""So many last words of workers wait at most for a handler that is away; more are dropped, and the log says so."""


class HandlerLike(Protocol):
    """What is needed of otto-handler; `ottoscaler.rpc.handler_link.Handler` has it."""

    @property
    def open_log_stream(self) -> OpenStream:
        """Open a ForwardWorkerLogs call."""

    async def notify(self, notification: bytes, *, wait_open: Callable[[], Awaitable[None]]) -> bool:
        """Tell a state, right after `wait_open`; False: it could not keep it. Raises Unavailable."""


class _Farewells(Backlog):
    """Entries of workers that are looked after no more, in memory and few."""

    def __init__(self) -> None:
        super().__init__(Room(spool_bytes=0))
        self._entries: deque[Entry] = deque()

    def add(self, entry: bytes) -> None:
        """Add an encoded entry."""
        if len(self._entries) < FAREWELLS:
            self._entries.append(LogLine("", entry))
        else:
            log.warning("a gap could not be reported: too many wait")

    def peek(self) -> Entry | None:
        """The next one."""
        return self._entries[0] if self._entries else None

    def pop(self) -> Entry:
        """Take it."""
        return self._entries.popleft()


class HandlerReceiver:
    """Forwards to otto-handler. `wait_writable` returns while this process may act at all."""

    def __init__(
        self, handler: HandlerLike, wait_writable: Callable[[], Awaitable[None]], turns: Turns | None = None
    ) -> None:
        self._handler = handler
        self._wait_writable = wait_writable
        self._may_send = trio.Event()
        self._may_send.set()
        self.lines = Outage()
        self.states = Outage("otto-handler does not take states", "otto-handler takes states again")
        open_lane = partial(Lane, handler.open_log_stream, self._wait_open, outage=self.lines, pass_on=self.attach)
        self._lanes = [open_lane() for _ in range(LANES)]
        wait_turn = (turns or Turns()).wait
        self._loud = [open_lane(is_for_loud=True, wait_turn=wait_turn) for _ in range(LOUD_LANES)]
        self._calls = trio.CapacityLimiter(CALLS)
        self._farewells = _Farewells()
        self._last = Sender(Outbox(self._farewells, Mark()), self._farewells, _as_it_is, lambda: None)
        self._lanes[0].add(self._last)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the streams."""
        async with trio.open_nursery() as nursery:
            for lane in self._lanes + self._loud:
                await nursery.start(lane.run)
            task_status.started()

    def statistics(self) -> list[LaneStatistics]:
        """A snapshot of each stream."""
        return [lane.statistics() for lane in self._lanes + self._loud]

    async def _wait_open(self) -> None:
        await self._may_send.wait()
        await self._wait_writable()

    def wording(self, who: Who) -> Wording:
        """Messages as the contract has them."""
        return Wording(who)

    def attach(self, sender: Sender) -> None:
        """Let a worker send on the stream with the fewest, of those for such as it is."""
        min(self._loud if sender.is_loud else self._lanes, key=len).add(sender)

    def detach(self, sender: Sender) -> None:
        """Take its lines no more."""
        if sender.lane is not None:
            sender.lane.remove(sender)

    def leave_behind(self, entry: bytes) -> None:
        """Send one last entry when that is possible."""
        self._farewells.add(entry)
        self._last.stir()

    def suspend(self) -> None:
        """Send nothing more."""
        self._may_send = trio.Event()

    async def tell(self, notification: bytes) -> None:
        """Tell a state until it was received or ignored."""
        delays = TELL_AGAIN.delays()
        while True:
            try:
                async with self._calls:
                    await self._wait_open()  # when its turn has come, for until then this process may have lost its own
                    self.states.ask()
                    is_heard = await self._handler.notify(notification, wait_open=self._wait_open)
                self.states.find()
                if is_heard:
                    return
            except Unavailable as error:
                self.states.lose(error)
            await trio.sleep(next(delays))


def _as_it_is(entry: Entry) -> bytes:
    assert isinstance(entry, LogLine)  # nothing else is added
    return entry.text
