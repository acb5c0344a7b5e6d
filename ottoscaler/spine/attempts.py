"""What is known of each worker's attempts: read from the progress at the start, kept up to date as they end. Pure."""

from __future__ import annotations

import math
from collections import defaultdict

from ottoscaler.outcomes import WorkerOutcome, outcome_from
from ottoscaler.stream.base import Outcome
from ottoscaler.stream.progress import Progress


class Attempts:
    """The workers of one event, by index from 1 to `planned`: which have ended, and which attempt each is at."""

    def __init__(self, progress: Progress, planned: int) -> None:
        self.planned = planned
        self.outcomes: dict[int, WorkerOutcome] = {}
        self.first_accepted = progress.started / 1000 if progress.started else math.inf
        """When the API accepted the first pod of the event (Unix s); infinity while it has not."""
        self._earlier: defaultdict[int, list[WorkerOutcome]] = defaultdict(list)
        self._accepted = progress.accepted
        for index, _ in sorted(progress.attempts):
            self._earlier[index].append(outcome_from(progress.attempts[index, len(self._earlier[index]) + 1]))
        for index, raw in progress.outcomes.items():
            self.outcomes[index] = outcome_from(raw)

    @property
    def are_over(self) -> bool:
        """Every worker has its outcome."""
        return len(self.outcomes) == self.planned

    def open_indices(self) -> list[int]:
        """The workers that have no outcome yet."""
        return [index for index in range(1, self.planned + 1) if index not in self.outcomes]

    def all_ends(self) -> list[WorkerOutcome]:
        """How every attempt ended that has."""
        return [*self.outcomes.values(), *(ended for attempts in self._earlier.values() for ended in attempts)]

    def number(self, index: int) -> int:
        """The attempt that this worker is at."""
        return len(self._earlier.get(index, ())) + 1

    def causes(self, index: int) -> list[str]:
        """Why its attempts before this one failed."""
        return [ended.cause for ended in self._earlier.get(index, ())]

    def not_before(self, index: int) -> float:
        """When the present attempt may begin (Unix s)."""
        return self._earlier[index][-1].retry_at if self._earlier.get(index) else 0.0

    def accepted(self, index: int) -> tuple[str, float]:
        """The pod that an earlier owner saw accepted for the present attempt, and until when a create of it without an
        answer may still be carried out (Unix s, 0 = none); the uid is empty where none was accepted.
        """
        made = self._accepted.get((index, self.number(index)))
        return (made["uid"], made.get("fence", 0) / 1000) if made else ("", 0.0)

    def accepted_at(self, index: int, attempt: int) -> float:
        """When the API accepted the pod of an attempt, as an earlier owner saw it (Unix s, 0 = it did not)."""
        made = self._accepted.get((index, attempt))
        return made["at"] / 1000 if made else 0.0

    def forgotten_in(self, progress: Progress) -> tuple[Outcome, ...]:
        """The ends that were recorded and that the progress as Redis has it now lacks, to be recorded again."""
        retried = (
            Outcome(ended.index, ended.to_json(), retried=ended.attempt)
            for attempts in self._earlier.values()
            for ended in attempts
            if (ended.index, ended.attempt) not in progress.attempts
        )
        final = (
            Outcome(index, ended.to_json()) for index, ended in self.outcomes.items() if index not in progress.outcomes
        )
        return (*retried, *final)

    def note(self, index: int, outcome: WorkerOutcome) -> None:
        """An attempt has ended: for good, or to be followed by another."""
        if outcome.retry_at:
            self._earlier[index].append(outcome)
        else:
            self.outcomes[index] = outcome
