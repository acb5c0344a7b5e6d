"""Calls that go through the door and back: what reaches the service, what the client gets."""

from __future__ import annotations

import logging
from typing import Any

import grpc
import pytest
import trio
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2

from ottoscaler.errors import Unavailable
from ottoscaler.metrics import REGISTRY
from ottoscaler.rpc.door import (
    DeadLetter,
    Draining,
    InvalidCall,
    PipelineCall,
    PipelineNews,
    PolicyRefused,
    RequestMismatch,
    RetryCall,
    ScaleAnswer,
    ScaleDownCall,
    ScaleUpCall,
    StageCall,
    StageMetrics,
    StatusAnswer,
    StatusQuestion,
    TooMany,
    WorkerStatus,
)
from ottoscaler.rpc.v1 import pipeline_pb2, scaling_pb2
from tests.rpc.stage import call, open_door, refusal, taken

pytestmark = pytest.mark.slow_clock
Code = grpc.StatusCode
NEWS = PipelineNews(pipeline_id="p", stage_id="s", status="running")


def details(error: grpc.RpcError) -> list[Any]:
    """The unpacked details of an error."""
    trailer: Any = error.trailing_metadata()
    status = status_pb2.Status.FromString(dict(trailer).get("grpc-status-details-bin", b""))
    assert (status.code, status.message) == (error.code().value[0], error.details())
    kinds = (error_details_pb2.BadRequest, error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo)
    unpacked = []
    for detail in status.details:
        kind = next(kind for kind in kinds if detail.type_url.endswith(kind.DESCRIPTOR.full_name))
        unpacked.append(kind())
        detail.Unpack(unpacked[-1])
    return unpacked


async def test_scale_up_reaches_the_service_whole_and_its_answer_the_client() -> None:
    """Every field of a ScaleRequest and of its answer arrives; words for the door are taken out of the metadata."""
    async with open_door() as scene:
        scene.door.answer = ScaleAnswer(
            status="partial_success",
            message="2 of 3",
            worker_pod_names=("a", "b"),
            processed_count=2,
            started_at="2026-01-01T00:00:00Z",
            completed_at="2026-01-01T00:00:01Z",
        )
        request = scaling_pb2.ScaleRequest(
            task_id="t",
            repository="r",
            commit_sha="c",
            worker_count=3,
            build_config={"FLAGS": "-O2"},
            triggered_by="me",
            reason="why",
            metadata={"wait": "completed", "request_id": "x1", "A": "b"},
        )
        answer = await call(scene.stub.ScaleUp, request)
        assert scene.door.asked == [
            ScaleUpCall(
                task_id="t",
                repository="r",
                commit_sha="c",
                worker_count=3,
                build_config={"FLAGS": "-O2"},
                triggered_by="me",
                reason="why",
                metadata={"A": "b"},
                request_id="x1",
                wait_completed=True,
            )
        ]
        assert answer == scaling_pb2.ScaleResponse(
            status="PARTIAL_SUCCESS",
            message="2 of 3",
            processed_count=2,
            worker_pod_names=["a", "b"],
            started_at="2026-01-01T00:00:00Z",
            completed_at="2026-01-01T00:00:01Z",
        )


@pytest.mark.parametrize("status", ["success", "failed", "partial_success", "already_processed"])
async def test_every_status_of_a_scaling_has_its_word_on_the_wire(status: Any) -> None:
    """The status that the service says is the one that the client reads; ScaleDown's count is the target."""
    async with open_door() as scene:
        scene.door.answer = ScaleAnswer(status=status)
        answer = await call(scene.stub.ScaleDown, scaling_pb2.ScaleRequest(worker_count=0, task_id="t"))
        assert scaling_pb2.ScaleResponse.Status.Name(answer.status) == status.upper()
        assert scene.door.asked == [ScaleDownCall(target=0, task_id="t")]


