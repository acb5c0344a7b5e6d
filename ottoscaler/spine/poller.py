"""The Redis poller: reads new entries, judges them, and hands the good ones on.

It takes only what fits. A free scaling holds the event here at once; beyond that a reserve of 10,000 is read ahead and
offered to every replica, so that a scale_down is stuck behind scale_ups that wait for room only where more of them do.
Bad entries go to the dead letters. Whatever a cancel leaves in its hands is given back by `hand_back`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import trio

from ottoscaler.backoff import Backoff
from ottoscaler.errors import Unavailable
from ottoscaler.events import BadEntry, Event, Limits, parse_in_steps
from ottoscaler.log import log
from ottoscaler.metrics import POLLS, StageClock, count_ending
from ottoscaler.outcomes import dead_letter_pairs
from ottoscaler.repeats import content_of, mismatch, repeated_pairs
from ottoscaler.spine.ledger import Ledger
from ottoscaler.spine.roster import Roster
from ottoscaler.spine.traces import NO_TRACES, Traces
from ottoscaler.stepwise import last_of
from ottoscaler.stream.base import MISMATCHED, REPEATED, Closing, Entry, Lane, Registration
from ottoscaler.stream.progress import Progress

READ_AT_ONCE = 100
RESERVE = 10_000
"""Scale_ups that are offered to all replicas, beyond which nothing is read. So many cost a look nothing more, Redis
some 1 kB each, and a scale_down that chooses among them 25 ms of Redis (80 ms where it names no task), in 20 calls;
measured with Valkey on two shared cores."""
BLOCK_SECONDS = 2.0
"""One blocking read ends after this time; it stays below the socket's timeout."""

Insist = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]


async def _once(call: Callable[[], Awaitable[Any]]) -> Any:
    return await call()


