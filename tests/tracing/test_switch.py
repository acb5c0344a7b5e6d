"""When traces are sent, and that asking for them wrongly stops nothing."""

from __future__ import annotations

import logging
import math
import socket
import sys

import pytest
import trio
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from ottoscaler.events import BadEntry, Event
from ottoscaler.spine.traces import NO_TRACES
from ottoscaler.tracing.opening import FLUSH_SECONDS, open_traces
from ottoscaler.tracing.sending import NOISY, Sending, open_provider
from ottoscaler.tracing.switch import DEFAULT_ENDPOINT, read_switch
from tests.tracing.recorder import PLACE

ENDPOINT = "http://collector:4318"
ON = {"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT}


@pytest.mark.parametrize(
    ("environ", "endpoint"),
    [
        ({}, ""),
        ({"OTEL_SERVICE_NAME": "x"}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, ""),
        (ON, ENDPOINT),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{ENDPOINT}/x"}, f"{ENDPOINT}/x"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, DEFAULT_ENDPOINT),
        (ON | {"OTEL_TRACES_EXPORTER": "otlp,console"}, ENDPOINT),
        (ON | {"OTEL_TRACES_EXPORTER": "none"}, ""),
        (ON | {"OTEL_SDK_DISABLED": "True"}, ""),
        (ON | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, ENDPOINT),
    ],
)
def test_the_standard_variables_decide(environ: dict[str, str], endpoint: str) -> None:
    """An endpoint or a word for OTLP switches traces on; `none` and OTEL_SDK_DISABLED switch them off."""
    assert read_switch(environ) == (endpoint, "")


def test_a_protocol_that_is_not_spoken_is_named() -> None:
    """Only OTLP by HTTP is sent; the variable, its value and what was expected are said."""
    switch = read_switch(ON | {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"})
    assert switch == ("", "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc', expected http/protobuf")


async def test_without_the_extra_events_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Asked for traces and without opentelemetry, one line says what is missing, and contexts pass as they came."""
    monkeypatch.delitem(sys.modules, "ottoscaler.tracing.sending", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    async with open_traces(ON, lambda: float("inf")) as traces_of:
        assert traces_of(PLACE) is NO_TRACES
    (record,) = caplog.records
    assert record.getMessage() == "no traces are sent"
    assert "expected ottoscaler[otel]" in record.__dict__["facts"]["reason"]


class Moody(SpanExporter):
    """Fails or not, as it is told."""

    is_away = True

    def export(self, spans: object) -> SpanExportResult:
        """Say why."""
        if self.is_away:
            logging.getLogger("opentelemetry.exporter").error("no route to collector")
        return SpanExportResult.FAILURE if self.is_away else SpanExportResult.SUCCESS


def test_lost_spans_are_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """One line when the collector goes, with the reason, and one when it is back, however many batches there were."""
    for name in NOISY:
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
    caplog.set_level(logging.INFO)
    exporter = Moody()
    sending = Sending(exporter, ENDPOINT)
    sending.quiet()
    for is_away in (True, True, False, False):
        exporter.is_away = is_away
        sending.export([ReadableSpan("x")])
    assert [record.getMessage() for record in caplog.records] == ["spans are lost", "spans are taken again"]
    assert caplog.records[0].__dict__["facts"]["reason"] == "no route to collector"


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "ottoscaler"),
        ({"OTEL_SERVICE_NAME": "mine"}, "mine"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=a"}, "a"),
    ],
)
def test_a_service_is_named_by_its_environment(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], name: str
) -> None:
    """OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over the names of ours."""
    for variable in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    provider, _, processor = open_provider(ON, ENDPOINT, Moody())
    attributes = provider.resource.attributes
    processor.shutdown()
    assert attributes["service.name"] == name
    assert {"service.version", "service.instance.id"} <= attributes.keys()


def answer(silent: socket.socket) -> None:
    """Let the thread that sends spans rest: one that goes on trying draws random pauses beside the tests that come
    next, which Hypothesis takes for theirs.
    """
    silent.settimeout(20)
    with silent.accept()[0] as one:
        one.settimeout(20)
        one.recv(65536)
        one.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        while one.recv(65536):
            pass


@pytest.mark.slow_clock
@pytest.mark.parametrize(("until", "most"), [(math.inf, FLUSH_SECONDS), (0.0, 0.1)])
async def test_a_collector_that_hangs_holds_up_no_end(
    monkeypatch: pytest.MonkeyPatch, until: float, most: float
) -> None:
    """The last spans are waited for no longer than a second, and not past the end of a drain."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "15")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        async with open_traces({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, lambda: until) as traces_of:
            traces_of(PLACE).event_refused(BadEntry("1-0", "BadSpec", "r"))
            begin = trio.current_time()
        took = trio.current_time() - begin
        await trio.to_thread.run_sync(answer, silent)
    assert took < most + 8


async def test_off_is_off() -> None:
    """Without any variable nobody records, and a context passes as it came."""
    event = Event("1-0", "scale_up", 1)
    async with open_traces({}, lambda: 0.0) as traces_of:
        assert traces_of(PLACE).pass_on(event) is event
