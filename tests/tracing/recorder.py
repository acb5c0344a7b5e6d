"""Spans in memory, and what must be true of the spans of any trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from ottoscaler.tracing.opening import Place
from ottoscaler.tracing.sending import ChosenIds
from ottoscaler.tracing.spans import SpanTraces

PLACE = Place("otto:scale:events", "ottoscaler", "otto", "era-1")


class Span(NamedTuple):
    """A span as a collector sees it; ids in hex, `parent` empty for the first of a trace, times in seconds."""

    name: str
    trace: str
    id: str
    parent: str
    began: float
    ended: float
    attributes: Mapping[str, object]
    error: str = ""


class Recorder:
    """A collector in memory, for any number of replicas."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self._sampler = sampler

    def replica(self, now: Callable[[], float], place: Place = PLACE) -> SpanTraces:
        """What a process records with."""
        ids = ChosenIds()
        provider = TracerProvider(self._sampler, resource=Resource({}), id_generator=ids, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        return SpanTraces(provider, ids, place, now)

    @property
    def spans(self) -> list[Span]:
        """All that was sent."""
        return [_read(span) for span in self._exporter.get_finished_spans()]


def _read(span: ReadableSpan) -> Span:
    assert span.context is not None
    return Span(
        span.name,
        f"{span.context.trace_id:032x}",
        f"{span.context.span_id:016x}",
        f"{span.parent.span_id:016x}" if span.parent else "",
        (span.start_time or 0) / 1e9,
        (span.end_time or 0) / 1e9,
        dict(span.attributes or {}),
        span.status.description or "",
    )


def judge(spans: list[Span], trace: str, producer: str, *, roots: int = 1, lost: frozenset[str] = frozenset()) -> None:
    """One trace, every id once, every parent known: a span, the producer's, or one that is known to be `lost`; no span
    ends before it begins.
    """
    assert {span.trace for span in spans} == {trace}
    assert [each for each, number in Counter(span.id for span in spans).items() if number > 1] == []
    known = {span.id for span in spans}
    assert {span.parent for span in spans} <= known | lost | {producer}
    assert sum(span.parent == producer for span in spans) == roots
    assert all(span.ended >= span.began for span in spans)


def named(spans: list[Span], name: str) -> list[Span]:
    """Those of a name, in the order of their beginning."""
    return sorted((span for span in spans if span.name == name), key=lambda span: span.began)
