"""One scale_up: its N workers, each a task in this event's own nursery, and the one close at the end.

In: an event that this process holds, and its progress (fresh, or as an earlier owner left it). Out: one result.
Every step writes down before the next begins, so that whoever takes over goes on exactly there: worker ended →
outcome recorded → pod deleted → all deletes answered → closed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from ottoscaler.creation import STOPPED
from ottoscaler.events import Event
from ottoscaler.fences import Guard
from ottoscaler.log import log
from ottoscaler.outcomes import WorkerOutcome, outcome_from, result_pairs
from ottoscaler.site import Site
from ottoscaler.stream.base import Claim, Closing, Fence, Outcome
from ottoscaler.stream.progress import Progress
from ottoscaler.worker import Worker

WAIT_FOR_PHASES_FROM = 10
"""With so many pods left at the end it pays to wait for their final phases and to delete them as one collection."""


class Scaling:
    """The work on one scale_up while this process holds it."""

    def __init__(
        self, site: Site, guard: Guard, event: Event, progress: Progress, claim: Claim, settled: Callable[[], None]
    ) -> None:
        self.claim = claim
        self._guard = guard
        self._site = site
        self._event = event
        self._progress = progress
        self._settled = settled
        self._outcomes: dict[int, WorkerOutcome] = {}
        self._unstarted: dict[int, None] = {}
        self._workers: dict[int, Worker] = {}
        self._fences: dict[str, Fence] = {}
        self._left: dict[str, str] = {}
        self._first_accepted = progress.started / 1000 if progress.started else math.inf
        self._noticed = trio.Event()
        self._all_recorded = trio.Event()

    def __repr__(self) -> str:
        return (
            f"<Scaling {self.claim.event_id} epoch={self.claim.epoch} unstarted={len(self._unstarted)} "
            f"ended={len(self._outcomes)}/{self._event.pod_count}>"
        )

    @property
    def is_untouched(self) -> bool:
        """No worker of it was ever begun here: it can be handed over at once."""
        return not self._workers and not self._outcomes

    @property
    def is_clean(self) -> bool:
        """No create may still be carried out behind the next owner's back."""
        return not (self._is_inherited_unclean and self._unstarted) and not any(
            worker.is_unanswered for worker in self._workers.values()
        )

    @property
    def _is_inherited_unclean(self) -> bool:
        """An earlier owner went without a word: any attempt that nobody saw may have been sent by it."""
        return self.claim.epoch > 1 and not self._progress.clean

    def notice(self) -> None:
        """Somebody changed the progress (stop marks): read it again."""
        self._noticed.set()

    async def run(self) -> None:
        """Work until the result is written. Raises `NotOurs` when the event was lost; a cancel leaves all pods
        running.
        """
        if self.claim.epoch > 1:
            await self._site.ledger.adopt(self.claim)
        log.info(
            "scale_up adopted" if self.claim.epoch > 1 else "scale_up started",
            event_id=self._event.id,
            task_id=self._event.task_id,
            workers=self._event.pod_count,
            note=self._event.note or None,
        )
        self._recall()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._heed_notices)
            async with trio.open_nursery() as workers:
                self._adopt_begun(workers)
                self._heed(self._progress, nursery)
                await self._start_rest(workers)
            await self._all_recorded.wait()
            nursery.cancel_scope.cancel(reason="all workers of the event have ended")
        await self._clean_rest()
        await self._close()

    # -- taking stock

    def _recall(self) -> None:
        """Sort the indices by what the progress knows: ended, and not."""
        for index in range(1, self._event.pod_count + 1):
            raw = self._progress.outcomes.get(index)
            if raw is None:
                self._unstarted[index] = None
                continue
            outcome = outcome_from(raw)
            self._fence_off(outcome)
            self._note_outcome(index, outcome)

    def _adopt_begun(self, workers: trio.Nursery) -> None:
        """Workers whose pods exist, or once did, are gone on with at once: they count, but wait for no slot."""
        seen = {record.index for record in self._site.fleet.pods_of_event(self._event.id) if not record.gone}
        accepted = {index: made["uid"] for (index, _), made in self._progress.accepted.items()}
        for index in [index for index in self._unstarted if index in seen or index in accepted]:
            del self._unstarted[index]
            self._site.slots.acquire_beyond()
            workers.start_soon(self._work, self._enlist(index, accepted.get(index, "")), index)

    def _enlist(self, index: int, accepted_uid: str = "") -> Worker:
        unsure = self._is_inherited_unclean and not accepted_uid
        worker = Worker(self._site, self._event, self.claim, index, accepted_uid=accepted_uid, unsure=unsure)
        self._workers[index] = worker
        return worker

    # -- working

    async def _start_rest(self, workers: trio.Nursery) -> None:
        """Begin the others as slots come free; a stop that comes first takes them out of the queue."""
        while self._unstarted:
            await self._site.slots.acquire(self._event.id)
            if not self._unstarted:
                self._site.slots.release()
                return
            index = next(iter(self._unstarted))
            del self._unstarted[index]
            workers.start_soon(self._work, self._enlist(index), index)

    async def _work(self, worker: Worker, index: int) -> None:
        """One worker from its slot to its clean end."""
        try:
            outcome = await worker.run()
        finally:
            self._site.slots.release()
        self._first_accepted = min(self._first_accepted, worker.accepted_at)
        self._note_outcome(index, outcome)
        await self._clean(outcome)

    def _note_outcome(self, index: int, outcome: WorkerOutcome) -> None:
        self._outcomes[index] = outcome
        if len(self._outcomes) == self._event.pod_count:
            self._all_recorded.set()
            self._settled()

    # -- stops

    async def _heed_notices(self) -> None:
        """Read the progress again whenever somebody set stop marks in it."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._noticed.wait()
                self._noticed = trio.Event()
                progress = await self._site.ledger.insist(self._read_progress)
                if progress is not None:
                    self._heed(progress, nursery)

    async def _read_progress(self) -> Progress | None:
        return await self._site.ledger.stream.read_progress(self._event.id)

    def _heed(self, progress: Progress, nursery: trio.Nursery) -> None:
        for index in progress.stops:
            if index in self._unstarted:
                del self._unstarted[index]
                nursery.start_soon(self._record_unstarted, index)
            elif (worker := self._workers.get(index)) and index not in self._outcomes:
                worker.stop()

    async def _record_unstarted(self, index: int) -> None:
        name = self._site.name_pod(self._event.id, index, 1)
        outcome = WorkerOutcome(name, index, 1, STOPPED.outcome, STOPPED.cause, STOPPED.reason)
        await self._site.ledger.record(self.claim, outcomes=(Outcome(index, outcome.to_json(), outcome.to_json()),))
        self._note_outcome(index, outcome)

    # -- cleaning

    async def _clean(self, outcome: WorkerOutcome) -> None:
        """Delete a finished pod once its outcome is durable: with the others if the event ends soon, else by itself."""
        if self._fence_off(outcome) or not outcome.uid:
            return
        self._left[outcome.name] = outcome.uid
        await self._site.ledger.insist(self._site.ledger.stream.wait_durable)
        with trio.move_on_after(self._site.patience.cleanup_delay):
            await self._all_recorded.wait()
            return
        if await self._site.delete(self._event.id, outcome.name, outcome.uid):
            self._left.pop(outcome.name, None)

    def _fence_off(self, outcome: WorkerOutcome) -> bool:
        """Keep the name from a late create, where one may still come: the pod stays if there is one, and the name is
        guarded.
        """
        if outcome.fence_until <= self._site.now():
            return False
        fence = self._fences[outcome.name] = Fence(outcome.name, outcome.uid, int(outcome.fence_until * 1000))
        self._guard.watch(fence, self._event.id)
        return True

    async def _clean_rest(self) -> None:
        """Delete all pods of the event that are left, fences aside; also those that an earlier owner left behind."""
        await self._site.ledger.insist(self._site.ledger.stream.wait_durable)
        shown = self._pods_shown()
        if len(shown) >= WAIT_FOR_PHASES_FROM and not self._fences:
            await self._wait_phases()
            await self._site.delete_finished(self._event.id, len(shown))
            with trio.move_on_after(self._site.patience.appearance):
                await self._wait_gone(list(shown))
        unseen = {name: uid for name, uid in self._left.items() if name not in shown}
        async with trio.open_nursery() as nursery:
            for name, uid in (self._pods_shown() | unseen).items():
                nursery.start_soon(self._site.delete, self._event.id, name, uid)

    def _pods_shown(self) -> dict[str, str]:
        """Name → uid of the pods of this event that the fleet shows, without fences and without those on their way
        out.
        """
        records = self._site.fleet.pods_of_event(self._event.id)
        shown = {record.name: record.uid for record in records if not record.gone and not record.deleting}
        return {name: uid for name, uid in shown.items() if name not in self._fences}

    async def _wait_phases(self) -> None:
        """A collection delete spares running pods, and the phase follows the container's end by about a second."""
        with trio.move_on_after(self._site.patience.phase_lag):
            for record in self._site.fleet.pods_of_event(self._event.id):
                with self._site.fleet.follow(record.name) as follow:
                    await follow.wait(lambda now: now is None or now.gone or now.phase in ("Succeeded", "Failed"))

    async def _wait_gone(self, names: list[str]) -> None:
        for name in names:
            with self._site.fleet.follow(name) as follow:
                await follow.wait(lambda now: now is None or now.gone or now.deleting)

    # -- the end

    async def _close(self) -> None:
        started = None if self._first_accepted == math.inf else self._first_accepted
        outcomes = [self._outcomes[index] for index in sorted(self._outcomes)]
        pairs = result_pairs(self._event, outcomes, started=started, completed=self._site.now())
        fences = tuple(self._fences.values())
        await self._site.ledger.close(Closing(self._event.id, "results", pairs, self.claim, fences))
        log.info("scale_up closed", event_id=self._event.id, task_id=self._event.task_id, **figures(pairs))


def figures(pairs: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """What a log line says of a result."""
    named = dict(pairs)
    return {name: named[name] for name in ("status", "succeeded", "failed", "terminated")}