async def test_worker_status_has_counts_workers_and_pages() -> None:
    """A question with its page reaches the service; counts, workers and the next page's token come back."""
    async with open_door() as scene:
        worker = WorkerStatus(
            pod_name="w",
            status="failed",
            task_id="t",
            created_at="1",
            started_at="2",
            completed_at="3",
            node_name="n",
            pod_ip="10.0.0.1",
            labels={"a": "b"},
            error_message="OutOfMemory",
        )
        scene.door.answer = StatusAnswer(
            total_count=15,
            pending_count=1,
            running_count=2,
            succeeded_count=3,
            failed_count=4,
            terminated_count=5,
            workers=(worker,),
            next_page_token="more",
            is_truncated=True,
        )
        question = scaling_pb2.WorkerStatusRequest(task_id="t", status_filter="FAILED", page_size=1, page_token="p")
        answer = await call(scene.stub.GetWorkerStatus, question)
        assert scene.door.asked == [StatusQuestion(task_id="t", status_filter="failed", page_size=1, page_token="p")]
        found = scaling_pb2.WorkerPodStatus(
            pod_name="w",
            status="failed",
            task_id="t",
            created_at="1",
            started_at="2",
            completed_at="3",
            node_name="n",
            pod_ip="10.0.0.1",
            labels={"a": "b"},
            error_message="OutOfMemory",
        )
        assert answer == scaling_pb2.WorkerStatusResponse(
            total_count=15,
            pending_count=1,
            running_count=2,
            succeeded_count=3,
            failed_count=4,
            terminated_count=5,
            workers=[found],
            next_page_token="more",
            is_truncated=True,
        )


async def test_a_pipeline_reaches_the_service_whole_and_its_news_the_client_in_order() -> None:
    """Stages arrive with all their fields; each change comes back as one entry, then the call ends OK."""
    async with open_door() as scene:
        metrics = StageMetrics(duration_seconds=4, successful_workers=1, failed_workers=2, total_workers=3)
        last = PipelineNews(
            pipeline_id="p",
            stage_id="s",
            status="failed",
            message="m",
            worker_pod_names=("w",),
            progress_percentage=100,
            timestamp="1",
            started_at="2",
            completed_at="3",
            error_message="e",
            metrics=metrics,
        )
        scene.door.news = [NEWS, last]
        stage = pipeline_pb2.PipelineStage(
            stage_id="s",
            type="build",
            name="n",
            worker_count=2,
            depends_on=["a"],
            config={"k": "v"},
            image="i",
            command=["c"],
            args=["x", "y"],
            timeout_seconds=9,
            retry_policy={"max_attempts": 2, "retry_delay_seconds": 3, "retryable_failures": ["OutOfMemory"]},
        )
        request = pipeline_pb2.PipelineRequest(
            pipeline_id="p", name="n", stages=[stage, {}], metadata={"on_disconnect": "cancel", "a": "b"}
        )
        entries = await call(lambda *args, **options: list(scene.stub.ExecutePipeline(*args, **options)), request)
        retry = RetryCall(max_attempts=2, retry_delay_seconds=3, retryable_failures=("OutOfMemory",))
        whole = StageCall(
            stage_id="s",
            type="build",
            name="n",
            worker_count=2,
            depends_on=("a",),
            config={"k": "v"},
            image="i",
            command=("c",),
            args=("x", "y"),
            timeout_seconds=9,
            retry=retry,
        )
        stages = (whole, StageCall(stage_id=""))
        asked = PipelineCall(pipeline_id="p", name="n", stages=stages, metadata={"a": "b"}, ends_with_call=True)
        assert scene.door.asked == [asked]
        assert [entry.status for entry in entries] == [pipeline_pb2.STAGE_RUNNING, pipeline_pb2.STAGE_FAILED]
        assert entries[1].metrics == pipeline_pb2.StageMetrics(
            duration_seconds=4, successful_workers=1, failed_workers=2, total_workers=3
        )
        assert (entries[1].worker_pod_names, entries[1].error_message) == (["w"], "e")
        assert scene.door.cancelled == []


