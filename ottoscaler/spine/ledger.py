"""What this process writes down about its events: fenced, in batches, and patiently.

Every write shows the claim it is made under. An answer "not yours" raises `NotOurs`: the caller's scaling ends
there and touches nothing more. Silence of Redis only makes the write wait: it is repeated, which all scripts allow,
until an answer comes.

Records of many workers travel together: while one call is under way the next ones gather (group commit), so that an
outcome costs a share of a call and never waits for a timer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import TypeVar

import msgspec
import trio

from ottoscaler.backoff import Backoff
from ottoscaler.errors import OttoscalerError, Unavailable
from ottoscaler.metrics import count_ending
from ottoscaler.stream.base import Accepted, Claim, Closed, Closing, Outcome, Stream, Writing, Written
from ottoscaler.stream.pipelines import News

T = TypeVar("T")
MOST_AT_ONCE = 500


class NotOurs(OttoscalerError):
    """Redis says that the event belongs to another owner or epoch by now, or has ended."""

    def __init__(self, claim: Claim) -> None:
        super().__init__(f"event {claim.event_id} is no longer held under epoch {claim.epoch} by {claim.session}")
        self.claim = claim


class _Entry:
    """One writing on its way; `written` is set before `answered`."""

    __slots__ = ("answered", "writing", "written")

    def __init__(self, writing: Writing) -> None:
        self.writing = writing
        self.written = Written(is_ours=False)
        self.answered = trio.Event()


class Ledger:
    """The patient writer of one process. `run` does the recording and must be running for `record` to return.

    `listeners` are told of the events about which something was written, or that were closed, after that.
    """

    def __init__(self, stream: Stream, backoff: Backoff) -> None:
        self.stream = stream
        self.listeners: list[Callable[[Collection[str]], None]] = []
        self._backoff = backoff
        self._waiting: deque[_Entry] = deque()
        self._arrived = trio.Event()
        self._empty = trio.Event()
        self._empty.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what arrives until cancelled. Nothing leaves the queue before it was answered, whatever crashes."""
        task_status.started()
        while True:
            await self._arrived.wait()
            batch = [self._waiting[at] for at in range(min(len(self._waiting), MOST_AT_ONCE))]
            answers = await self.insist(partial(self.stream.record, [entry.writing for entry in batch]))
            self._settle(batch, answers)

    def _settle(self, batch: list[_Entry], answers: list[Written]) -> None:
        for entry, written in zip(batch, answers, strict=True):
            self._waiting.popleft()
            entry.written = written
            entry.answered.set()
        self.tell({entry.writing.claim.event_id for entry in batch})
        if not self._waiting:
            self._arrived = trio.Event()
            self._empty.set()

    async def record(
        self,
        claim: Claim,
        *,
        accepted: tuple[Accepted, ...] = (),
        outcomes: tuple[Outcome, ...] = (),
        news: News | None = None,
    ) -> tuple[str, ...]:
        """Record and return the outcomes that stand now, in order; raises `NotOurs`.

        A cancel gives up waiting, not the writing: what was handed in is written before `wait_empty` returns.
        """
        entry = self._hand_in(Writing(claim, accepted, outcomes, news=news))
        await entry.answered.wait()
        if not entry.written.is_ours:
            raise NotOurs(claim)
        return entry.written.outcomes

    def note_trouble(self, claim: Claim, index: int, cause: str, reason: str) -> None:
        """Let the progress say what keeps a worker from starting or ending; nobody waits for it."""
        text = msgspec.json.encode({"cause": cause, "reason": reason}).decode()
        self._hand_in(Writing(claim, troubles=((index, text),)))

    def _hand_in(self, writing: Writing) -> _Entry:
        entry = _Entry(writing)
        self._waiting.append(entry)
        self._empty = trio.Event() if self._empty.is_set() else self._empty
        self._arrived.set()
        return entry

    async def wait_empty(self) -> None:
        """Return when everything handed in was written; callers limit the wait."""
        await self._empty.wait()

    async def adopt(self, claim: Claim) -> None:
        """Note that this process goes on with a taken event; raises `NotOurs`."""
        if not await self.insist(lambda: self.stream.adopt(claim)):
            raise NotOurs(claim)

    async def close(self, closing: Closing) -> Closed:
        """End an event; an event closed before counts as closed. Raises `NotOurs` where another has it."""
        closed = await self.insist(lambda: self.stream.close(closing))
        if closed.how == "lost" and closing.claim is not None:
            raise NotOurs(closing.claim)
        self.tell((closing.event_id,))
        count_ending(closing.target, closing.pairs)  # also where an earlier try of this very call had closed it
        return closed

    def tell(self, event_ids: Collection[str]) -> None:
        """Let the listeners know that something was written about these events."""
        for listen in self.listeners:
            listen(event_ids)

    async def insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat a call that may be repeated until Redis answers it; ends only with an answer or a cancel."""
        delays = self._backoff.delays()
        while True:
            try:
                return await call()
            except Unavailable:
                await trio.sleep(next(delays))
