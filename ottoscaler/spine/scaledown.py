"""One scale_down: choose whom to stop, write it down, and wait until they have ended.

It deletes nothing itself. The victims are chosen and marked by the stream in one go, in its own progress and in the
progress of the events they belong to; the owner of each event, whichever replica that is, stops its own workers and
knows why.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from functools import partial
from itertools import islice

import trio

from ottoscaler.events import BadEntry, Event
from ottoscaler.fleet import PodRecord
from ottoscaler.log import log
from ottoscaler.outcomes import WorkerOutcome, outcome_from, result_pairs
from ottoscaler.repeats import kept_of
from ottoscaler.spine.creation import STOPPED
from ottoscaler.spine.ledger import NotOurs
from ottoscaler.spine.roster import Roster
from ottoscaler.spine.scaling import figures
from ottoscaler.spine.site import Site
from ottoscaler.stream.base import Candidate, Claim, Closing, LiveEvent
from ottoscaler.stream.progress import Progress
from ottoscaler.verdicts import judge_end

CHUNK = 500


class ScaleDown:
    """The work on one scale_down while this process holds it."""

    is_clean = True
    queued = 0
    cause = "Stopped"

    def __init__(self, site: Site, roster: Roster, event: Event, progress: Progress, claim: Claim) -> None:
        self.claim = claim
        self._site = site
        self._roster = roster
        self._event = event
        self._progress = progress
        self._note = ""
        self._noticed = trio.Event()

    def __repr__(self) -> str:
        return f"<ScaleDown {self.claim.event_id} epoch={self.claim.epoch} of {self._event.pod_count}>"

    @property
    def is_untouched(self) -> bool:
        """Nothing of it depends on this process: it can be handed over at once."""
        return True

    def needs(self, record: PodRecord) -> bool:
        """It has no pods of its own."""
        return False

    def notice(self) -> None:
        """A victim's outcome was recorded, or the marks may have been forgotten: look again."""
        self._noticed.set()

    async def run(self) -> BadEntry | None:
        """Work until the result is written, or say why there can be none. Raises `NotOurs` when the event was lost."""
        is_adopted = self.claim.epoch > 1
        await (self._site.ledger.adopt(self.claim) if is_adopted else self._site.ledger.record(self.claim))
        chosen = await self._choose()
        if isinstance(chosen, BadEntry):
            return chosen
        passed_on = self._site.traces.pass_on(self._event)
        trace_id = passed_on.context.trace_id or None
        facts = {"event_id": self._event.id, "task_id": self._event.task_id, "trace_id": trace_id}
        say = log.info if self.claim.epoch <= 2 else log.debug
        say(f"{self._event.type} started", **facts, stage="started", **self._wanted(), chosen=len(chosen))
        for event_id in {event_id for event_id, _ in chosen}:
            if work := self._roster.work_of(event_id):
                work.notice()
        outcomes = await self._wait_outcomes(chosen)
        pairs = result_pairs(
            passed_on, outcomes, started=None, completed=self._site.now(), requested=len(chosen), note=self._note
        )
        kept = kept_of(self._event, pairs)
        await self._site.ledger.close(Closing(self._event.id, "results", pairs, self.claim, kept=kept))
        self._site.traces.event_ended(self._event, pairs)
        log.info(f"{self._event.type} closed", **facts, stage="closed", **figures(pairs))
        return None

    def _wanted(self) -> dict[str, int]:
        """What was asked for, as a log line says it."""
        remain = self._event.remain
        return {"wanted": self._event.pod_count} if remain is None else {"remain": remain}

    async def _choose(self) -> tuple[tuple[str, int], ...] | BadEntry:
        """The victims, marked: those chosen before, or the first that fit in order of preference."""
        if self._progress.victims_chosen:
            return self._progress.victims
        survey = partial(self._site.ledger.stream.survey, self._event.task_id)
        live = await self._site.ledger.insist(survey)
        if self._event.remain is None:
            return await self._mark(self._candidates(live), self._event.pod_count)
        started = [event for event in live if event.epoch > 0]
        present = [*self._ending(started), *self._candidates(started)]
        wanted = len(self._progress.victims) + max(0, len(present) - self._event.remain)
        return await self._mark(iter(present), wanted, is_target=True)

    async def _mark(
        self, candidates: Iterator[Candidate], wanted: int, *, is_target: bool = False
    ) -> tuple[tuple[str, int], ...]:
        """Mark them in order; with a target, workers that are found to be on their way out need not be stopped."""
        ledger, stream = self._site.ledger, self._site.ledger.stream
        while True:
            chunk = list(islice(candidates, CHUNK))
            mark = partial(stream.mark_victims, self.claim, wanted, chunk, cause=self.cause, passed_count=is_target)
            chosen = await ledger.insist(partial(mark, last=not chunk))
            if chosen is None:
                raise NotOurs(self.claim)
            if is_target:
                wanted -= sum((one.event_id, one.index) not in chosen for one in chunk)
            if not chunk or len(chosen) >= wanted:
                return chosen

    def _candidates(self, live: list[LiveEvent]) -> Iterator[Candidate]:
        """First workers not yet created (last in line first), then pending pods, then the oldest running ones; last
        those that the API accepted and the watch does not show: it is behind, or somebody took labels of theirs away.
        """
        stoppable = {event.event_id: event for event in live}
        pods = self._last_pods(stoppable)
        for event in reversed(live):
            for index in range(event.planned, 0, -1):
                last = pods.get((event.event_id, index))
                is_there = index in event.accepted or (last is not None and _can_stop(last))
                if index not in event.settled and not is_there:  # one that waits to be run again has left a pod
                    yield self._candidate(event.event_id, index)
        for record in sorted(filter(_can_stop, pods.values()), key=_preference):
            if record.index not in stoppable[record.event_id].settled:
                yield self._candidate(record.event_id, record.index)
        for event in live:
            for index in sorted(event.accepted - event.settled):
                if (event.event_id, index) not in pods:
                    yield self._candidate(event.event_id, index)

    def _last_pods(self, event_ids: Container[str]) -> dict[tuple[str, int], PodRecord]:
        """By event and index; of a worker that was run again the last pod counts."""
        shown = [record for record in self._site.fleet.records.values() if record.event_id in event_ids]
        records = list(filter(self._site.is_labelled, shown))
        records.sort(key=lambda record: record.attempt)
        return {(record.event_id, record.index): record for record in records}

    def _ending(self, live: list[LiveEvent]) -> Iterator[Candidate]:
        """Workers that have failed, or whose pod somebody deletes, with nothing of it recorded yet: a further attempt
        may follow. Marked, they end without one, as what they are; to stop them first costs nothing.
        """
        pods = self._last_pods({event.event_id for event in live})
        for event in live:
            for index in sorted(event.accepted - event.settled):
                record = pods.get((event.event_id, index))
                if record is not None and not _can_stop(record) and not _has_succeeded(record):
                    yield self._candidate(event.event_id, index)

    def _candidate(self, event_id: str, index: int, name: str | None = None) -> Candidate:
        name = name or self._site.name_pod(event_id, index, 1)
        outcome = WorkerOutcome(name, index, 1, STOPPED.outcome).stopped(self.cause)
        return Candidate(event_id, index, outcome.to_json())

    async def _wait_outcomes(self, victims: tuple[tuple[str, int], ...]) -> list[WorkerOutcome]:
        """Return when the outcome of every victim is recorded; each record sends a notice to this event's owner."""
        stream = self._site.ledger.stream
        while True:
            self._noticed = trio.Event()
            progress = await self._site.ledger.insist(lambda: stream.read_progress(self._event.id))
            if progress is None:
                raise NotOurs(self.claim)
            marked = frozenset(progress.victims)
            if forgotten := [victim for victim in victims if victim not in marked]:
                victims = await self._mark((self._candidate(*victim) for victim in forgotten), len(victims))
            elif all(victim in progress.victim_outcomes for victim in victims):
                return [outcome_from(raw) for raw in progress.victim_outcomes.values()]
            else:
                await self._noticed.wait()


def _can_stop(record: PodRecord) -> bool:
    return not record.deleting and judge_end(record) is None


def _has_succeeded(record: PodRecord) -> bool:
    end = judge_end(record)
    return end is not None and end.outcome == "succeeded"


def _preference(record: PodRecord) -> tuple[bool, float, str]:
    is_running = record.phase == "Running"
    return (is_running, record.created_at or 0.0, record.name)