@pytest.mark.parametrize(
    ("rpc", "request_", "field", "expected"),
    [
        ("ScaleUp", scaling_pb2.ScaleRequest(metadata={"wait": "soon"}), 'metadata["wait"]', "accepted or completed"),
        ("GetWorkerStatus", scaling_pb2.WorkerStatusRequest(status_filter="dead"), "status_filter", "pending, running"),
        ("GetWorkerStatus", scaling_pb2.WorkerStatusRequest(page_size=-1), "page_size", "a count from 0"),
    ],
)
async def test_a_wrong_field_is_named_with_its_value(rpc: str, request_: Any, field: str, expected: str) -> None:
    """INVALID_ARGUMENT carries a BadRequest that names the field; the sentence has the value and what was expected."""
    async with open_door() as scene:
        error = await refusal(getattr(scene.stub, rpc), request_)
        assert error.code() == Code.INVALID_ARGUMENT
        [violation] = details(error)[0].field_violations
        assert violation.field == field
        assert expected in violation.description
        assert violation.description == error.details()
        assert scene.door.asked == []


async def test_a_pipeline_with_an_unknown_word_is_refused() -> None:
    """on_disconnect is continue or cancel, and a wrong word names itself, in a streaming call too."""
    async with open_door() as scene:
        request = pipeline_pb2.PipelineRequest(metadata={"on_disconnect": "explode"})
        error = await refusal(lambda *args, **options: next(scene.stub.ExecutePipeline(*args, **options)), request)
        assert error.code() == Code.INVALID_ARGUMENT
        assert details(error)[0].field_violations[0].field == 'metadata["on_disconnect"]'


@pytest.mark.parametrize(
    ("raised", "code", "kind"),
    [
        (InvalidCall("worker_count", -1, "a count from 1"), Code.INVALID_ARGUMENT, "BadRequest"),
        (PolicyRefused("image", "evil", "busybox"), Code.PERMISSION_DENIED, "ErrorInfo"),
        (RequestMismatch("request_id", "x"), Code.ALREADY_EXISTS, "ErrorInfo"),
        (DeadLetter("it broke", event_id="1-0", cause="Poison"), Code.FAILED_PRECONDITION, "ErrorInfo"),
        (Draining("about to end"), Code.UNAVAILABLE, "RetryInfo"),
        (Unavailable("Redis is away"), Code.UNAVAILABLE, "RetryInfo"),
        (TooMany("too many"), Code.RESOURCE_EXHAUSTED, "RetryInfo"),
        (ExceptionGroup("nursery", [TooMany("too many")]), Code.RESOURCE_EXHAUSTED, "RetryInfo"),
    ],
)
async def test_each_error_of_the_service_has_its_code(raised: Exception, code: grpc.StatusCode, kind: str) -> None:
    """What the service raises on purpose becomes a code, its sentence, and details that a program can read."""
    async with open_door() as scene:
        scene.door.answer = raised
        error = await refusal(scene.stub.ScaleUp, scaling_pb2.ScaleRequest(worker_count=1))
        assert error.code() == code
        assert str(raised.exceptions[0] if isinstance(raised, ExceptionGroup) else raised) == error.details()
        assert [type(detail).__name__ for detail in details(error)] == [kind]