class Poller:
    """The intake of new events.

    `offered` tells how many events wait in the work lane; `max_age` (s, 0 = no limit) applies to what was added
    before `era_created` (ms), the group's first start. `turned_at` (clock of trio) is when the last call to Redis
    was begun: each has a limit, so a poller that makes none for long hangs.
    """

    def __init__(
        self,
        ledger: Ledger,
        roster: Roster,
        session: str,
        limits: Limits,
        events: trio.MemorySendChannel[Progress],
        *,
        max_age: float = 0.0,
        era_created: int = 0,
        backoff: Backoff,
        now: Callable[[], float] = time.time,
        traces: Traces = NO_TRACES,
    ) -> None:
        self.offered = 0
        self.turned_at = trio.current_time()
        self._ledger = ledger
        self._roster = roster
        self._session = session
        self._limits = limits
        self._events = events
        self._max_age = max_age
        self._era_created = era_created
        self._backoff = backoff
        self._now = now
        self._traces = traces
        self._in_hand: dict[str, Entry] = {}

    def __contains__(self, event_id: object) -> bool:
        """Whether an entry was delivered and is not yet registered or buried."""
        return event_id in self._in_hand

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read until cancelled. Raises `GroupLost` when Redis has forgotten the group."""
        task_status.started()
        delays = self._backoff.delays()
        await self.admit(list(self._in_hand.values()))
        while True:
            try:
                await self._read_once()
            except Unavailable:
                POLLS.labels("failed").inc()
                await trio.sleep(next(delays))
            else:
                delays = self._backoff.delays()

    async def _read_once(self) -> None:
        self.turned_at = trio.current_time()
        count = min(READ_AT_ONCE, self._roster.rooms()["work"] + RESERVE - self.offered)
        if count <= 0:
            await trio.sleep(BLOCK_SECONDS / 8)
            return
        entries = await self._ledger.stream.read(count, BLOCK_SECONDS)
        POLLS.labels("entries" if entries else "empty").inc()
        await self.admit(entries)

    async def hand_back(self) -> None:
        """After the cancel: offer what was read and not yet registered. One try; callers limit the wait."""
        entries = [*self._in_hand.values(), *self._ledger.stream.take_unread()]
        await self.admit(entries, insist=_once, offer=True)

    async def admit(self, entries: Sequence[Entry], *, insist: Insist | None = None, offer: bool = False) -> None:
        """Judge delivered entries: bad ones to the dead letters, good ones into the progress and on to the handler.

        An entry leaves the hand when what becomes of it is written.
        """
        insist = insist or self._insist
        self._in_hand.update((entry.id, entry) for entry in entries)
        events = []
        for entry in entries:
            verdict = await self._judge(entry)
            if isinstance(verdict, Event):
                events.append(verdict)
            else:
                await insist(partial(self._bury, entry, verdict))
                self._in_hand.pop(entry.id, None)
        if events:
            await self._register(events, insist, offer=offer)

    async def _insist(self, call: Callable[[], Awaitable[Any]]) -> Any:
        async def turn() -> Any:
            self.turned_at = trio.current_time()
            return await call()

        return await self._ledger.insist(turn)

    async def _register(self, events: Sequence[Event], insist: Insist, *, offer: bool) -> None:
        async with self._roster.giving_out:
            registrations = self._plan(events, offer)
        epochs: list[int] = await insist(partial(self._ledger.stream.register, registrations))
        for event, registration, epoch in zip(events, registrations, epochs, strict=True):
            if epoch in (REPEATED, MISMATCHED):
                await insist(partial(self._end_repeated, event, epoch))
            self._in_hand.pop(registration.event_id, None)
            if epoch >= 0:
                clock = StageClock("added", _added(registration.event_id) / 1000, self._traces.gaps(event))
                clock.reach("read", self._now())
            if epoch > 0:
                self._hand_on(registration, epoch)
            elif self._roster.work_of(registration.event_id) is None:  # a try that was cut off may have entered it
                self._roster.leave(registration.event_id)

    def _plan(self, events: Sequence[Event], offer: bool) -> list[Registration]:
        """Hold what fits, and count it from now on; offer the rest."""
        room = self._roster.rooms()
        registrations = []
        for event in events:
            lane = _lane(event)
            must_offer = offer or room[lane] <= 0
            room[lane] -= not must_offer
            self.offered += must_offer and lane == "work"
            if not must_offer:
                self._roster.enter(event.id, lane)
            registrations.append(
                Registration(
                    *(event.id, lane, event.entry, event.task_id, _planned(event), must_offer),
                    request_id=event.request_id,
                    content=content_of(event.entry) if event.request_id else "",
                    replay_of=event.replay_of,
                )
            )
        return registrations

    async def _end_repeated(self, event: Event, epoch: int) -> None:
        """End an event whose request id means another: answered by that one, or refused."""
        stream, now = self._ledger.stream, self._now()
        request = await stream.read_request(event.request_id)
        original = request.event_id if request else "that ended a day ago"
        if epoch == REPEATED:
            pairs = repeated_pairs(self._traces.pass_on(event), original, now)
            if (await stream.close(Closing(event.id, "results", pairs))).how == "here":
                count_ending("results", pairs)
                self._traces.event_ended(event, pairs)
            facts = {"event_id": event.id, "task_id": event.task_id or None, "stage": "closed"}
            log.info("event repeats another", **facts, request_id=event.request_id, original=original)
        else:
            await self._bury(self._in_hand[event.id], mismatch(event, original))

    def _hand_on(self, event: Registration, epoch: int) -> None:
        """To the handler. The channel never fills: the roster's room bounds what is in it."""
        self._roster.enter(event.event_id, event.lane, epoch)
        self._events.send_nowait(
            Progress(
                *(event.event_id, event.lane, self._session, epoch, event.entry, event.task_id, event.planned),
                registered=int(self._now() * 1000),
            )
        )

    async def _judge(self, entry: Entry) -> Event | BadEntry:
        if entry.fields is None:
            return BadEntry(entry.id, "Trimmed", "the entry was trimmed from the stream before anyone read it")
        event = await last_of(parse_in_steps(entry.id, entry.fields, self._limits))
        added = _added(entry.id)
        if isinstance(event, Event) and self._max_age and added < self._era_created - self._max_age * 1000:
            age = (self._era_created - added) / 1000
            return BadEntry(
                entry.id,
                "TooOld",
                f"the entry was {age:.0f} s old at the first start, expected at most {self._max_age:g} s"
                " (EVENT_MAX_AGE_SECONDS)",
                entry.fields,
            )
        return event

    async def _bury(self, entry: Entry, bad: BadEntry) -> None:
        pairs = dead_letter_pairs(bad, deliveries=entry.deliveries, failed=self._now())
        closed = await self._ledger.stream.close(Closing(entry.id, "dlq", pairs))
        if closed.how == "here":
            count_ending("dlq", pairs)
            self._traces.event_refused(bad)
            log.warning("event refused", event_id=entry.id, cause=bad.cause, reason=bad.reason)


def _lane(event: Event) -> Lane:
    return "work" if event.type == "scale_up" else "pipelines" if event.type == "pipeline" else "control"


def _planned(event: Event) -> int:
    """Of what it has parts: its workers, or its stages."""
    return len(event.pipeline.stages) if event.pipeline else event.pod_count


def _added(entry_id: str) -> int:
    """When it was added, by the clock of Redis (ms)."""
    return int(entry_id.partition("-")[0])
