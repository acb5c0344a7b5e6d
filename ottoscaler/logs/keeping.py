"""The keeper of logs: follows every worker of the events that this process holds, and writes the marks.

A part of the outer ring, for a log is still needed while the work on its event ends. Per worker one task follows and
one tells states; both end when the log is settled, when the grace after the worker's end is over (then a gap says so),
or when the event leaves this process. Marks are written together, every `MARK_SECONDS` where something moved, and at
once before a pod may go.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import msgspec
import trio
import trio_util

from ottoscaler.events import Event
from ottoscaler.fleet import Fleet, Follow
from ottoscaler.log import log
from ottoscaler.logs.backlog import Room
from ottoscaler.logs.event_logs import LogsOfEvent
from ottoscaler.logs.following import Following
from ottoscaler.logs.mark import Entry, Gap, Mark
from ottoscaler.logs.messages import WHYS, say_gap
from ottoscaler.logs.outage import Outage
from ottoscaler.logs.tracked import Receiver, Tracked
from ottoscaler.logs.turns import Turns
from ottoscaler.metrics import LOG_GAPS
from ottoscaler.spine.ledger import Ledger
from ottoscaler.spine.traces import NO_TRACES, Traces
from ottoscaler.spine.worker_logs import EventLogs, LogStatistics
from ottoscaler.stream.base import Claim
from ottoscaler.stream.marks import Marking
from ottoscaler.stream.progress import Progress

MARK_SECONDS = 0.5
CLOSE_SECONDS = 1.0
CROWDED_SECONDS = 2.0
"""So long an event may wait for its logs however many others do."""
SILENT_SECONDS = 5.0
"""A receiver that was asked and says nothing for so long is reported as away."""
for _why in WHYS:
    LOG_GAPS.labels(_why)


class LogApi(Protocol):
    """What is needed of the API here; `ottoscaler.kube.client.Kube` has it."""

    def read_log(
        self,
        namespace: str,
        name: str,
        container: str,
        *,
        follow: bool,
        since: str = "",
        limit_bytes: int | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """A container's log with timestamps."""