async def test_a_bug_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected error gives INTERNAL without its text; the log has its traceback."""
    async with open_door() as scene:
        scene.door.answer = KeyError("a password, perhaps")
        error = await refusal(scene.stub.ScaleUp, scaling_pb2.ScaleRequest(worker_count=1))
        assert error.code() == Code.INTERNAL
        assert "password" not in str(error.details())
        broken = [record for record in caplog.records if record.message == "a call broke"]
        assert [record.exc_info and record.exc_info[0] for record in broken] == [KeyError]


async def test_bytes_that_are_no_message_are_an_invalid_argument() -> None:
    """Garbage in place of a message gets a clear answer, and no traceback in the log."""
    async with open_door() as scene:
        rpc: Any = scene.channel.unary_unary("/ottoscaler.v1.OttoscalerService/ScaleUp")
        error = await refusal(rpc, b"\xff\xff\xff")
        assert (error.code(), error.details()) == (
            Code.INVALID_ARGUMENT,
            "the message is '3 bytes', expected one ottoscaler.v1.ScaleRequest",
        )
        error = await refusal(scene.channel.unary_unary("/ottoscaler.v1.OttoscalerService/Fly"), b"")
        assert error.code() == Code.UNIMPLEMENTED


async def test_a_client_that_leaves_ends_its_waiting(caplog: pytest.LogCaptureFixture) -> None:
    """A cancelled call cancels the task that waited for it, with a reason, and is no refusal in the log."""
    async with open_door() as scene:
        scene.door.holds = True
        waiting = scene.stub.ScaleUp.future(scaling_pb2.ScaleRequest(worker_count=1))
        await scene.door.entered.wait()
        waiting.cancel()
        with trio.fail_after(20):
            await scene.door.left.wait()
        assert "the client went away" in scene.door.ended[0]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_deadline_ends_the_waiting() -> None:
    """When the client's deadline passes, it is told so, and the task that waited for it ends."""
    async with open_door() as scene:
        assert await scene.health() == health_pb2.HealthCheckResponse.SERVING  # its connection is there
        scene.door.holds = True
        error = await refusal(scene.stub.ScaleUp, scaling_pb2.ScaleRequest(worker_count=1), timeout=1)
        assert error.code() == Code.DEADLINE_EXCEEDED
        with trio.fail_after(20):
            await scene.door.left.wait()


@pytest.mark.parametrize(("word", "is_cancelled"), [("cancel", True), ("continue", False)])
async def test_a_pipeline_ends_with_its_call_only_where_it_asked_for_that(word: str, is_cancelled: bool) -> None:
    """A client that leaves closes the stream of news; it cancels the pipeline with on_disconnect=cancel only."""
    async with open_door() as scene:
        scene.door.holds = True
        scene.door.news = [NEWS]
        request = pipeline_pb2.PipelineRequest(pipeline_id="p", metadata={"on_disconnect": word})
        stream = scene.stub.ExecutePipeline(request)
        await trio.to_thread.run_sync(taken, stream, 1)
        stream.cancel()
        with trio.fail_after(20):
            await scene.door.left.wait()
        await trio.sleep(0.05)
        assert scene.door.cancelled == (["p"] if is_cancelled else [])


async def test_a_slow_reader_holds_up_its_own_stream_only() -> None:
    """News are pulled as the client reads them, not collected in memory; another call is answered meanwhile."""
    async with open_door() as scene:
        scene.door.news = [PipelineNews(pipeline_id="p", stage_id="s", status="running", message="x" * 50_000)] * 400
        stream = scene.stub.ExecutePipeline(pipeline_pb2.PipelineRequest(pipeline_id="p"))
        await trio.to_thread.run_sync(taken, stream, 1)
        await trio.sleep(0.3)
        assert scene.door.given < 300
        assert await scene.health() == health_pb2.HealthCheckResponse.SERVING
        assert len(await trio.to_thread.run_sync(taken, stream, 399)) == 399


async def test_health_knows_the_door_and_its_service() -> None:
    """The whole door and our service are SERVING; another name is NOT_FOUND."""
    async with open_door() as scene:
        assert await scene.health() == health_pb2.HealthCheckResponse.SERVING
        assert await scene.health("ottoscaler.v1.OttoscalerService") == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
            await scene.health("other")


async def test_calls_are_counted_by_rpc_and_code() -> None:
    """Every call shows in the metrics, with the code that it ended with and its time."""

    def count(code: str) -> float:
        return REGISTRY.get_sample_value("ottoscaler_rpc_seconds_count", {"rpc": "ScaleDown", "code": code}) or 0.0

    before = [count("OK"), count("UNAVAILABLE")]
    async with open_door() as scene:
        await call(scene.stub.ScaleDown, scaling_pb2.ScaleRequest())
        scene.door.answer = Unavailable("away")
        await refusal(scene.stub.ScaleDown, scaling_pb2.ScaleRequest())
    assert [count("OK"), count("UNAVAILABLE")] == [before[0] + 1, before[1] + 1]
