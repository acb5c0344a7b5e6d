"""What the spine asks of whoever forwards the logs of workers; by default nobody does, and nothing is asked.

A scaling says which workers it has and how they end, and waits, before it deletes a pod or closes the event, until
the log of it is settled: handed on to its end, or given up after a grace.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple, Protocol

from ottoscaler.events import Event
from ottoscaler.outcomes import WorkerOutcome
from ottoscaler.stream.base import Claim
from ottoscaler.stream.progress import Progress


class EventLogs(Protocol):
    """The logs of one event's workers, while this process holds it."""

    def follow(self, index: int, attempt: int, name: str) -> None:
        """This attempt begins, or goes on: forward the log of its pod."""

    def end(self, outcome: WorkerOutcome) -> None:
        """This attempt has ended, and this is recorded."""

    def end_all(self) -> None:
        """No attempt goes on, and none will come: the event waits for its logs alone."""

    def gaps(self) -> Sequence[Mapping[str, str]]:
        """The logs whose rest was given up, for the result: `worker`, `from` (a stamp), `why`."""

    async def wait_pod(self, name: str) -> None:
        """Return when the log of this pod, whose attempt has ended, is needed no more."""

    async def wait_all(self) -> None:
        """Return when no log of the event is needed any more; all its attempts have ended."""


class LogStatistics(NamedTuple):
    """A snapshot: workers looked after, bytes that wait in memory and on disk, whether somebody takes them."""

    workers: int
    memory: int
    disk: int
    is_taken: bool


class WorkerLogs(Protocol):
    """Whoever forwards logs."""

    def open_event(self, event: Event, claim: Claim, progress: Progress) -> AbstractContextManager[EventLogs]:
        """Look after an event's logs for the time of the block, from the marks in its progress on."""

    def statistics(self) -> LogStatistics | None:
        """How it goes; None where nobody forwards logs."""

    async def hand_over(self) -> None:
        """Send nothing more, and write down how far everything is: others go on."""


class _NoLogs:
    """Nobody forwards logs."""

    def follow(self, index: int, attempt: int, name: str) -> None:
        """Nothing to do."""

    def end(self, outcome: WorkerOutcome) -> None:
        """Nothing to do."""

    def end_all(self) -> None:
        """Nothing to do."""

    def gaps(self) -> Sequence[Mapping[str, str]]:
        """None."""
        return ()

    async def wait_pod(self, name: str) -> None:
        """Nothing to wait for."""

    async def wait_all(self) -> None:
        """Nothing to wait for."""

    @contextmanager
    def open_event(self, event: Event, claim: Claim, progress: Progress) -> Iterator[EventLogs]:
        """Nothing to look after."""
        yield self

    def statistics(self) -> None:
        """Nothing to tell."""

    async def hand_over(self) -> None:
        """Nothing to hand over."""


NO_LOGS = _NoLogs()
