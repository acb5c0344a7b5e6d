"""Traces of a real `serve`, as a collector gets them."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import grpc
import trio

from ottoscaler.cli.playground import find_free_port
from ottoscaler.rpc.v1 import scaling_pb2, scaling_pb2_grpc
from tests.process.bench import NOISE, Bench, Place, wait_until
from tests.process.test_grpc import door
from tests.process.together import together
from tests.tracing.receiver import Receiver, open_receiver
from tests.tracing.recorder import judge, named

TRACE, PRODUCER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{PRODUCER}-01"


def traced(place: Place, receiver: Receiver) -> dict[str, str]:
    """Settings with which spans are sent soon, and workers print the trace that they were given."""
    (script,) = json.loads(place.environ["WORKER_ARGS"])
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "LOG_SINK": "stdout",
        "WORKER_ARGS": json.dumps([f'echo "$OTTO_WORKER_INDEX {{$TRACEPARENT}}"; {script}']),
    }


async def wait_events(receiver: Receiver, number: int) -> None:
    """Return when so many events have told that they ended; they are the last to."""
    await wait_until(lambda: sum(span.name.startswith("scale_up ") for span in receiver.spans) >= number)


@together
async def test_one_trace_from_the_producer_to_worker_log_and_result(bench: Bench) -> None:
    """From the field `traceparent` through every stage to TRACEPARENT of the worker, its log, and the result."""
    with open_receiver() as receiver:
        async with bench.place() as place, place.serve(**traced(place, receiver)) as serving:
            place.open_gate()
            place.send(pods=2, traceparent=PARENT, tracestate="a=1")
            (result,) = await place.wait_results(1)
            await wait_events(receiver, 1)
            judge(receiver.spans, TRACE, PRODUCER)
            (event,) = named(receiver.spans, f"scale_up {place.prefix}:events")
            assert (result["traceparent"], result["tracestate"]) == (f"00-{TRACE}-{event.id}-01", "a=1")
            workers = {span.attributes["ottoscaler.worker.index"]: span for span in named(receiver.spans, "worker")}
            for index, worker in workers.items():
                await serving.hear(f"{index} {{00-{TRACE}-{worker.id}-01}}")
                (log,) = (span for span in named(receiver.spans, "forward log") if span.parent == worker.id)
                assert (log.attributes["ottoscaler.log.lines"], log.attributes["ottoscaler.log.gaps"]) == (1, 0)
            assert workers.keys() == {1, 2}
            stages = {span.name.removeprefix("stage ") for span in receiver.spans if span.name.startswith("stage ")}
            assert stages == {
                *("read", "started", "accepted", "scheduled", "running", "ended", "recorded", "deleted", "closed")
            }
            assert receiver.services == {"ottoscaler"}
            await serving.hear("scale_up closed")
            said = {line["message"] for line in serving.said(f'"trace_id": "{TRACE}"')}
            assert said == {"scale_up started", "worker created", "worker ended", "scale_up closed"}


@together
async def test_a_trace_survives_a_kill(bench: Bench) -> None:
    """After kill -9 of the owner in the middle, whoever goes on goes on in the same spans: one trace, every parent
    known, no span twice.
    """
    with open_receiver() as receiver:
        async with bench.place() as place:
            settings = {**traced(place, receiver), "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}
            async with place.serve(**settings) as first:
                place.send(pods=3, traceparent=PARENT)
                await place.wait_started(3)
                await wait_until(lambda: len(named(receiver.spans, "stage running")) == 3)
                await first.kill()
            place.open_gate()
            async with place.serve(**settings):
                await place.judge()
                await wait_events(receiver, 1)
        judge(receiver.spans, TRACE, PRODUCER)
        assert len(named(receiver.spans, "worker")) == len(named(receiver.spans, "stage ended")) == 3
        assert len(receiver.services) == 1


@together
async def test_a_call_is_a_part_of_its_callers_trace(bench: Bench) -> None:
    """The header `traceparent` of a gRPC call leads to the worker; the last spans are sent as the process drains."""
    port = find_free_port()
    with open_receiver() as receiver:
        async with bench.place() as place:
            settings = {**traced(place, receiver), "OTEL_BSP_SCHEDULE_DELAY": "60000", **door(port)}
            async with place.serve(**settings) as serving:
                place.open_gate()
                request = scaling_pb2.ScaleRequest(worker_count=1, metadata={"wait": "completed"})
                await trio.to_thread.run_sync(call, port, request, (("traceparent", PARENT),))
                assert receiver.spans == []
                serving.send(signal.SIGTERM)
                await serving.end()
        judge(receiver.spans, TRACE, PRODUCER)
        assert len(named(receiver.spans, "worker")) == 1


def call(port: int, request: scaling_pb2.ScaleRequest, headers: tuple[tuple[str, str], ...]) -> Any:
    """One ScaleUp."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = scaling_pb2_grpc.OttoscalerServiceStub(channel)
        return stub.ScaleUp(request, timeout=50, wait_for_ready=True, metadata=headers)


@together
async def test_an_absent_collector_harms_nothing(bench: Bench) -> None:
    """Events end as ever, one line says that spans are lost, and the drain is not held up."""
    with open_receiver() as gone:
        pass
    async with bench.place() as place:
        place.open_gate()
        settings = {**traced(place, gone), "OTEL_EXPORTER_OTLP_TIMEOUT": "0.5"}
        async with place.serve(**settings) as serving:
            for _ in range(3):
                place.send(pods=1)
                await place.judge()
            await serving.hear("spans are lost", times=1)
            place.send(pods=1)
            await place.judge()
            begin = time.monotonic()
            serving.send(signal.SIGTERM)
            await serving.end()
            assert time.monotonic() - begin < NOISE
            assert len(serving.said("spans are lost")) == 1
            assert serving.said("opentelemetry") == serving.said("urllib3") == []
