"""What is told of a pipeline: one entry for each change of a stage, as the gRPC door hands it on. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ottoscaler.outcomes import rfc3339
from ottoscaler.pipelines.ending import StageEnd
from ottoscaler.pipelines.graph import StageState
from ottoscaler.stages import Stage
from ottoscaler.stream.requests import Standing


class Metrics(msgspec.Struct, frozen=True):
    """Numbers of a stage's workers, and how long it took (s)."""

    duration_seconds: int = 0
    successful_workers: int = 0
    failed_workers: int = 0
    total_workers: int = 0


class StageNews(msgspec.Struct, frozen=True, omit_defaults=True):
    """One change of one stage; times are RFC 3339, empty while unknown."""

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
    metrics: Metrics | None = None

    def to_json(self) -> str:
        """The text that is kept."""
        return msgspec.json.encode(self).decode()


class Reporter:
    """Words of one pipeline; `now` is in Unix seconds."""

    def __init__(self, pipeline_id: str) -> None:
        self._pipeline_id = pipeline_id

    def pending(self, stage: Stage, now: float) -> StageNews:
        """A stage that has not begun."""
        waits_for = f"waits for {', '.join(stage.depends_on)}" if stage.depends_on else "is about to begin"
        return self._news(stage, "pending", waits_for, now)

    def begun(self, stage: Stage, now: float) -> StageNews:
        """A stage whose event has just been added."""
        return self.under_way(stage, "running", Standing("waiting"), now, started=now, names=())

    def under_way(
        self,
        stage: Stage,
        state: StageState,
        standing: Standing,
        now: float,
        *,
        started: float,
        names: Sequence[str],
    ) -> StageNews:
        """A stage whose event stands so; `names` of its first pods where all are there."""
        again = f"; failed attempts that are followed by others: {standing.retried}" if standing.retried else ""
        message = f"{standing.ended} of {stage.worker_count} workers have ended{again}"
        return msgspec.structs.replace(
            self._news(stage, state, message, now),
            worker_pod_names=tuple(names),
            progress_percentage=percentage(standing.ended, stage.worker_count),
            started_at=rfc3339(started),
            metrics=Metrics(round(now - started), total_workers=stage.worker_count),
        )

    def ended(
        self, stage: Stage, end: StageEnd, now: float, *, started: float | None, names: Sequence[str]
    ) -> StageNews:
        """A stage that has ended, in whatever way."""
        total = stage.worker_count if started is not None else 0
        over = end.succeeded + end.failed + end.terminated
        return msgspec.structs.replace(
            self._news(stage, end.state, end.reason or f"all {total} workers succeeded", now),
            worker_pod_names=tuple(names),
            progress_percentage=percentage(over, stage.worker_count),
            started_at=end.started_at,
            completed_at=end.completed_at,
            error_message=f"{end.cause}: {end.reason}" if end.cause else "",
            metrics=Metrics(round(now - (started if started is not None else now)), end.succeeded, end.failed, total),
        )

    def _news(self, stage: Stage, status: StageState, message: str, now: float) -> StageNews:
        return StageNews(self._pipeline_id, stage.stage_id, status, message, timestamp=rfc3339(now))


def percentage(part: int, whole: int) -> int:
    """Whole percents, rounded down: 100 means all."""
    return part * 100 // whole
