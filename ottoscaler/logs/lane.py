"""One long-lived stream to the receiver, shared by many workers: who may send next, and what comes back.

Workers take turns of a few entries, so that a loud one costs a quiet one no more than its turn; how much is under way
together follows the time that answers take, so that the queue before a slow receiver stays short. Answers come in the
order of the entries. When the stream ends, what was not answered is sent again on the next one.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from operator import itemgetter
from typing import NamedTuple, Protocol, get_args

import trio

from ottoscaler.backoff import Backoff
from ottoscaler.errors import MessageTooLarge, Unavailable
from ottoscaler.log import log
from ottoscaler.logs.backlog import Backlog
from ottoscaler.logs.mark import Entry, Gap
from ottoscaler.logs.outage import Outage
from ottoscaler.logs.outbox import AnswerLike, Item, Outbox, Status
from ottoscaler.metrics import LOG_LINES

RETRY = Backoff(0.1, 5.0)
SMALLEST_FLIGHT, FIRST_FLIGHT, LARGEST_FLIGHT = 16, 64, 4096
FLIGHT_BYTES = 4 << 20
TURNS = 64
"""So many turns fill what may be under way,"""
TURN_BYTES = 16 << 10
"""and a turn is over after so many bytes."""
LOOK_LINES = 192
"""So many are encoded at a time."""
ANSWER_SECONDS = 0.05
"""An answer should take no longer than this and twice the fastest: more is sent at a time while answers are faster,
less when they are slower.
"""
GATHER_SECONDS = 0.002
"""News gather so long before they are looked at together, while something is under way."""
LOUD_BYTES = 64 << 10
"""A worker of whose lines so much waits or is under way is loud,"""
CALM_SECONDS = 5.0
"""and until so long after it had."""
STALL_SECONDS = 60.0
"""A stream on which an entry waits so long for its answer is opened again."""
LOOK_SECONDS = 1.0
"""While nothing may be sent, answers are looked at so often."""
_ANSWERED = {status: LOG_LINES.labels(status.lower()) for status in get_args(Status)}


class StreamLike(Protocol):
    """A stream to the receiver; `ottoscaler.rpc.handler_link.LogStream` is one."""

    @property
    def is_leaving(self) -> bool:
        """The receiver will end it: what is under way may be answered still, and the rest wants another stream."""

    def send(self, entries: Sequence[bytes]) -> None:
        """Send without waiting."""

    def take(self) -> Sequence[AnswerLike]:
        """The answers since; raises Unavailable when the stream has ended."""


OpenStream = Callable[[Callable[[], None]], AbstractAsyncContextManager[StreamLike]]


class Sender:
    """One worker's place in a lane. `settled` is called after each answer, `broke` when its lines cannot be encoded or
    brought back: then it sends no more. `is_loud`: it belongs with others that have many lines, where nobody quiet
    queues behind them.
    """

    def __init__(
        self,
        outbox: Outbox,
        backlog: Backlog,
        encode: Callable[[Entry], bytes],
        settled: Callable[[], None],
        broke: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self.outbox = outbox
        self.backlog = backlog
        self.encode = encode
        self.settled = settled
        self.broke = broke
        self.left_out: Callable[[Gap], None] = lambda gap: None
        """Is called where a line is too large for the receiver, which gets this gap in its place."""
        self.lane: Lane | None = None
        self.is_ready = False
        self.is_loud = False
        self.flying = 0
        """Entries under way."""
        self.timer = math.inf
        """When the lane looks at it by itself."""
        self._loud_until = -math.inf

    def listen(self, now: float) -> None:
        """Find out whether it is loud."""
        if self.outbox.weight + self.backlog.weight >= LOUD_BYTES:
            self._loud_until = now + CALM_SECONDS
        self.is_loud = now < self._loud_until

    def stir(self) -> None:
        """There may be something to send."""
        if self.lane is not None:
            self.lane.stir(self)


class _Turn(NamedTuple):
    """What a worker sent at once."""

    sender: Sender
    items: list[Item]
    sent_at: float


class LaneStatistics(NamedTuple):
    """A snapshot: workers, entries under way and how many may be, whether the receiver is connected."""

    workers: int
    flying: int
    limit: int
    is_connected: bool


class Lane:
    """Runs until cancelled. `wait_open` returns when sending is allowed at all.

    Two kinds of lanes need `pass_on`, which gives a worker to another lane: one for loud workers (`is_for_loud`), which
    does everything in its turn (`wait_turn`), and the others. Without it all workers stay.
    """

    def __init__(
        self,
        open_stream: OpenStream,
        wait_open: Callable[[], Awaitable[None]],
        retry: Backoff = RETRY,
        outage: Outage | None = None,
        *,
        pass_on: Callable[[Sender], None] | None = None,
        wait_turn: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
        is_for_loud: bool = False,
    ) -> None:
        self._open = open_stream
        self._wait_open = wait_open
        self._retry = retry
        self._senders: set[Sender] = set()
        self._ready: deque[Sender] = deque()
        self._refills: set[Sender] = set()
        self._timers: list[tuple[float, int, Sender]] = []
        self._flight: deque[_Turn] = deque()
        self._answered = 0
        """How many of the first turn's entries were answered."""
        self._flying = self._flight_bytes = 0
        self._limit = float(FIRST_FLIGHT)
        self._fastest = 1.0
        self._news = trio.Event()
        self._outage = outage or Outage()
        self._is_connected = False
        self._pass_on = pass_on
        self._wait_turn = wait_turn
        self._is_for_loud = is_for_loud

    def __len__(self) -> int:
        return len(self._senders)

    def statistics(self) -> LaneStatistics:
        """A snapshot of the numbers."""
        return LaneStatistics(len(self._senders), self._flying, int(self._limit), self._is_connected)

    def add(self, sender: Sender) -> None:
        """Let a worker send here."""
        sender.lane = self
        self._senders.add(sender)
        self.stir(sender)

    def remove(self, sender: Sender) -> None:
        """A worker sends no more; answers to what it sent are awaited and ignored."""
        sender.lane = None
        sender.timer = math.inf
        self._senders.discard(sender)
        self._refills.discard(sender)

    def stir(self, sender: Sender) -> None:
        """A worker may have something to send."""
        if sender.lane is not self:
            return
        if sender.backlog.must_refill:
            self._refills.add(sender)
            self._news.set()
        elif not sender.is_ready:
            sender.is_ready = True
            self._ready.append(sender)
            self._news.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a stream open while there is something to send, and send."""
        task_status.started()
        delays = self._retry.delays()
        while True:
            await self._wait_work()
            failure: BaseException | None = None
            try:
                async with self._open(self._news_came) as stream:
                    await self._converse(stream)
            except* Unavailable as errors:
                failure = errors
                if errors.subgroup(MessageTooLarge):
                    self._leave_out_largest()
            finally:
                was_connected, self._is_connected = self._is_connected, False
                self._lose()
            if failure is not None and self._has_due():  # a stream that nobody needs may end
                self._outage.lose(failure)
            if was_connected:
                delays = self._retry.delays()
            await trio.sleep(next(delays))

    def _news_came(self) -> None:
        self._news.set()

    async def _wait_work(self) -> None:
        while not self._ready and not self._refills and self._next_time() == math.inf:
            self._news = trio.Event()
            await self._news.wait()

    async def _converse(self, stream: StreamLike) -> None:
        while True:
            self._news = trio.Event()
            self._settle_all(stream.take())
            if self._stalled_at() <= trio.current_time():
                raise Unavailable(f"otto-handler answers nothing for {STALL_SECONDS:.0f} s")
            if stream.is_leaving and not self._flight:
                return
            await self._refill()
            with trio.move_on_after(LOOK_SECONDS) as waiting:
                await self._wait_open()
            if waiting.cancelled_caught:
                continue
            if not stream.is_leaving and self._send_due(stream):
                await self._wait_turn()
            else:
                await self._wait_news()

    async def _wait_news(self) -> None:
        """Return when there may be something to do; a first line is sent at once, those behind it gather."""
        limit = min(self._next_time(), self._stalled_at())
        with trio.move_on_at(max(limit, trio.current_time() + GATHER_SECONDS)):
            await self._news.wait()
            if self._flight:
                await trio.sleep(GATHER_SECONDS)

    def _stalled_at(self) -> float:
        return self._flight[0].sent_at + STALL_SECONDS if self._flight else math.inf

    # -- sending

    def _send_due(self, stream: StreamLike) -> bool:
        """Send what may be sent; whether some of it is left for the next look, so that others get their turn."""
        now = trio.current_time()
        while self._timers and self._timers[0][0] <= now:
            sender = heapq.heappop(self._timers)[2]
            if sender.lane is self:
                sender.timer = math.inf
                self.stir(sender)
        lines = max(1, int(self._limit) // TURNS)
        limit = min(self._limit, self._flying + LOOK_LINES)
        while self._ready and self._flying < limit and self._flight_bytes < FLIGHT_BYTES:
            sender = self._ready.popleft()
            sender.is_ready = False
            if not self._keeps(sender, now):
                continue
            if items := sender.outbox.take(now, lines, TURN_BYTES):
                self._send(stream, sender, items, now)
                sender.is_ready = True
                self._ready.append(sender)
            else:
                self._park(sender, now)
        return bool(self._ready) and self._flying >= limit and limit < self._limit

    def _keeps(self, sender: Sender, now: float) -> bool:
        """Whether a worker may send here. One that belongs elsewhere goes there once nothing of it is under way."""
        if sender.lane is not self:
            return False
        sender.listen(now)
        if self._pass_on is None or sender.is_loud == self._is_for_loud:
            return True
        if not sender.flying:
            self.remove(sender)
            self._pass_on(sender)
        return False

    def _send(self, stream: StreamLike, sender: Sender, items: list[Item], now: float) -> None:
        encode = sender.encode
        try:
            entries = [encode(item.instead or item.entry) for item in items]
        except Exception as error:  # noqa: BLE001 - whatever one worker's line raises, the others go on
            self._break(sender, error)
            return
        stream.send(entries)
        self._outage.ask()
        for item, entry in zip(items, entries, strict=True):
            item.size = len(entry)
            self._flight_bytes += item.size
        self._flight.append(_Turn(sender, items, now))
        self._flying += len(items)
        sender.flying += len(items)

    def _park(self, sender: Sender, now: float) -> None:
        """A worker that has nothing to send now: until an answer, a line, or a time."""
        if sender.backlog.must_refill:
            self._refills.add(sender)
            self._news.set()
        if (wake_at := sender.outbox.wake_at(now)) < sender.timer:
            sender.timer = wake_at
            heapq.heappush(self._timers, (wake_at, id(sender), sender))

    def _next_time(self) -> float:
        return self._timers[0][0] if self._timers else math.inf

    async def _refill(self) -> None:
        while self._refills:
            sender = self._refills.pop()
            try:
                await sender.backlog.refill()
            except Exception as error:  # noqa: BLE001 - a disk that cannot be read ends one worker's log, not all
                self._break(sender, error)
            self.stir(sender)

    def _break(self, sender: Sender, error: Exception) -> None:
        self.remove(sender)
        sender.broke(error)

    # -- answers

    def _settle_all(self, answers: Sequence[AnswerLike]) -> None:
        if not answers:
            return
        self._outage.find()
        self._is_connected = True
        at, now = 0, trio.current_time()
        while at < len(answers) and self._flight:
            at += self._settle(answers[at : at + len(self._flight[0].items) - self._answered], now)
        if at < len(answers):
            log.warning("otto-handler answered more entries than it was sent", entries=len(answers) - at)
        for status, count in Counter(one.status for one in answers).items():
            _ANSWERED.get(status, _ANSWERED["RETRY"]).inc(count)
        if self._flight:
            self._outage.ask()

    def _settle(self, answers: Sequence[AnswerLike], now: float) -> int:
        """The next entries of the first turn were answered; how many these were."""
        (sender, items, sent_at), begin = self._flight[0], self._answered
        self._answered = end = begin + len(answers)
        if end == len(items):
            self._flight.popleft()
            self._answered = 0
        self._flying -= len(answers)
        self._flight_bytes -= sum(item.size for item in items[begin:end])
        self._adapt(now - sent_at, len(answers))
        if sender.lane is self:
            sender.flying -= len(answers)
            sender.outbox.answer(items[begin:end], answers, now)
            sender.settled()
            self.stir(sender)
        return len(answers)

    def _adapt(self, seconds: float, count: int) -> None:
        self._fastest = min(self._fastest * 1.001**count, seconds)
        if seconds <= ANSWER_SECONDS + 2 * self._fastest:
            self._limit = min(LARGEST_FLIGHT, self._limit + count)
        else:
            self._limit = max(SMALLEST_FLIGHT, self._limit * 0.99**count)

    def _has_due(self) -> bool:
        """Whether there is something that would be sent now if that were possible."""
        now = trio.current_time()
        return any(sender.outbox.has_due(now) or sender.backlog.must_refill for sender in self._senders)

    def _leave_out_largest(self) -> None:
        """One under way was too large, so the largest is: it is a gap from now on, and all others go again."""
        turns = [turn for turn in self._flight if turn.sender.lane is self]
        if large := [(item.size, item, turn.sender) for turn in turns for item in turn.items if item.may_be_too_large]:
            _, item, sender = max(large, key=itemgetter(0))
            sender.left_out(item.leave_out())

    def _lose(self) -> None:
        """The stream has ended: what it did not answer is to be sent again."""
        self._flight.clear()
        self._answered = self._flying = self._flight_bytes = 0
        self._limit = float(FIRST_FLIGHT)
        for sender in self._senders:
            sender.flying = 0
            sender.outbox.lose()
            self.stir(sender)
