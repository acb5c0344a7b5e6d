"""How a stage ends: the record that goes into progress and result, made of how the stage's own event ended. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ottoscaler.events import Event
from ottoscaler.outcomes import RESULT_VERSION, OutcomeWord, WorkerOutcome, rfc3339
from ottoscaler.pipelines.graph import StageState, status_of
from ottoscaler.stages import Pipeline

SKIPPED, GONE = "Skipped", "Gone"
STATES: Mapping[OutcomeWord, StageState] = {"succeeded": "completed", "failed": "failed", "terminated": "cancelled"}
Ending = tuple[str, Mapping[str, str]]


class StageEnd(WorkerOutcome, frozen=True, omit_defaults=True):
    """The end of one stage, in the shape of a worker's: `name` is the stage's id, `index` its place from 1.

    `event_id` is the stage's event, empty where it never began; the numbers are of workers.
    """

    event_id: str = ""
    succeeded: int = 0
    failed: int = 0
    terminated: int = 0

    @property
    def state(self) -> StageState:
        """How a pipeline sees it."""
        return "skipped" if self.cause == SKIPPED else STATES[self.outcome]

    def shown(self) -> dict[str, Any]:
        """What a result shows of it."""
        return {
            "stage_id": self.name,
            "status": self.state,
            "event_id": self.event_id,
            "cause": self.cause,
            "reason": self.reason,
            "succeeded": self.succeeded,
            "failed": self.failed,
            "terminated": self.terminated,
            "started_at": self.started_at,
            "completed_at": self.completed_at,
        }


def stage_end_from(decoded: Mapping[str, Any]) -> StageEnd:
    """The record from JSON that was decoded already; also of one that was written with a stop mark."""
    return msgspec.convert(decoded, StageEnd)


def skipped(stage_id: str, index: int, needed: str, completed: float) -> StageEnd:
    """A stage that never began, because another did not complete."""
    reason = f"it needs stage {needed!r}, which was not completed"
    return StageEnd(stage_id, index, 1, "terminated", SKIPPED, reason, completed_at=rfc3339(completed))


def cancelled(stage_id: str, index: int, cause: str, completed: float) -> StageEnd:
    """A stage that was stopped before it began."""
    end = StageEnd(stage_id, index, 1, "terminated", completed_at=rfc3339(completed)).stopped(cause)
    return stage_end_from(msgspec.to_builtins(end))


def ended(
    stage_id: str, index: int, event_id: str, ending: Ending | None, *, started: float, completed: float, stop: str
) -> StageEnd:
    """A stage whose event has ended as `ending` says; `stop` is the cause if it was asked to end, else empty."""
    where, fields = ending or ("", {})
    outcome, cause, reason = _judge(where, fields, stop)
    return StageEnd(
        *(stage_id, index, 1, outcome, cause, reason),
        started_at=rfc3339(started),
        completed_at=fields.get("completed_at") or rfc3339(completed),
        event_id=event_id,
        succeeded=int(fields.get("succeeded", 0)),
        failed=int(fields.get("failed", 0)),
        terminated=int(fields.get("terminated", 0)),
    )


def _judge(where: str, fields: Mapping[str, str], stop: str) -> tuple[OutcomeWord, str, str]:
    if where == "results" and fields:
        return _judge_result(fields, stop)
    if where == "dlq" and fields:
        return "failed", fields.get("cause", "Unknown"), fields.get("reason", "its event was refused")
    known = {"results": "its result was trimmed", "dlq": "its dead letter was removed"}
    return "failed", GONE, f"nobody knows how it ended: {known.get(where, 'its event is gone')}"


def _judge_result(fields: Mapping[str, str], stop: str) -> tuple[OutcomeWord, str, str]:
    """Completed where all workers succeeded; cancelled where workers were stopped, and none failed or the stage was
    asked to end; else failed. The cause is that of the first worker that ended so.
    """
    if fields["status"] == "succeeded":
        return "succeeded", "", ""
    workers: list[dict[str, Any]] = msgspec.json.decode(fields.get("workers", "[]"))
    is_stopped = fields["terminated"] != "0" and (stop or fields["failed"] == "0")
    word: OutcomeWord = "terminated" if is_stopped else "failed"
    first = next((worker for worker in workers if worker["outcome"] == word), {})
    count, all_ = fields[word], fields["requested"]
    reason = f"{count} of {all_} workers {'were stopped' if word == 'terminated' else 'failed'}"
    return word, first.get("cause", "Unknown"), f"{reason}: {first.get('reason') or 'no reason is known'}"


def worker_names(ending: Ending | None) -> tuple[str, ...]:
    """The pods that a stage's result names."""
    where, fields = ending or ("", {})
    workers = msgspec.json.decode(fields.get("workers", "[]")) if where == "results" else []
    return tuple(worker["name"] for worker in workers)


def pipeline_result(
    event: Event, pipeline: Pipeline, ends: Sequence[StageEnd], *, started: float | None, completed: float
) -> tuple[tuple[str, str], ...]:
    """The entry for the results stream; its numbers are of stages, skipped ones are those that the others leave."""
    states = [end.state for end in ends]
    pairs = (
        ("v", RESULT_VERSION),
        ("event_id", event.id),
        ("type", event.type),
        ("task_id", event.task_id),
        ("status", status_of(states)),
        ("requested", str(len(ends))),
        ("succeeded", str(states.count("completed"))),
        ("failed", str(states.count("failed"))),
        ("terminated", str(states.count("cancelled"))),
        ("started_at", rfc3339(started)),
        ("completed_at", rfc3339(completed)),
        ("workers", "[]"),
        ("pipeline_id", pipeline.pipeline_id),
        ("stages", msgspec.json.encode([end.shown() for end in ends]).decode()),
    )
    extra = (("replay_of", event.replay_of), *event.context.pairs())
    return (*pairs, *((name, value) for name, value in extra if value))
