"""What the gRPC door asks of the service: a `Door`, in plain records; nothing here knows gRPC or its messages.

Its methods run as Trio tasks of their own. The client's deadline and its going away cancel them, at any await: that
ends the waiting, never the work, which stands on the stream by then. Times are RFC 3339 in UTC, empty while unknown.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Literal, Protocol

import msgspec

from ottoscaler.errors import FixYourCall, GiveUp, TryAgain, Unavailable

__all__ = [
    "DeadLetter",
    "Door",
    "Draining",
    "InvalidCall",
    "PipelineCall",
    "PipelineNews",
    "PolicyRefused",
    "RequestMismatch",
    "RetryCall",
    "ScaleAnswer",
    "ScaleDownCall",
    "ScaleUpCall",
    "StageCall",
    "StageMetrics",
    "StatusAnswer",
    "StatusQuestion",
    "TooMany",
    "WorkerStatus",
]

LONGEST_EXPECTED = 500
"""Characters of what was expected, which may name other fields of the call."""
ScaleStatus = Literal["success", "failed", "partial_success", "already_processed"]
WorkerState = Literal["pending", "running", "succeeded", "failed", "terminated"]
StageState = Literal["pending", "running", "completed", "failed", "cancelled", "skipped", "retrying"]


class ScaleUpCall(msgspec.Struct, frozen=True, kw_only=True):
    """Add `worker_count` workers.

    `request_id` makes it idempotent where it is not empty. `metadata` is without the entries that speak to the door
    (request_id, wait); the other texts and `build_config` become metadata of the event beside it.
    """

    worker_count: int
    task_id: str = ""
    repository: str = ""
    commit_sha: str = ""
    triggered_by: str = ""
    reason: str = ""
    build_config: Mapping[str, str] = {}
    metadata: Mapping[str, str] = {}
    request_id: str = ""
    wait_completed: bool = False  # answer when all workers have ended, not when they were accepted


class ScaleDownCall(msgspec.Struct, frozen=True, kw_only=True):
    """Stop workers until `target` of the task, or of all tasks where `task_id` is empty, remain; the rest as above."""

    target: int
    task_id: str = ""
    repository: str = ""
    commit_sha: str = ""
    triggered_by: str = ""
    reason: str = ""
    build_config: Mapping[str, str] = {}
    metadata: Mapping[str, str] = {}
    request_id: str = ""
    wait_completed: bool = False


class ScaleAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it: the workers that were accepted, or stopped."""

    status: ScaleStatus
    message: str = ""
    worker_pod_names: tuple[str, ...] = ()
    processed_count: int = 0
    started_at: str = ""
    completed_at: str = ""
    first_status: ScaleStatus = "success"  # of "already_processed": how the first call went


class StatusQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Which workers; empty texts ask for all. `page_size` 0: as many as an answer holds."""

    task_id: str = ""
    worker_pod_name: str = ""
    status_filter: WorkerState | Literal[""] = ""
    page_size: int = 0
    page_token: str = ""


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One worker."""

    pod_name: str
    status: WorkerState
    task_id: str = ""
    created_at: str = ""
    started_at: str = ""
    completed_at: str = ""
    node_name: str = ""
    pod_ip: str = ""
    labels: Mapping[str, str] = {}
    error_message: str = ""


class StatusAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Counts over task and pod filter, before `status_filter`; `workers` after it, one page of them."""

    total_count: int = 0
    pending_count: int = 0
    running_count: int = 0
    succeeded_count: int = 0
    failed_count: int = 0
    terminated_count: int = 0
    workers: tuple[WorkerStatus, ...] = ()
    next_page_token: str = ""
    is_truncated: bool = False  # there are older results than one question reads back


class RetryCall(msgspec.Struct, frozen=True, kw_only=True):
    """How often a stage's workers are tried; 0 and empty: what the service is set to."""

    max_attempts: int = 0
    retry_delay_seconds: int = 0
    retryable_failures: tuple[str, ...] = ()


class StageCall(msgspec.Struct, frozen=True, kw_only=True):
    """One stage, as it was asked for; the door has checked nothing of it."""

    stage_id: str
    type: str = ""
    name: str = ""
    worker_count: int = 0
    depends_on: tuple[str, ...] = ()
    config: Mapping[str, str] = {}
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    timeout_seconds: int = 0
    retry: RetryCall | None = None


