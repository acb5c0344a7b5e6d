"""One worker as GetWorkerStatus shows it: read from its pod while that is there, from its outcome once it has ended.

Pure. Workers stand in the order of their events and, within one, of their indices; that order never changes, so that
pages can follow each other while workers come and go.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from ottoscaler.fleet import PodRecord
from ottoscaler.outcomes import rfc3339
from ottoscaler.pods import (
    ATTEMPT_LABEL,
    ERA_LABEL,
    EVENT_LABEL,
    INDEX_LABEL,
    INSTANCE_LABEL,
    MANAGED_BY_LABEL,
    TASK_LABEL,
)
from ottoscaler.rpc.door import InvalidCall, WorkerState, WorkerStatus
from ottoscaler.stream.entry_id import Id, parse_id

Place = tuple[int, int, int, str]
"""Where a worker stands among all: the two numbers of its event's id, and its index. Its pod's name, which changes when
it is run again, counts only where somebody changed the labels that say the rest.
"""
NOWHERE = (0, 0)
OF_PHASE: dict[str, WorkerState] = {
    "Pending": "pending",
    "Running": "running",
    "Succeeded": "succeeded",
    "Failed": "failed",
}
STARTING = ("", "ContainerCreating", "PodInitializing")


class Ended(NamedTuple):
    """One worker's outcome, as progress and results have it, with the event that it belongs to; of a worker that waits
    to be run again that of its last attempt.
    """

    event_id: str
    task_id: str
    outcome: Mapping[str, Any]

    @property
    def will_run_again(self) -> bool:
        """Whether another attempt follows."""
        return bool(self.outcome.get("retry_at"))


class Row(NamedTuple):
    """A worker and its place. All that a question shows of it is read only where it is shown: `ended` for one whose
    outcome is known, `record` for one whose pod is there.
    """

    place: Place
    pod_name: str
    status: WorkerState
    ended: Ended | None
    record: PodRecord | None

    def shown(self) -> WorkerStatus:
        """The worker, as an answer has it."""
        if self.ended is not None:
            return _of_outcome(self.ended, self.record, self.status)
        assert self.record is not None
        return _of_pod(self.record, self.status)

    def is_before(self, record: PodRecord) -> bool:
        """Whether it waited for the attempt that this pod is."""
        return self.ended is not None and self.ended.will_run_again and self.ended.outcome["attempt"] < record.attempt


def row_of_pod(record: PodRecord) -> Row:
    """A worker whose pod is there and whose outcome is not known yet."""
    status: WorkerState = OF_PHASE.get(record.phase, "running" if record.started_at else "pending")
    return Row(_place(record.event_id, record.index, record.name), record.name, status, None, record)


def row_of_outcome(ended: Ended, record: PodRecord | None) -> Row:
    """A worker that has ended, or waits to be run again; `record` is its pod, where that is still there."""
    outcome = ended.outcome
    place = _place(ended.event_id, outcome["index"], outcome["name"])
    status: WorkerState = "pending" if ended.will_run_again else outcome["outcome"]
    return Row(place, outcome["name"], status, ended, record)


def _of_pod(record: PodRecord, status: WorkerState) -> WorkerStatus:
    return WorkerStatus(
        pod_name=record.name,
        status=status,
        task_id=record.task_id,
        created_at=rfc3339(record.created_at),
        started_at=rfc3339(record.started_at),
        completed_at=rfc3339(record.finished_at),
        node_name=record.node,
        pod_ip=record.pod_ip,
        labels=_labels(record),
        error_message=_trouble_of(record, status),
    )


def _of_outcome(ended: Ended, record: PodRecord | None, status: WorkerState) -> WorkerStatus:
    outcome = ended.outcome
    times = {} if ended.will_run_again else {name: outcome.get(name, "") for name in ("started_at", "completed_at")}
    cause, reason = outcome.get("cause", ""), outcome.get("reason", "")
    return WorkerStatus(
        pod_name=outcome["name"],
        status=status,
        task_id=ended.task_id,
        created_at=rfc3339(record.created_at if record else None),
        node_name=record.node if record else "",
        pod_ip=record.pod_ip if record else "",
        labels=_labels(record) if record else _labels_of(ended),
        error_message=f"{cause}: {reason}" if cause else "",
        **times,
    )


def page_token(place: Place) -> str:
    """The text by which a client asks for what comes behind a place."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()


def place_of(token: str) -> Place:
    """The place behind which a page begins. Raises `InvalidCall` for what is no token of ours."""
    try:
        place: Place = msgspec.json.decode(base64.urlsafe_b64decode(token), type=Place)
    except (ValueError, msgspec.MsgspecError) as error:
        raise InvalidCall("page_token", token, "the next_page_token of an answer") from error
    return place


def _place(event_id: str, index: int, name: str) -> Place:
    numbers = _numbers(event_id)
    return *numbers, index, name if numbers == NOWHERE else ""


@lru_cache(maxsize=4096)
def _numbers(event_id: str) -> Id:
    try:
        return parse_id(event_id)
    except ValueError:  # somebody changed the label
        return NOWHERE


def _labels(record: PodRecord) -> dict[str, str]:
    return {
        MANAGED_BY_LABEL: "ottoscaler",
        INSTANCE_LABEL: record.instance,
        ERA_LABEL: record.era,
        EVENT_LABEL: record.event_id,
        INDEX_LABEL: str(record.index),
        ATTEMPT_LABEL: str(record.attempt),
        TASK_LABEL: record.task_id,
    }


def _labels_of(ended: Ended) -> dict[str, str]:
    return {
        MANAGED_BY_LABEL: "ottoscaler",
        EVENT_LABEL: ended.event_id,
        INDEX_LABEL: str(ended.outcome["index"]),
        ATTEMPT_LABEL: str(ended.outcome["attempt"]),
        TASK_LABEL: ended.task_id,
    }


def _trouble_of(record: PodRecord, state: WorkerState) -> str:
    if state == "failed":
        exit_code = "" if record.exit_code is None else f"exit code {record.exit_code}"
        return ": ".join(filter(None, (record.reason or record.term_reason, record.message or exit_code)))
    if state == "pending" and record.unschedulable_message:
        return f"Unschedulable: {record.unschedulable_message}"
    if state == "pending" and record.waiting_reason not in STARTING:
        return ": ".join(filter(None, (record.waiting_reason, record.waiting_message)))
    return ""
