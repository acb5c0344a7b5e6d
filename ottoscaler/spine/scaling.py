"""One scale_up: its N workers, each a task in this event's own nursery, and the one close at the end.

In: an event that this process holds, and its progress (fresh, or as an earlier owner left it). Out: one result. Every
step writes down before the next begins, so that whoever takes over goes on exactly there:
worker ended → outcome recorded → pod deleted → all deletes answered → closed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from functools import partial

import trio

from ottoscaler.events import BadEntry, Event
from ottoscaler.log import log
from ottoscaler.metrics import StageClock, count_attempt
from ottoscaler.outcomes import WorkerOutcome, result_pairs
from ottoscaler.pods import PodRecord
from ottoscaler.repeats import kept_of
from ottoscaler.spine.attempts import Attempts
from ottoscaler.spine.cleanup import Cleanup
from ottoscaler.spine.creation import STOPPED
from ottoscaler.spine.fences import Guard
from ottoscaler.spine.ledger import NotOurs
from ottoscaler.spine.site import Site
from ottoscaler.spine.worker import Worker
from ottoscaler.spine.worker_logs import NO_LOGS, EventLogs
from ottoscaler.stream.base import Accepted, Claim, Closing, Outcome
from ottoscaler.stream.progress import Progress

TRACE_AGAIN_SECONDS = 30.0


class Scaling:
    """The work on one scale_up while this process holds it."""

    def __init__(
        self, site: Site, guard: Guard, event: Event, progress: Progress, claim: Claim, settled: Callable[[], None]
    ) -> None:
        self.claim = claim
        self._site = site
        self._event = event
        self._progress = progress
        self._settled = settled
        self._attempts = Attempts(progress, event.pod_count)
        self._cleanup = Cleanup(site, guard, event, self._recall)
        self._recalled = site.ledger.stream.restarts
        self._recalling = trio.Lock()
        self._accepted: list[Accepted | None] = []  # of attempts that others followed
        self._passed_on = site.traces.pass_on(event)
        trace_id = self._passed_on.context.trace_id or None
        self._facts = {"event_id": event.id, "task_id": event.task_id, "trace_id": trace_id}
        self._logs: EventLogs = NO_LOGS
        self._unstarted: dict[int, None] = dict.fromkeys(self._attempts.open_indices())
        self._workers: dict[int, Worker] = {}
        self._queueing = trio.CancelScope()
        self._noticed = trio.Event()
        self._all_recorded = trio.Event()
        self._began = site.now()

    def __repr__(self) -> str:
        return (
            f"<Scaling {self.claim.event_id} epoch={self.claim.epoch} unstarted={len(self._unstarted)} "
            f"ended={len(self._attempts.outcomes)}/{self._event.pod_count}>"
        )

    @property
    def is_untouched(self) -> bool:
        """No worker of it was ever begun here: it can be handed over at once."""
        return not self._workers and not self._attempts.outcomes

    @property
    def is_clean(self) -> bool:
        """No create may still be carried out behind the next owner's back."""
        is_unbegun_left = any(index not in self._workers for index in self._attempts.open_indices())
        return not (self._is_inherited_unclean and is_unbegun_left) and not any(
            worker.is_unanswered for worker in self._workers.values()
        )

    @property
    def _is_inherited_unclean(self) -> bool:
        """An earlier owner went without a word: any attempt that nobody saw may have been sent by it."""
        return self.claim.epoch > 1 and not self._progress.clean

    @property
    def queued(self) -> int:
        """How many of its workers wait for a slot."""
        return len(self._unstarted)

    def needs(self, record: PodRecord) -> bool:
        """Whether this pod of the event is still worked on, waits to be cleaned, or is kept as a fence; so may be one
        whose labels were changed.
        """
        is_present = (
            record.attempt == self._attempts.number(record.index) and record.index not in self._attempts.outcomes
        )
        return is_present or self._cleanup.keeps(record.name) or not self._site.is_labelled(record)

    def notice(self) -> None:
        """Somebody changed the progress (stop marks): read it again."""
        self._noticed.set()

    async def run(self) -> BadEntry | None:
        """Work until the result is written. Raises `NotOurs` when the event was lost; a cancel leaves all pods
        running.
        """
        with self._site.logs.open_event(self._event, self.claim, self._progress) as self._logs:
            self._cleanup.logs = self._logs
            await self._run()
        return None

    async def _run(self) -> None:
        await self._begin()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._heed_notices)
            async with trio.open_nursery() as workers:
                self._clean_left(workers)
                self._adopt_begun(workers)
                self._heed(self._progress, nursery)
                await self._start_rest(workers)
            await self._all_recorded.wait()
            nursery.cancel_scope.cancel(reason="all workers of the event have ended")
        await self._cleanup.clean_rest()
        clock = StageClock("deleted", self._site.now(), self._site.traces.gaps(self._event))
        pairs = await self._close()
        clock.reach("closed", self._site.now())
        self._site.traces.event_ended(self._event, pairs)

    async def _begin(self) -> None:
        """Give a sign of life, so that what may kill this process next is not held against the event."""
        is_adopted = self.claim.epoch > 1
        await (self._site.ledger.adopt(self.claim) if is_adopted else self._site.ledger.record(self.claim))
        self._began = self._site.now()
        if not is_adopted and self._progress.registered:
            on_gap = self._site.traces.gaps(self._event)
            StageClock("read", self._progress.registered / 1000, on_gap).reach("started", self._began)
        for ended in [] if is_adopted else self._attempts.outcomes.values():  # stopped while nobody held the event
            count_attempt(ended.outcome, ended.cause, is_retried=False)
        say = log.info if self.claim.epoch <= 2 else log.debug  # however often it changes hands, few lines are its
        say(
            "scale_up adopted" if is_adopted else "scale_up started",
            **self._facts,
            stage="started",
            workers=self._event.pod_count,
            note=self._event.note or None,
        )
        for ended in self._attempts.all_ends():
            self._cleanup.fence_off(ended)
            self._logs.end(ended)
            if self._is_inherited_unclean:
                self._trace_again(ended)
        self._note_whether_over()

    def _trace_again(self, ended: WorkerOutcome) -> None:
        """Of an attempt that ended shortly before its owner died, that may not have told whoever records traces."""
        at = datetime.fromisoformat(ended.completed_at).timestamp() if ended.completed_at else 0.0
        if self._began - at < TRACE_AGAIN_SECONDS:
            began = self._attempts.accepted_at(ended.index, ended.attempt) or at
            self._site.traces.worker_ended(self._event, ended, began, max(began, at))

    # -- taking stock

    def _clean_left(self, workers: trio.Nursery) -> None:
        """Pods of ended attempts that an earlier owner left go as all others do, once their logs are taken: the sweep
        would take them for orphans.
        """
        for ended in self._attempts.all_ends():
            record = self._site.fleet.records.get(ended.name)
            if record is not None and record.uid == ended.uid and not record.deleting:
                workers.start_soon(self._cleanup.clean, ended)

    def _adopt_begun(self, workers: trio.Nursery) -> None:
        """Workers whose pods exist or once did, or that are to run again, are gone on with: they wait for no slot."""
        records = self._site.fleet.pods_of_event(self._event.id)
        seen = {(record.index, record.attempt) for record in records if not record.gone}
        for index in list(self._unstarted):
            attempt = self._attempts.number(index)
            if (index, attempt) in seen or self._attempts.accepted(index)[0]:
                del self._unstarted[index]
                self._site.slots.acquire_beyond()
                workers.start_soon(self._work, index, self._enlist(index))
            elif attempt > 1:
                del self._unstarted[index]
                workers.start_soon(self._work_again, index, self._enlist(index))

    def _enlist(self, index: int, *, is_new: bool = False) -> Worker:
        """The present attempt of a worker; `is_new`: it was planned here, so no earlier owner can have begun it."""
        uid, fence_until = self._attempts.accepted(index)
        number = self._attempts.number(index)
        fence_from = min(self._site.now(), fence_until - self._site.patience.create_fence) if fence_until else 0.0
        if self._is_inherited_unclean and not uid and not is_new:
            fence_from = self._site.now()
        worker = self._workers[index] = Worker(
            self._site,
            self._event,
            self.claim,
            index,
            number,
            earlier=self._attempts.causes(index),
            accepted_uid=uid,
            fence_from=fence_from,
            begun=self._attempts.accepted_at(index, number) if uid else self._began,
        )
        return worker

    # -- working

    async def _start_rest(self, workers: trio.Nursery) -> None:
        """Begin the others as slots come free; a stop that comes first takes them out of the queue."""
        with self._queueing:
            while self._unstarted:
                await self._site.slots.acquire(self._event.id)
                if not self._unstarted:
                    self._site.slots.release()
                    return
                index = next(iter(self._unstarted))
                del self._unstarted[index]
                workers.start_soon(self._work, index, self._enlist(index))

    async def _work(self, index: int, worker: Worker) -> None:
        """One worker from its slot to its clean end, attempt after attempt."""
        self._logs.follow(index, self._attempts.number(index), worker.name)
        try:
            outcome = await worker.run()
        finally:
            self._site.slots.release()
        self._attempts.first_accepted = min(self._attempts.first_accepted, worker.accepted_at)
        self._attempts.note(index, outcome)
        self._logs.end(outcome)
        self._note_whether_over()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cleanup.clean, outcome, worker.recorded_since)
            if outcome.retry_at:
                self._accepted.append(worker.accepted)
                again = self._enlist(index, is_new=True)
                if worker.stop_cause:  # its mark was set after the end was written down, and read before we heard of it
                    again.stop(worker.stop_cause)
                nursery.start_soon(self._work_again, index, again)

    async def _work_again(self, index: int, worker: Worker) -> None:
        await worker.wait_turn(self._attempts.not_before(index), self._site.slots)
        await self._work(index, worker)

    def _note_whether_over(self) -> None:
        if self._attempts.are_over and not self._all_recorded.is_set():
            self._all_recorded.set()
            self._cleanup.note_event_ended()
            self._settled()

    # -- stops

    async def _heed_notices(self) -> None:
        """Read the progress again whenever somebody set stop marks in it."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._noticed.wait()
                self._noticed = trio.Event()
                progress = await self._read_progress()
                if progress is not None:
                    self._heed(progress, nursery)
                    await self._recall()

    async def _read_progress(self) -> Progress | None:
        ledger = self._site.ledger
        return await ledger.insist(partial(ledger.stream.read_progress, self._event.id))

    async def _recall(self) -> None:
        """After each chance that Redis has crashed: record again what it has forgotten. Raises `NotOurs`."""
        async with self._recalling:
            if (restarts := self._site.ledger.stream.restarts) == self._recalled:
                return
            progress = await self._read_progress()
            if progress is None:
                raise NotOurs(self.claim)
            made = (*self._accepted, *(worker.accepted for worker in self._workers.values()))
            accepted = tuple(one for one in made if one and (one.index, one.attempt) not in progress.accepted)
            ends = self._attempts.forgotten_in(progress)
            if accepted or ends:
                await self._site.ledger.record(self.claim, accepted=accepted, outcomes=ends)
                again = len(accepted) + len(ends)
                log.warning("Redis had forgotten records", event_id=self._event.id, written_again=again)
            self._recalled = restarts

    def _heed(self, progress: Progress, nursery: trio.Nursery) -> None:
        for index, mark in progress.stops.items():
            if index in self._unstarted:
                del self._unstarted[index]
                nursery.start_soon(self._record_unstarted, index, mark["cause"])
            elif (worker := self._workers.get(index)) and index not in self._attempts.outcomes:
                worker.stop(mark["cause"])
        if not self._unstarted:
            self._queueing.cancel(reason="no worker waits for a slot any more")

    async def _record_unstarted(self, index: int, cause: str) -> None:
        """Its end; a create that an owner who died may have sent of it is fenced off, now and by whoever reads it."""
        name = self._site.name_pod(self._event.id, index, 1)
        fence_until = self._site.now() + self._site.patience.create_fence if self._is_inherited_unclean else 0.0
        outcome = WorkerOutcome(name, index, 1, STOPPED.outcome, fence_until=fence_until).stopped(cause)
        count_attempt(outcome.outcome, cause, is_retried=False)
        await self._site.ledger.record(self.claim, outcomes=(Outcome(index, outcome.to_json()),))
        self._attempts.note(index, outcome)
        self._cleanup.fence_off(outcome)
        self._note_whether_over()

    # -- the end

    async def _close(self) -> tuple[tuple[str, str], ...]:
        first = self._attempts.first_accepted
        outcomes = [self._attempts.outcomes[index] for index in sorted(self._attempts.outcomes)]
        started = None if first == math.inf else first
        gaps, now = self._logs.gaps(), self._site.now()
        pairs = result_pairs(self._passed_on, outcomes, started=started, completed=now, log_gaps=gaps)
        fences = self._cleanup.fences_left()
        kept = kept_of(self._event, pairs)
        await self._site.ledger.close(Closing(self._event.id, "results", pairs, self.claim, fences, kept))
        log.info("scale_up closed", **self._facts, stage="closed", **figures(pairs))
        return pairs


def figures(pairs: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """What a log line says of a result."""
    named = dict(pairs)
    return {name: named[name] for name in ("status", "succeeded", "failed", "terminated")}