class PipelineCall(msgspec.Struct, frozen=True, kw_only=True):
    """A pipeline; `metadata` is without on_disconnect, which `ends_with_call` stands for."""

    pipeline_id: str
    stages: tuple[StageCall, ...]
    name: str = ""
    repository: str = ""
    commit_sha: str = ""
    triggered_by: str = ""
    metadata: Mapping[str, str] = {}
    ends_with_call: bool = False


class StageMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured of a stage."""

    duration_seconds: int = 0
    successful_workers: int = 0
    failed_workers: int = 0
    total_workers: int = 0


class PipelineNews(msgspec.Struct, frozen=True, kw_only=True):
    """One change of one stage."""

    pipeline_id: str
    stage_id: str
    status: StageState
    message: str = ""
    worker_pod_names: tuple[str, ...] = ()
    progress_percentage: int = 0
    timestamp: str = ""
    started_at: str = ""
    completed_at: str = ""
    error_message: str = ""
    metrics: StageMetrics | None = None


class Door(Protocol):
    """The service as calls see it. Raises the errors below, and `Unavailable` where Redis or the API is away."""

    async def scale_up(self, call: ScaleUpCall) -> ScaleAnswer:
        """Put the event on the stream and wait for what the call wants to wait for."""

    async def scale_down(self, call: ScaleDownCall) -> ScaleAnswer:
        """Stop what is more than the target and wait until it is stopped."""

    async def worker_status(self, question: StatusQuestion) -> StatusAnswer:
        """Say what runs and what has ended."""

    def execute_pipeline(
        self, call: PipelineCall, is_abandoned: Callable[[], bool]
    ) -> AsyncGenerator[PipelineNews, None]:
        """Begin the pipeline, or join it, and tell every change from the first on; returns after the last.

        Closed early (`aclose`) when the client goes away or the process drains: the pipeline goes on, unless the call
        has `ends_with_call`, and it was the client that went, or its deadline that passed: `is_abandoned` tells.
        """


class InvalidCall(FixYourCall):
    """A field of the call is wrong (INVALID_ARGUMENT): `field` as in the .proto file, such as
    `stages[2].depends_on[0]` or `metadata["wait"]`; `value` as given, `expected` in words. `said`: what is wrong, in
    words instead of the value, where that says nothing or may be a secret.
    """

    def __init__(self, field: str, value: object, expected: str, *, said: str = "") -> None:
        self.field = cut(field)
        self.value = value
        self.expected = cut(expected, LONGEST_EXPECTED)
        super().__init__(f"{self.field} {said or f'is {_short(value)}'}, expected {self.expected}")


class PolicyRefused(GiveUp):
    """The policy does not allow it (PERMISSION_DENIED); `field` and `value` as above, `allowed` in words."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        self.field = cut(field)
        self.value = value
        self.allowed = cut(allowed, LONGEST_EXPECTED)
        super().__init__(f"{self.field} is {_short(value)}, the policy allows {self.allowed}")


class RequestMismatch(GiveUp):
    """The id was used before, with other content (ALREADY_EXISTS); `field` names the id, `value` is it."""

    def __init__(self, field: str, value: str) -> None:
        self.field = cut(field)
        self.value = value
        super().__init__(f"{self.field} {_short(value)} was used before, with other content")


class DeadLetter(GiveUp):
    """What was asked for became a dead letter, for no fault of the call (FAILED_PRECONDITION); `event_id` and `cause`
    are those of the dead letter.
    """

    def __init__(self, message: str, *, event_id: str, cause: str) -> None:
        self.event_id = event_id
        self.cause = cause
        super().__init__(message)


class Draining(Unavailable):
    """This process is about to end (UNAVAILABLE); what was begun goes on elsewhere, and can be asked for there."""


class TooMany(TryAgain):
    """A limit of the door is reached (RESOURCE_EXHAUSTED); the message says which, `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        self.retry_after = retry_after
        super().__init__(message)


def cut(text: str, most: int = 200) -> str:
    """A name that the client made up, as an error shows it: of a huge one the beginning and the end."""
    return text if len(text) <= most else f"{text[: most - 21]}…{text[-20:]}"


def _short(value: object) -> str:
    """A value as an error shows it: on one line, and not all of a huge one."""
    shown = repr(value)
    return shown if len(shown) <= 200 else f"{shown[:200]}… ({len(shown)} characters)"
