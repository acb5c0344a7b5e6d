"""What the spine tells, as spans.

A span of the event from its entry to its close, beneath it one of each attempt of each worker, beneath both one of each
gap between stages, and one of each log that is forwarded. Their ids are hashes of era, event, index and attempt: any
replica, knowing nothing of what another one sent, names the same span by the same id.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import NamedTuple

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from ottoscaler.events import BadEntry, Event
from ottoscaler.outcomes import WorkerOutcome
from ottoscaler.spine.traces import OnGap, Pairs
from ottoscaler.trace_context import TraceContext, read_context
from ottoscaler.tracing.opening import Place
from ottoscaler.tracing.sending import ChosenIds

RANDOM_FLAG = 0x02
"""Says that the producer's trace id is random; it is true of the id, so it is handed on."""
EVENTS_KNOWN = 4096
Attributes = Mapping[str, str | int]


class _Root(NamedTuple):
    """The span of an event: its own context, and what it is beneath."""

    own: SpanContext
    above: Context


class SpanTraces:
    """Records traces of one era; see `ottoscaler.spine.traces.Traces`. For one thread."""

    def __init__(
        self, provider: TracerProvider, ids: ChosenIds, place: Place, now: Callable[[], float] = time.time
    ) -> None:
        self._tracer = provider.get_tracer("ottoscaler")
        self._sampler = provider.sampler
        self._ids = ids
        self._place = place
        self._now = now
        self._root = lru_cache(EVENTS_KNOWN)(self._make_root)

    # -- contexts

    def pass_on(self, event: Event) -> Event:
        """With the event's own span in the place of its producer's."""
        return replace(event, context=_context(self._root(event.id, event.context).own))

    def of_worker(self, event: Event, index: int, attempt: int) -> TraceContext:
        """The attempt's span."""
        return _context(self._of_attempt(self._root(event.id, event.context).own, event.id, index, attempt))

    def _make_root(self, event_id: str, context: TraceContext) -> _Root:
        """Beneath the producer's span where it named one, else in a trace of its own; recorded as the sampler says."""
        above, trace_id, flags = Context(), self._id(16, event_id, "trace"), 0
        if context.traceparent:
            trace_id, flags = int(context.trace_id, 16), context.flags
            state = TraceState.from_header([context.tracestate]) if context.tracestate else None
            theirs = SpanContext(trace_id, int(context.span_id, 16), True, TraceFlags(flags & 1), state)
            above = set_span_in_context(NonRecordingSpan(theirs), above)
        said = self._sampler.should_sample(above, trace_id, "event", SpanKind.CONSUMER)
        own = TraceFlags((flags & RANDOM_FLAG) | (said.decision is Decision.RECORD_AND_SAMPLE))
        return _Root(SpanContext(trace_id, self._id(8, event_id), False, own, said.trace_state), above)

    def _of_attempt(self, root: SpanContext, event_id: str, index: int, attempt: int) -> SpanContext:
        return self._beneath(root, event_id, str(index), str(attempt))

    def _beneath(self, over: SpanContext, *names: str) -> SpanContext:
        return SpanContext(over.trace_id, self._id(8, *names), False, over.trace_flags, over.trace_state)

    def _id(self, size: int, *names: str) -> int:
        """So many bytes as a number, the same for the same names, never 0."""
        digest = hashlib.sha256("\0".join((self._place.era, *names)).encode()).digest()
        return int.from_bytes(digest[:size]) or 1

    # -- what has happened

    def gaps(self, event: Event, index: int = 0, attempt: int = 0) -> OnGap | None:
        """A span of each gap, named by the stage that ended it."""
        own = self._root(event.id, event.context).own
        if not own.trace_flags.sampled:
            return None
        names = (event.id, str(index), str(attempt)) if index else (event.id,)
        return partial(self._note_gap, self._beneath(own, *names) if index else own, names)

    def _note_gap(self, over: SpanContext, names: tuple[str, ...], stage: str, began: float, ended: float) -> None:
        own = self._beneath(over, *names, f"stage {stage}")
        self._record(f"stage {stage}", own, _above(over), began, ended, {"ottoscaler.stage": stage})

    def worker_ended(self, event: Event, outcome: WorkerOutcome, began: float, ended: float) -> None:
        """The span of an attempt."""
        root = self._root(event.id, event.context).own
        own = self._of_attempt(root, event.id, outcome.index, outcome.attempt)
        said = {
            **self._about_worker(event, outcome.index, outcome.attempt),
            "k8s.pod.name": outcome.name,
            "ottoscaler.outcome": outcome.outcome,
            "ottoscaler.cause": outcome.cause,
            "ottoscaler.reason": outcome.reason,
        }
        exit_code = {} if outcome.exit_code is None else {"process.exit.code": outcome.exit_code}
        error = f"{outcome.cause}: {outcome.reason}" if outcome.outcome == "failed" else ""
        self._record("worker", own, _above(root), began, ended, said | exit_code, error)

    def log_ended(self, event: Event, index: int, attempt: int, *, began: float, lines: int, gaps: int) -> None:
        """The span of a log that was forwarded to its end."""
        worker = self._of_attempt(self._root(event.id, event.context).own, event.id, index, attempt)
        own = self._beneath(worker, event.id, str(index), str(attempt), "log")
        said = {"ottoscaler.log.lines": lines, "ottoscaler.log.gaps": gaps}
        about = self._about_worker(event, index, attempt) | said
        self._record("forward log", own, _above(worker), began, self._now(), about)

    def event_ended(self, event: Event, pairs: Pairs) -> None:
        """The span of an event with its result."""
        result = dict(pairs)
        counts = {word: int(result[word]) for word in ("requested", "succeeded", "failed", "terminated")}
        said = {
            "messaging.operation.name": event.type,
            "ottoscaler.task_id": event.task_id,
            "ottoscaler.request_id": event.request_id,
            "ottoscaler.parent": event.parent,
            "ottoscaler.outcome": result["status"],
        }
        is_error = result["status"] in ("failed", "partial")
        error = f"{counts['failed']} of {counts['requested']} failed" if is_error else ""
        self._note_event(event.type, event.id, event.context, said | _named(counts), error)

    def event_refused(self, bad: BadEntry) -> None:
        """The span of an event that became a dead letter."""
        context, _ = read_context((_text(name), _text(value)) for name, value in bad.entry)
        said = {"ottoscaler.outcome": "dead_letter", "ottoscaler.cause": bad.cause, "ottoscaler.reason": bad.reason}
        self._note_event("refused", bad.id, context, said, f"{bad.cause}: {bad.reason}")

    def _note_event(self, name: str, event_id: str, context: TraceContext, said: Attributes, error: str) -> None:
        root = self._root(event_id, context)
        about = {
            "messaging.system": "redis",
            "messaging.operation.type": "process",
            "messaging.destination.name": self._place.stream,
            "messaging.consumer.group.name": self._place.group,
            "messaging.message.id": event_id,
            "ottoscaler.event_id": event_id,
        }
        added, name = int(event_id.partition("-")[0]) / 1000, f"{name} {self._place.stream}"
        self._record(name, root.own, root.above, added, self._now(), {**about, **said}, error, SpanKind.CONSUMER)

    def _about_worker(self, event: Event, index: int, attempt: int) -> dict[str, str | int]:
        return {
            "k8s.namespace.name": self._place.namespace,
            "ottoscaler.event_id": event.id,
            "ottoscaler.task_id": event.task_id,
            "ottoscaler.worker.index": index,
            "ottoscaler.worker.attempt": attempt,
        }

    def _record(
        self,
        name: str,
        own: SpanContext,
        above: Context,
        began: float,
        ended: float,
        attributes: Attributes,
        error: str = "",
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> None:
        """Send one span, over already."""
        if not own.trace_flags.sampled:
            return
        self._ids.trace_id, self._ids.span_id = own.trace_id, own.span_id
        known = {name: value for name, value in attributes.items() if value != ""}
        span = self._tracer.start_span(name, above, kind, known, start_time=_nanoseconds(began))
        if error:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(_nanoseconds(max(began, ended)))


def _above(over: SpanContext) -> Context:
    return set_span_in_context(NonRecordingSpan(over), Context())


def _context(own: SpanContext) -> TraceContext:
    parent = f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"
    return TraceContext(parent, own.trace_state.to_header())


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9) if math.isfinite(seconds) else 0


def _named(counts: Mapping[str, int]) -> dict[str, str | int]:
    return {f"ottoscaler.{word}": number for word, number in counts.items()}
