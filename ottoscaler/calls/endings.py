"""What is answered of an event: from its progress while it lives, from its result or its request id afterwards. Pure.

A worker's name in an answer is that of its first pod, whatever became of that one, so that who asks again is told the
same names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import msgspec

from ottoscaler.outcomes import rfc3339
from ottoscaler.rpc.door import ScaleAnswer, ScaleStatus
from ottoscaler.stream.progress import Progress
from ottoscaler.stream.requests import Request

NamePod = Callable[[str, int, int], str]
Fields = Mapping[str, str]
OF_RESULT: dict[str, ScaleStatus] = {"succeeded": "success", "partial": "partial_success"}
MOST_REASONS = 3


def accepted_answer(progress: Progress, name_pod: NamePod) -> ScaleAnswer:
    """Of a live event every worker of which has a pod, or will have none."""
    created = {index for index, _ in progress.accepted}
    missing = [progress.outcomes[index] for index in sorted(progress.outcomes) if index not in created]
    last = max((accepted["at"] for accepted in progress.accepted.values()), default=progress.registered)
    return _created(
        progress.event_id,
        _names(progress.event_id, progress.planned, created, name_pod),
        progress.planned,
        _reasons(missing),
        started_at=rfc3339(progress.started / 1000 if progress.started else None),
        completed_at=rfc3339(last / 1000),
    )


def ended_answer(event_id: str, fields: Fields, name_pod: NamePod, *, is_completion_asked: bool) -> ScaleAnswer:
    """Of a scale_up that has a result: how its workers ended, or (what else was asked) whether they had pods."""
    planned, workers = int(fields["requested"]), _workers(fields)
    not_created = frozenset(msgspec.json.decode(fields.get("not_created", "[]"), type=list[int]))
    names = _names(event_id, planned, set(range(1, planned + 1)) - not_created, name_pod)
    started_at, completed_at = fields["started_at"], fields["completed_at"]
    if not is_completion_asked:
        reasons = _reasons(worker for worker in workers if worker["index"] in not_created)
        return _created(event_id, names, planned, reasons, started_at, completed_at)
    counts = ", ".join(
        f"{fields[word]} {word}" for word in ("succeeded", "failed", "terminated") if fields[word] != "0"
    )
    reasons = _reasons(worker for worker in workers if worker["outcome"] != "succeeded")
    return ScaleAnswer(
        status=OF_RESULT.get(fields["status"], "failed"),
        message=f"event {event_id}: {counts or 'none'} of {planned}{reasons}",
        worker_pod_names=names,
        processed_count=len(names),
        started_at=started_at,
        completed_at=completed_at,
    )


def stopped_answer(event_id: str, fields: Fields) -> ScaleAnswer:
    """Of a scale_down that has a result."""
    names = tuple(str(worker["name"]) for worker in _workers(fields))
    return ScaleAnswer(
        status=OF_RESULT.get(fields["status"], "failed"),
        message=f"event {event_id}: {len(names)} stopped",
        worker_pod_names=names,
        processed_count=len(names),
        started_at=fields["started_at"],
        completed_at=fields["completed_at"],
    )


def refused_answer(event_id: str, fields: Fields, request: Request | None, name_pod: NamePod) -> ScaleAnswer:
    """Of an event that is a dead letter; where it had begun, with the pods that it had until then."""
    names = _names_of(request, name_pod)
    said = f"{fields['cause']}: {fields['reason']}" if fields else "its dead letter was removed since"
    return ScaleAnswer(
        status="failed",
        message=f"event {event_id} was refused: {said}",
        worker_pod_names=names,
        processed_count=len(names),
        completed_at=fields.get("failed_at", ""),
    )


def kept_result(request: Request) -> dict[str, str]:
    """What a request id keeps of a result that was trimmed, as that result's fields."""
    kept = msgspec.json.decode(request.kept, type=dict[str, str])
    return kept | {"not_created": msgspec.json.encode(request.not_created).decode()}


TRIMMED = "its result was trimmed since"


def forgotten_answer(event_id: str, request: Request | None, name_pod: NamePod, why: str = TRIMMED) -> ScaleAnswer:
    """Of an event that has ended and whose result cannot be read; its request id still says which workers had pods."""
    if request is None or request.planned is None:
        return ScaleAnswer(status="failed", message=f"event {event_id} has ended, and {why}")
    names = _names_of(request, name_pod)
    return _created(event_id, names, request.planned, f"; {why}")


def written_by_newer(version: str) -> str:
    """Why an ending cannot be read that is there."""
    return f"how was written by a newer version ({version}), which this replica cannot read"


def lost_answer(event_id: str) -> ScaleAnswer:
    """Of an event that Redis knows nothing of."""
    why = "its entry was trimmed from the stream before anyone read it, or Redis was emptied"
    return ScaleAnswer(status="failed", message=f"event {event_id} is lost: {why}")


def _created(
    event_id: str,
    names: tuple[str, ...],
    planned: int,
    reasons: str,
    started_at: str = "",
    completed_at: str = "",
) -> ScaleAnswer:
    status: ScaleStatus = "success" if len(names) >= planned else "partial_success" if names else "failed"
    return ScaleAnswer(
        status=status,
        message=f"event {event_id}: {len(names)} of {planned} workers accepted{reasons}",
        worker_pod_names=names,
        processed_count=len(names),
        started_at=started_at,
        completed_at=completed_at,
    )


def _names(event_id: str, planned: int, created: Collection[int], name_pod: NamePod) -> tuple[str, ...]:
    return tuple(name_pod(event_id, index, 1) for index in range(1, planned + 1) if index in created)


def _names_of(request: Request | None, name_pod: NamePod) -> tuple[str, ...]:
    if request is None or request.planned is None:
        return ()
    created = set(range(1, request.planned + 1)) - set(request.not_created)
    return _names(request.event_id, request.planned, created, name_pod)


def _workers(fields: Fields) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = msgspec.json.decode(fields["workers"])
    return found


def _reasons(ends: Iterable[Mapping[str, Any]]) -> str:
    """The first of what went wrong, each once: `; Cause: sentence`."""
    said = dict.fromkeys(f"{end.get('cause', '')}: {end.get('reason', '')}" for end in ends if end.get("cause"))
    more = f"; and {len(said) - MOST_REASONS} other reasons" if len(said) > MOST_REASONS else ""
    return "".join(f"; {reason}" for reason in list(said)[:MOST_REASONS]) + more
