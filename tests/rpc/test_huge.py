"""Calls with 4 MB of whatever has no limit of its own in a message: short answers and short log lines, soon."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2

from ottoscaler.rpc.answers import Answer, answer_to
from ottoscaler.rpc.door import InvalidCall
from ottoscaler.rpc.http2.codes import Code
from ottoscaler.rpc.messages import read_pipeline, read_scale_down, read_scale_up
from ottoscaler.rpc.v1 import pipeline_pb2, scaling_pb2
from tests.calls.house import open_house
from tests.rpc.stage import Scene, call, open_door

pytestmark = pytest.mark.slow_clock
MOST = 4_000_000
LONGEST_LINE = 4096
OURS, HEALTH = "/ottoscaler.v1.OttoscalerService", "/grpc.health.v1.Health"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


def scale(**words: Any) -> bytes:
    """A ScaleRequest."""
    return scaling_pb2.ScaleRequest(worker_count=1, **words).SerializeToString()


def status(**words: Any) -> bytes:
    """A WorkerStatusRequest."""
    return scaling_pb2.WorkerStatusRequest(**words).SerializeToString()


def pipeline(*stages: dict[str, Any], **words: Any) -> bytes:
    """A PipelineRequest; a stage is one that would be good, and `stages`."""
    each = [pipeline_pb2.PipelineStage(**{"stage_id": "a", "worker_count": 1, **stage}) for stage in stages or ({},)]
    return pipeline_pb2.PipelineRequest(**{"pipeline_id": "p", "stages": each, **words}).SerializeToString()


def small_stages(count: int) -> bytes:
    """Stages of two bytes each."""
    return b"\x1a\0" * count


ASKED: dict[str, Callable[[str], bytes]] = {
    "ScaleUp reserved name": lambda x: scale(metadata={"otto." + x: "1"}),
    "ScaleUp name": lambda x: scale(metadata={x: "1\0"}),
    "ScaleUp value": lambda x: scale(metadata={"a": x + "\0"}),
    "ScaleUp names that clash": lambda x: scale(
        metadata={"a" + x[: len(x) // 2]: "1"}, build_config={"A" + x[: len(x) // 2]: "2"}
    ),
    "ScaleUp reserved name of build_config": lambda x: scale(build_config={"otto." + x: "1"}),
    "ScaleUp many names": lambda x: scale(metadata={f"{n}": "value" for n in range(len(x) // 20)}, task_id="\0"),
    "ScaleUp task_id": lambda x: scale(task_id=x + "\0"),
    "ScaleUp reason": lambda x: scale(reason=x + "\0"),
    "ScaleUp request_id": lambda x: scale(metadata={"request_id": x}),
    "ScaleUp wait": lambda x: scale(metadata={"wait": x}),
    "ScaleUp trace": lambda x: scale(metadata={"traceparent": x, "tracestate": x[:100], "otto.x": ""}),
    "ScaleUp no message": lambda x: b"\xff" * len(x),
    "ScaleDown reserved name": lambda x: scale(metadata={"otto." + x: "1"}),
    "ScaleDown task_id": lambda x: scale(task_id=x + "\0"),
    "GetWorkerStatus status_filter": lambda x: status(status_filter=x),
    "GetWorkerStatus page_token": lambda x: status(page_token=x + "?"),
    "GetWorkerStatus deep JSON": lambda x: status(page_token=base64.b64encode(b"[" * (len(x) // 4 * 3)).decode()),
    "ExecutePipeline reserved name": lambda x: pipeline(metadata={"otto." + x: "1"}),
    "ExecutePipeline names that clash": lambda x: pipeline(
        metadata={"a" + x[: len(x) // 2]: "1", "A" + x[: len(x) // 2]: "2"}
    ),
    "ExecutePipeline on_disconnect": lambda x: pipeline(metadata={"on_disconnect": x}),
    "ExecutePipeline pipeline_id": lambda x: pipeline(pipeline_id=x),
    "ExecutePipeline stage_id": lambda x: pipeline({"stage_id": x}),
    "ExecutePipeline depends_on": lambda x: pipeline({"depends_on": [x]}),
    "ExecutePipeline many depends_on": lambda x: pipeline({"depends_on": ["" for _ in range(len(x) // 2)]}),
    "ExecutePipeline cycle": lambda x: pipeline(
        *({"stage_id": f"{n}" + "s" * 140, "depends_on": [f"{(n + 1) % 190}" + "s" * 140]} for n in range(190))
    ),
    "ExecutePipeline many stages": lambda x: small_stages(len(x) // 2),
    "ExecutePipeline many words": lambda x: pipeline({"stage_id": "", "args": [""] * (len(x) // 2)}),
    "ExecutePipeline config": lambda x: pipeline({"config": {"otto." + x: "1"}}),
    "ExecutePipeline many names of config": lambda x: pipeline(
        {"stage_id": "", "config": {f"{n}": "value" for n in range(len(x) // 20)}}
    ),
    "ExecutePipeline image": lambda x: pipeline({"image": x + " "}),
    "ExecutePipeline command": lambda x: pipeline({"command": [x + "\0"]}),
    "ExecutePipeline retries": lambda x: pipeline(
        {"retry_policy": pipeline_pb2.RetryPolicy(max_attempts=1, retryable_failures=[x])}
    ),
    "Check service": lambda x: health_pb2.HealthCheckRequest(service=x).SerializeToString(),
    "Check no message": lambda x: b"\xff" * len(x),
    "ServerReflectionInfo no message": lambda x: b"\xff" * len(x),
}
PATHS = {"Check": f"{HEALTH}/Check", "ServerReflectionInfo": REFLECTION}


async def refused(scene: Scene, rpc: str, message: bytes) -> grpc.RpcError:
    """The error of a call that is asked in bytes."""
    ask: Any = scene.channel.unary_stream(PATHS.get(rpc, f"{OURS}/{rpc}"))

    def first(*, timeout: float) -> None:
        raise AssertionError(f"not refused: {next(ask(message, timeout=timeout))!r}")

    try:
        await call(first)
    except grpc.RpcError as error:
        return error
    raise AssertionError


async def test_a_huge_input_is_refused_soon_and_in_few_words(caplog: pytest.LogCaptureFixture) -> None:
    """4 MB of names, values, ids and entries, and the same of 12,000 bytes: each has its code at the client, as its
    trailers have a limit; none keeps the service busy for two seconds, nor makes a line of log that is long.
    """
    async with open_house() as house:
        replica = await house.open()
        async with open_door(service=replica.calls, calls_per_second=0) as scene:
            for size in (12_000, MOST):
                for name, ask in ASKED.items():
                    message, busy = ask("x" * size), time.thread_time()
                    error = await refused(scene, name.split()[0], message)
                    assert time.thread_time() - busy < 2, name
                    expected = (
                        {grpc.StatusCode.NOT_FOUND} if name == "Check service" else {grpc.StatusCode.INVALID_ARGUMENT}
                    )
                    assert error.code() in expected, (name, error)
            assert await scene.health() == 1
    facts = [f"{record.message} {vars(record).get('facts')}" for record in caplog.records]
    assert facts
    assert max(map(len, facts)) < LONGEST_LINE


@pytest.mark.parametrize(
    ("read", "field", "message"),
    [
        (read_scale_up, "metadata", scale(metadata={f"{n}": "" for n in range(3901)})),
        (read_scale_down, "build_config", scale(build_config={f"{n}": "" for n in range(3901)})),
        (read_pipeline, "metadata", pipeline(metadata={f"{n}": "" for n in range(3901)})),
        (read_pipeline, "the config of a stage", pipeline({"config": {f"{n}": "" for n in range(3901)}})),
    ],
)
def test_names_are_counted_before_they_are_copied(read: Callable[[bytes], object], field: str, message: bytes) -> None:
    """More names than an entry of the stream may have are refused with their number, wherever they stand."""
    with pytest.raises(InvalidCall) as refusal:
        read(message)
    assert (refusal.value.field, refusal.value.value) == (field, "3901 names")
    assert refusal.value.expected == "at most 3900"


def test_trailers_have_a_limit_whatever_is_in_them() -> None:
    """However long names, values and what was expected are, in any letters: below 8 KiB, and still a BadRequest."""
    for letter in ("x", "\u4e16", '"', "\U0001f600"):
        long = letter * 100_000
        answer = answer_to(InvalidCall(f'metadata["{long}"]', long, long))
        status = status_pb2.Status.FromString(_details(answer))
        (detail,) = status.details
        violation = error_details_pb2.BadRequest()
        assert detail.Unpack(violation)
        assert len(violation.field_violations) == 1
        assert violation.field_violations[0].field.endswith('"]')
    many = error_details_pb2.BadRequest()
    many.field_violations.extend([error_details_pb2.BadRequest.FieldViolation(description="x" * 100)] * 100)
    status = status_pb2.Status.FromString(_details(Answer(Code.INVALID_ARGUMENT, "\u4e16" * 5000, (many,))))
    assert status.details[0].type_url.endswith("google.rpc.BadRequest")


def _details(answer: Answer) -> bytes:
    trailers = dict(answer.trailers())
    assert (
        sum(len(name) + len(value) + 32 for name, value in trailers.items()) < 7600
    )  # and what each answer begins with
    return base64.b64decode(trailers[b"grpc-status-details-bin"] + b"==")
