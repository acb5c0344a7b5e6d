"""Sending spans to a collector, from OpenTelemetry's own thread: bounded, and in nobody's way.

What waits is limited (`OTEL_BSP_MAX_QUEUE_SIZE`, 2048 spans); where the collector is away or too slow the rest is
dropped, and one line says so.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator

from ottoscaler import __version__
from ottoscaler.log import log
from ottoscaler.metrics import SPANS

DELAY_MS = 1000
"""How long a span waits for others, where OTEL_BSP_SCHEDULE_DELAY says nothing: what a killed process loses."""
NOISY = ("opentelemetry", "urllib3")


class ChosenIds(IdGenerator):
    """Gives a span the ids that were chosen for it."""

    def __init__(self) -> None:
        self.trace_id = 0
        self.span_id = 0

    def generate_trace_id(self) -> int:
        """That of the next span, where it begins a trace."""
        return self.trace_id

    def generate_span_id(self) -> int:
        """That of the next span."""
        return self.span_id


class _LastWord(logging.Handler):
    """Keeps what the exporter says last, which is why something was not sent; it would repeat it for every batch."""

    said = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.said = record.getMessage()


class Sending(SpanExporter):
    """An exporter that counts, and says once that nobody takes its spans, and once that somebody does again."""

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._is_taken = True
        self._last = _LastWord()

    def quiet(self) -> None:
        """From now on no other log line of what is below."""
        for name in NOISY:
            logger = logging.getLogger(name)
            logger.propagate = False
            logger.handlers = [self._last]

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send; returns after some tries, at the latest when OTEL_EXPORTER_OTLP_TIMEOUT (10 s) is over."""
        result = self._exporter.export(spans)
        is_taken = result is SpanExportResult.SUCCESS
        SPANS.labels("sent" if is_taken else "failed").inc(len(spans))
        if is_taken != self._is_taken:
            self._is_taken = is_taken
            if is_taken:
                log.info("spans are taken again", endpoint=self._endpoint)
            else:
                log.warning("spans are lost", endpoint=self._endpoint, cause="CollectorAway", reason=self._last.said)
        return result

    def shutdown(self) -> None:
        """Send nothing more."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits here."""
        return True


def open_provider(
    environ: Mapping[str, str], endpoint: str, exporter: SpanExporter | None = None
) -> tuple[TracerProvider, ChosenIds, BatchSpanProcessor]:
    """What makes spans and sends them, as the OTEL_* variables say; and the ids that the next span gets."""
    ids = ChosenIds()
    provider = TracerProvider(resource=_resource(environ), id_generator=ids, shutdown_on_exit=False)
    sending = Sending(exporter or OTLPSpanExporter(), endpoint)
    delay = None if environ.get("OTEL_BSP_SCHEDULE_DELAY") else DELAY_MS
    processor = BatchSpanProcessor(sending, schedule_delay_millis=delay)
    provider.add_span_processor(processor)
    sending.quiet()
    return provider, ids, processor


def _resource(environ: Mapping[str, str]) -> Resource:
    """Who sends: what the environment says (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES) wins."""
    host = environ.get("HOSTNAME") or os.uname().nodename
    ours = {
        "service.name": "ottoscaler",
        "service.version": __version__,
        "service.instance.id": f"{host}-{os.getpid()}",
    }
    if environ.get("KUBERNETES_SERVICE_HOST"):
        ours["k8s.pod.name"] = host
    given = Resource.create().attributes
    return Resource({**ours, **{name: value for name, value in given.items() if not _is_unknown(value)}})


def _is_unknown(value: object) -> bool:
    """What opentelemetry says where nobody gave a name."""
    return str(value).startswith("unknown_service")