class LogKeeper:
    """Looks after logs; `run` must be running. `build_pod` says which containers a worker's pod has; beyond
    `max_waiting` events that wait for their logs alone the oldest are given up, so that they keep no new ones out.
    """

    def __init__(
        self,
        api: LogApi,
        fleet: Fleet,
        ledger: Ledger,
        receiver: Receiver,
        *,
        namespace: str,
        grace: float,
        build_pod: Callable[[Event, int, int], dict[str, Any]],
        now: Callable[[], float] = time.time,
        room: Room | None = None,
        traces: Traces = NO_TRACES,
        max_waiting: int = 10_000,
        turns: Turns | None = None,
    ) -> None:
        self.waiting: dict[LogsOfEvent, float] = {}
        """The events whose workers have ended, oldest first, and since when (clock of trio)."""
        self.namespace = namespace
        self.grace = grace
        self.now = now
        self.receiver = receiver
        self.room = room or Room()
        self.traces = traces
        self.build_pod = build_pod
        self._api = api
        self._fleet = fleet
        self._ledger = ledger
        self._max_waiting = max_waiting
        self._tracked: set[Tracked] = set()
        self._nursery: trio.Nursery | None = None
        self._urgent = trio.Event()
        self._wrote = trio.Event()
        self._writing = trio.Lock()
        self._turns = turns or Turns()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow and forward until cancelled. After a crash every log that is still waited for goes on at its mark."""
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.receiver.run)
                self._nursery = nursery
                for tracked in self._tracked:
                    if not tracked.settled.is_set():
                        nursery.start_soon(self._see_through, tracked)
                task_status.started()
                await self._write_marks()
        finally:
            self._nursery = None

    @contextmanager
    def open_event(self, event: Event, claim: Claim, progress: Progress) -> Iterator[EventLogs]:
        """Look after an event's logs for the time of the block."""
        logs = LogsOfEvent(self, event, claim, progress)
        try:
            yield logs
        finally:
            self.waiting.pop(logs, None)
            for tracked in logs.tracked.values():
                self.forget(tracked, "the event is worked on here no more")

    async def hand_over(self) -> None:
        """Send nothing more, and write every mark."""
        self.receiver.suspend()
        await self._write_now()

    def track(self, tracked: Tracked) -> None:
        """Begin with a worker."""
        self._tracked.add(tracked)
        if self._nursery is not None:
            self._nursery.start_soon(self._see_through, tracked)

    def forget(self, tracked: Tracked, reason: str) -> None:
        """End with a worker."""
        tracked.life.cancel(reason=reason)
        tracked.settle()
        tracked.backlog.leave()
        self._tracked.discard(tracked)

    async def wait(self, tracked: Tracked) -> None:
        """Return when the log is settled, or was given up: its grace is over, or the receiver has not answered for as
        long.
        """
        for done, outage in (tracked.forwarded, self.receiver.lines), (tracked.settled, self.receiver.states):
            if not await self._wait_hopeful(done, outage, tracked.needed_until):
                self._give_up(tracked)
                return

    async def _wait_hopeful(self, done: trio.Event, outage: Outage, until: float) -> bool:
        """Whether it was done before `until`, and before the receiver had been silent for the whole grace."""
        while not done.is_set():
            limit = min(until, outage.silent_since + self.grace)
            if limit <= trio.current_time():
                return False
            with trio.move_on_at(limit):
                await done.wait()
        return True

    def _give_up(self, tracked: Tracked, why: str = "GraceOver") -> None:
        """Nothing more is hoped for: say what is missing, and let the pod go."""
        who = tracked.who
        if not tracked.is_ended:
            self._leave_gap(tracked, why)
        if tracked.told < len(_STATES):
            log.warning("states not told", event_id=who.event_id, worker=who.name, cause=why, told=tracked.told)
        tracked.is_ended, tracked.told = True, len(_STATES)
        _note_end(tracked)
        tracked.settle()
        tracked.life.cancel(reason=f"nobody took the log: {why}")

    def _relieve(self) -> None:
        """Give up the logs of events that wait for nothing else, while too many do."""
        if len(self.waiting) <= self._max_waiting:
            return
        latest = trio.current_time() - CROWDED_SECONDS
        waiting = [(logs, since) for logs, since in self.waiting.items() if not logs.is_settled]
        for logs, since in waiting[: max(0, len(waiting) - self._max_waiting)]:
            for tracked in logs.tracked.values() if since <= latest else ():
                if not tracked.settled.is_set():
                    self._give_up(tracked, "Crowded")

    def _leave_gap(self, tracked: Tracked, why: str) -> None:
        _note_gap(tracked, tracked.give_up(why))
        self.say_rest(tracked)

    def say_rest(self, tracked: Tracked) -> None:
        """Send what of the log was given up, when that is possible."""
        assert tracked.rest is not None  # set by all who call
        try:
            self.receiver.leave_behind(tracked.wording.encode(tracked.rest))
        except Exception as error:  # noqa: BLE001 - whatever a bug raises, the other logs go on
            log.error("a gap cannot be told", error=error, worker=tracked.who.name)

    def statistics(self) -> LogStatistics:
        """How much waits, and whether the receiver answers."""
        open_ones = [tracked for tracked in self._tracked if not tracked.settled.is_set()]
        memory = sum(tracked.backlog.weight + tracked.outbox.weight for tracked in open_ones)
        silent = [each.is_silent_for(SILENT_SECONDS) for each in (self.receiver.lines, self.receiver.states)]
        return LogStatistics(len(open_ones), memory, self.room.spooled, is_taken=not any(silent))

    # -- one worker

    async def _see_through(self, tracked: Tracked) -> None:
        """Everything about one worker; nothing but a cancel of the whole part leaves this task, and then the log is
        not settled: pods and events wait on.
        """
        try:
            with tracked.life, self._fleet.follow(tracked.who.name) as pod:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._tell_states, tracked, pod)
                    if not tracked.is_ended:
                        await self._forward(tracked, pod)
                    tracked.forwarded.set()
                await self._write_through(tracked)
                _note_end(tracked)
            tracked.settle()
        except* Exception as errors:  # noqa: BLE001 - whatever a bug raises, the other logs go on
            self._break(tracked, errors)
            tracked.settle()
        finally:
            self.receiver.detach(tracked.sender)
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                await tracked.backlog.close()
            if not tracked.settled.is_set():
                tracked.begin_anew()

    def _break(self, tracked: Tracked, errors: BaseException) -> None:
        """What was met with this log ends it, and it alone."""
        log.error("forwarding a log broke", error=errors, worker=tracked.who.name)
        self.receiver.detach(tracked.sender)
        if not tracked.is_ended:
            self._leave_gap(tracked, "Broken")
            tracked.is_ended = True

    async def _forward(self, tracked: Tracked, pod: Follow) -> None:
        """The log from its mark to its end, and until all of it is done with."""

        async def deliver(entries: Sequence[Entry]) -> None:
            for entry in entries:
                if isinstance(entry, Gap):
                    _note_gap(tracked, entry)
            await tracked.deliver(entries, pod.record)

        def read(**wanted: Any) -> AsyncGenerator[bytes, None]:
            who = tracked.who
            return self._turns.read(self._api.read_log(self.namespace, who.name, who.container, **wanted))

        tracked.following = Following(tracked.who.name, read, pod, tracked.outbox.mark, deliver, now=self.now)
        tracked.hurry()
        tracked.sender.left_out = partial(_note_gap, tracked)
        self.receiver.attach(tracked.sender)
        try:
            with tracked.forwarding:
                await tracked.following.run()
                await tracked.wait_empty()
            if tracked.failure is not None:
                raise tracked.failure
            tracked.is_ended = True
        except* Exception as errors:  # noqa: BLE001 - whatever a bug raises, the states are told
            self._break(tracked, errors)

    async def _tell_states(self, tracked: Tracked, pod: Follow) -> None:
        """Tell the states in their order, each until it was heard."""
        for number, tell in enumerate(_STATES, start=1):
            if tracked.told < number:
                if (notification := await tell(self, tracked, pod)) is not None:
                    await self.receiver.tell(notification)
                tracked.told = number

    async def tell_created(self, tracked: Tracked, pod: Follow) -> bytes | None:
        """The first state: the pod is there."""
        await trio_util.wait_any(lambda: _wait(pod, has_started=False), tracked.has_outcome.wait)
        known = tracked.accepted_at or tracked.started_at  # of a pod that is gone
        if pod.record is None and not known:
            return None
        return tracked.wording.created(pod.record, known or self.now())

    async def tell_running(self, tracked: Tracked, pod: Follow) -> bytes | None:
        """The second: the container runs."""
        await trio_util.wait_any(lambda: _wait(pod, has_started=True), tracked.has_outcome.wait)
        record = pod.record
        started_at = (record and record.started_at) or tracked.started_at
        return tracked.wording.running(started_at, record) if started_at is not None else None

    async def tell_ended(self, tracked: Tracked, pod: Follow) -> bytes | None:
        """The last: how it ended."""
        await tracked.has_outcome.wait()
        assert tracked.outcome is not None  # set with the event
        return tracked.wording.ended(tracked.outcome, self.now())

    # -- marks

    async def _write_marks(self) -> None:
        while True:
            with trio.move_on_after(MARK_SECONDS):
                await self._urgent.wait()
            self._urgent = trio.Event()
            self._relieve()
            await self._write_now()

    async def _write_through(self, tracked: Tracked) -> None:
        """Return when Redis knows the mark."""
        while tracked.written != tracked.mark:
            self._urgent.set()
            await self._wrote.wait()

    async def _write_now(self) -> None:
        """Write what has moved; an event that is not ours any more is given up here."""
        async with self._writing:
            moved: defaultdict[Claim, list[tuple[Tracked, Mark]]] = defaultdict(list)
            for tracked in self._tracked:
                if (mark := tracked.mark) != tracked.written:
                    moved[tracked.claim].append((tracked, mark))
            if moved:
                markings = [Marking(claim, tuple(map(_row, marks))) for claim, marks in moved.items()]
                answers = await self._ledger.insist(partial(self._ledger.stream.write_marks, markings))
                for marks, is_ours in zip(moved.values(), answers, strict=True):
                    self._note_written(marks, is_ours=is_ours)
            self._wrote.set()
            self._wrote = trio.Event()

    def _note_written(self, marks: list[tuple[Tracked, Mark]], *, is_ours: bool) -> None:
        for tracked, mark in marks:
            if is_ours:
                tracked.written = mark
            else:
                self.forget(tracked, "NotOurs: the event was lost to another owner")


def _note_gap(tracked: Tracked, gap: Gap) -> None:
    LOG_GAPS.labels(gap.why).inc()
    tracked.gaps += 1
    who = tracked.who
    log.warning("log has a gap", event_id=who.event_id, worker=who.name, cause=gap.why, reason=say_gap(gap))


def _note_end(tracked: Tracked) -> None:
    """Once, and of an attempt that had a log."""
    if (tell := tracked.tell_end) is not None and (tracked.mark.head or tracked.gaps):
        tracked.tell_end = None
        tell(tracked)


_STATES = (LogKeeper.tell_created, LogKeeper.tell_running, LogKeeper.tell_ended)


async def _wait(pod: Follow, *, has_started: bool) -> None:
    await pod.wait(lambda r: r is not None and (not has_started or r.started_at is not None or r.gone or r.is_final))


def _row(moved: tuple[Tracked, Mark]) -> tuple[int, int, str]:
    tracked, mark = moved
    return tracked.who.index, tracked.who.attempt, msgspec.json.encode(mark).decode()
