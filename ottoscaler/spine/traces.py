"""What the spine tells of whoever records traces; by default nobody does, and a context is handed on as it came.

Nothing of a trace is kept anywhere: the context stands in the event's entry, which the progress holds, and the ids of
its spans are made of event, index and attempt. Whoever takes an event over thus goes on in the same spans.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ottoscaler.events import BadEntry, Event
from ottoscaler.outcomes import WorkerOutcome
from ottoscaler.trace_context import TraceContext

OnGap = Callable[[str, float, float], None]
"""Takes the stage that ends a gap, and when the gap began and ended (Unix s)."""
Pairs = tuple[tuple[str, str], ...]


class Traces(Protocol):
    """Whoever records traces. All of it returns at once, and times are Unix seconds."""

    def pass_on(self, event: Event) -> Event:
        """The event with the context in which its result and its pipeline's stages go on."""

    def of_worker(self, event: Event, index: int, attempt: int) -> TraceContext:
        """The context in which an attempt of a worker goes on."""

    def gaps(self, event: Event, index: int = 0, attempt: int = 0) -> OnGap | None:
        """What is to be told of the gaps between stages, of an event or of an attempt; None: nobody wants to know."""

    def worker_ended(self, event: Event, outcome: WorkerOutcome, began: float, ended: float) -> None:
        """An attempt has ended, and this is recorded."""

    def log_ended(self, event: Event, index: int, attempt: int, *, began: float, lines: int, gaps: int) -> None:
        """The log of an attempt was handed on to its end, just now."""

    def event_ended(self, event: Event, pairs: Pairs) -> None:
        """An event has its result, just now."""

    def event_refused(self, bad: BadEntry) -> None:
        """An event became a dead letter, just now."""


class _NoTraces:
    """Nobody records traces."""

    def pass_on(self, event: Event) -> Event:
        """As it is."""
        return event

    def of_worker(self, event: Event, index: int, attempt: int) -> TraceContext:
        """That of its producer."""
        return event.context

    def gaps(self, event: Event, index: int = 0, attempt: int = 0) -> None:
        """Nobody wants to know."""

    def worker_ended(self, event: Event, outcome: WorkerOutcome, began: float, ended: float) -> None:
        """Nothing to record."""

    def log_ended(self, event: Event, index: int, attempt: int, *, began: float, lines: int, gaps: int) -> None:
        """Nothing to record."""

    def event_ended(self, event: Event, pairs: Pairs) -> None:
        """Nothing to record."""

    def event_refused(self, bad: BadEntry) -> None:
        """Nothing to record."""


NO_TRACES = _NoTraces()
