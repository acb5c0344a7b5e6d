"""Messages of the wire as records of the door, and back. What can only be wrong on the wire is refused here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from google.protobuf.message import DecodeError, Message

from ottoscaler.events import MOST_FIELDS
from ottoscaler.rpc.door import (
    InvalidCall,
    PipelineCall,
    PipelineNews,
    RetryCall,
    ScaleAnswer,
    ScaleDownCall,
    ScaleUpCall,
    StageCall,
    StatusAnswer,
    StatusQuestion,
    WorkerState,
    WorkerStatus,
)
from ottoscaler.rpc.v1 import pipeline_pb2, scaling_pb2
from ottoscaler.stages import MOST_STAGES

M = TypeVar("M", bound=Message)


def read_scale_up(data: bytes) -> ScaleUpCall:
    """A ScaleRequest whose count is how many to add."""
    request = _decode(scaling_pb2.ScaleRequest, data)
    return ScaleUpCall(worker_count=request.worker_count, **_scale_words(request))


def read_scale_down(data: bytes) -> ScaleDownCall:
    """A ScaleRequest whose count is how many may remain."""
    request = _decode(scaling_pb2.ScaleRequest, data)
    return ScaleDownCall(target=request.worker_count, **_scale_words(request))


def _scale_words(request: scaling_pb2.ScaleRequest) -> dict[str, Any]:
    metadata = _names("metadata", request.metadata)
    wait = metadata.pop("wait", "accepted")
    if wait not in ("accepted", "completed"):
        raise InvalidCall('metadata["wait"]', wait, "accepted or completed")
    return {
        "task_id": request.task_id,
        "repository": request.repository,
        "commit_sha": request.commit_sha,
        "triggered_by": request.triggered_by,
        "reason": request.reason,
        "build_config": _names("build_config", request.build_config),
        "request_id": metadata.pop("request_id", ""),
        "wait_completed": wait == "completed",
        "metadata": metadata,
    }


def _names(field: str, values: Mapping[str, str]) -> dict[str, str]:
    """A map of the wire, which is counted before it is copied: a message has room for half a million names."""
    if (count := len(values)) > MOST_FIELDS:
        raise InvalidCall(field, f"{count} names", f"at most {MOST_FIELDS}")
    return dict(values)


def write_scale_answer(answer: ScaleAnswer) -> bytes:
    """A ScaleResponse."""
    return scaling_pb2.ScaleResponse(
        status=answer.status.upper(),
        message=answer.message,
        processed_count=answer.processed_count,
        worker_pod_names=answer.worker_pod_names,
        started_at=answer.started_at,
        completed_at=answer.completed_at,
        first_status=answer.first_status.upper(),
    ).SerializeToString()


def read_status_question(data: bytes) -> StatusQuestion:
    """A WorkerStatusRequest."""
    request = _decode(scaling_pb2.WorkerStatusRequest, data)
    wanted = request.status_filter.lower()
    if wanted and wanted not in get_args(WorkerState):
        raise InvalidCall("status_filter", request.status_filter, f"{', '.join(get_args(WorkerState))} or nothing")
    if request.page_size < 0:
        raise InvalidCall("page_size", request.page_size, "a count from 0")
    return StatusQuestion(
        task_id=request.task_id,
        worker_pod_name=request.worker_pod_name,
        status_filter=wanted,  # type: ignore[arg-type]  # one of the words, as was just checked
        page_size=request.page_size,
        page_token=request.page_token,
    )


def write_status_answer(answer: StatusAnswer) -> bytes:
    """A WorkerStatusResponse."""
    return scaling_pb2.WorkerStatusResponse(
        total_count=answer.total_count,
        pending_count=answer.pending_count,
        running_count=answer.running_count,
        succeeded_count=answer.succeeded_count,
        failed_count=answer.failed_count,
        terminated_count=answer.terminated_count,
        workers=map(_worker, answer.workers),
        next_page_token=answer.next_page_token,
        is_truncated=answer.is_truncated,
    ).SerializeToString()


def _worker(worker: WorkerStatus) -> scaling_pb2.WorkerPodStatus:
    return scaling_pb2.WorkerPodStatus(
        pod_name=worker.pod_name,
        task_id=worker.task_id,
        status=worker.status,
        created_at=worker.created_at,
        started_at=worker.started_at,
        completed_at=worker.completed_at,
        node_name=worker.node_name,
        pod_ip=worker.pod_ip,
        labels=worker.labels,
        error_message=worker.error_message,
    )


def read_pipeline(data: bytes) -> PipelineCall:
    """A PipelineRequest, its stages as they were asked for."""
    request = _decode(pipeline_pb2.PipelineRequest, data)
    if (count := len(request.stages)) > MOST_STAGES:  # before each becomes a record: there may be millions
        raise InvalidCall("stages", f"{count} stages", f"at most {MOST_STAGES}")
    metadata = _names("metadata", request.metadata)
    on_disconnect = metadata.pop("on_disconnect", "continue")
    if on_disconnect not in ("continue", "cancel"):
        raise InvalidCall('metadata["on_disconnect"]', on_disconnect, "continue or cancel")
    return PipelineCall(
        pipeline_id=request.pipeline_id,
        name=request.name,
        stages=tuple(map(_stage, request.stages)),
        repository=request.repository,
        commit_sha=request.commit_sha,
        triggered_by=request.triggered_by,
        metadata=metadata,
        ends_with_call=on_disconnect == "cancel",
    )


def _stage(stage: pipeline_pb2.PipelineStage) -> StageCall:
    retry = stage.retry_policy
    return StageCall(
        stage_id=stage.stage_id,
        type=stage.type,
        name=stage.name,
        worker_count=stage.worker_count,
        depends_on=tuple(stage.depends_on),
        config=_names("the config of a stage", stage.config),
        image=stage.image,
        command=tuple(stage.command),
        args=tuple(stage.args),
        timeout_seconds=stage.timeout_seconds,
        retry=RetryCall(
            max_attempts=retry.max_attempts,
            retry_delay_seconds=retry.retry_delay_seconds,
            retryable_failures=tuple(retry.retryable_failures),
        )
        if stage.HasField("retry_policy")
        else None,
    )


def write_pipeline_news(news: PipelineNews) -> bytes:
    """A PipelineProgress."""
    return pipeline_pb2.PipelineProgress(
        pipeline_id=news.pipeline_id,
        stage_id=news.stage_id,
        status=f"STAGE_{news.status.upper()}",
        message=news.message,
        worker_pod_names=news.worker_pod_names,
        progress_percentage=news.progress_percentage,
        timestamp=news.timestamp,
        started_at=news.started_at,
        completed_at=news.completed_at,
        error_message=news.error_message,
        metrics=pipeline_pb2.StageMetrics(
            duration_seconds=news.metrics.duration_seconds,
            successful_workers=news.metrics.successful_workers,
            failed_workers=news.metrics.failed_workers,
            total_workers=news.metrics.total_workers,
        )
        if news.metrics
        else None,
    ).SerializeToString()


def _decode(kind: type[M], data: bytes) -> M:
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise InvalidCall("the message", f"{len(data)} bytes", f"one {kind.DESCRIPTOR.full_name}") from error
    return message
