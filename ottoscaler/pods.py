"""What we keep of a pod: one slim record, read from the v1 Pod that the API sends, and the labels that make a pod ours.

Pure words; knows nothing of HTTP. What a record means for its worker is judged elsewhere.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

WORKER_CONTAINER = "worker"
MANAGED_BY_LABEL = "managed-by"
INSTANCE_LABEL = "ottoscaler/instance"
ERA_LABEL = "ottoscaler/era"
EVENT_LABEL = "ottoscaler/event-id"
INDEX_LABEL = "ottoscaler/index"
ATTEMPT_LABEL = "ottoscaler/attempt"
TASK_LABEL = "ottoscaler/task-id"
"""Also an annotation, which holds the whole id where it is no label value."""
LONGEST_SECONDS = 2**31

Pod = Mapping[str, Any]
"""A v1 Pod as the API sends it."""


class PodRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What we keep of a pod. Times are seconds since 1970, None where not (yet) known; empty text where not said.

    Container facts are those of the judged container: the one named `worker`, else the pod's first.
    """

    name: str
    uid: str = ""
    resource_version: int = 0
    event_id: str = ""
    index: int = 0
    attempt: int = 0
    task_id: str = ""
    era: str = ""
    instance: str = ""
    phase: str = ""
    reason: str = ""
    message: str = ""
    node: str = ""
    pod_ip: str = ""
    created_at: float | None = None
    started_at: float | None = None  # of the container; stays None where it never ran
    finished_at: float | None = None
    exit_code: int | None = None
    term_reason: str = ""
    term_message: str = ""
    waiting_reason: str = ""  # of an init container where that is what the judged one waits for
    waiting_message: str = ""
    scheduled: bool = False
    unschedulable_message: str = ""
    deleting: bool = False  # a deletionTimestamp is set
    deleted_at: float | None = None  # the earliest that its delete was asked for
    gone_by: float | None = None  # when the grace of that delete is over
    deadline_at: float | None = None  # by the node's clock, when activeDeadlineSeconds are over
    grace: float = 30.0  # seconds between SIGTERM and SIGKILL
    has_sandbox: bool = False  # volumes are mounted and the network is there: containers can start
    disruption: str = ""  # reason of the DisruptionTarget condition
    init_failure: tuple[str, int] | None = None  # name and exit code of an init container that failed
    gone: bool = False
    is_unseen: bool = False  # gone from a list: nobody saw its last state, and the rest is older

    @classmethod
    def from_pod(cls, pod: Pod, *, gone: bool = False) -> PodRecord:
        """Read a pod; whatever is missing or of an odd shape gives the field's empty value, never an error."""
        metadata, spec, status = _map(pod, "metadata"), _map(pod, "spec"), _map(pod, "status")
        labels = _map(metadata, "labels")
        return cls(
            name=_text(metadata, "name"),
            uid=_text(metadata, "uid"),
            resource_version=_whole(metadata.get("resourceVersion")),
            event_id=sys.intern(_text(labels, EVENT_LABEL)),
            index=_whole(labels.get(INDEX_LABEL)),
            attempt=_whole(labels.get(ATTEMPT_LABEL)),
            task_id=sys.intern(_text(_map(metadata, "annotations"), TASK_LABEL) or _text(labels, TASK_LABEL)),
            era=sys.intern(_text(labels, ERA_LABEL)),
            instance=sys.intern(_text(labels, INSTANCE_LABEL)),
            phase=sys.intern(_text(status, "phase")),
            reason=_text(status, "reason"),
            message=_text(status, "message"),
            node=sys.intern(_text(spec, "nodeName")),
            pod_ip=_text(status, "podIP"),
            created_at=_time(metadata.get("creationTimestamp")),
            deleting=bool(metadata.get("deletionTimestamp")),
            gone=gone,
            **_time_facts(metadata, spec, status),
            **_container_facts(spec, status),
            **_condition_facts(spec, status),
        )

    @property
    def is_final(self) -> bool:
        """Whether the pod has reached its last phase."""
        return self.phase in ("Succeeded", "Failed")


def _map(parent: Pod, key: str) -> Pod:
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def _maps(parent: Pod, key: str) -> list[Pod]:
    value = parent.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(parent: Pod, key: str) -> str:
    value = parent.get(key)
    return value if isinstance(value, str) else ""


def _whole(value: object) -> int:
    if value is None:
        return 0
    try:
        return int(value)  # type: ignore[call-overload, no-any-return]  # what is no number raises, as caught below
    except (TypeError, ValueError, OverflowError):
        return 0


def _time(value: object) -> float | None:
    """Seconds of an RFC 3339 time; None for none, and for 1970, which the kubelet writes where nothing ever ran."""
    if not isinstance(value, str):
        return None
    try:
        return datetime.fromisoformat(value).timestamp() or None
    except ValueError:
        return None


def _time_facts(metadata: Pod, spec: Pod, status: Pod) -> dict[str, Any]:
    """When the pod's time is over; a deletionTimestamp is the end of the grace, not its beginning.

    The kubelet's last delete sets both anew, with a grace of 0: then the pod's own grace tells the earliest beginning.
    """
    gone_by, started = _time(metadata.get("deletionTimestamp")), _time(status.get("startTime"))
    limit, leave, grace = (
        float(min(max(0, _whole(given)), LONGEST_SECONDS))
        for given in (
            spec.get("activeDeadlineSeconds"),
            metadata.get("deletionGracePeriodSeconds"),
            spec.get("terminationGracePeriodSeconds", 30),
        )
    )
    return {
        "gone_by": gone_by,
        "deleted_at": None if gone_by is None else gone_by - (leave or grace),
        "deadline_at": started + limit if started and limit else None,
        "grace": grace,
    }


def _container_facts(spec: Pod, status: Pod) -> dict[str, Any]:
    states = {_text(item, "name"): _map(item, "state") for item in _maps(status, "containerStatuses")}
    names = [_text(item, "name") for item in _maps(spec, "containers")] or list(states)
    judged = states.get(WORKER_CONTAINER if WORKER_CONTAINER in names else next(iter(names), ""), {})
    ended, running, waiting = _map(judged, "terminated"), _map(judged, "running"), _map(judged, "waiting")
    facts: dict[str, Any] = {
        "started_at": _time(ended.get("startedAt") or running.get("startedAt")),
        "finished_at": _time(ended.get("finishedAt")),
        "exit_code": _whole(ended.get("exitCode")) if ended else None,
        "term_reason": _text(ended, "reason"),
        "term_message": _text(ended, "message"),
    }
    return facts | _waiting_facts(waiting, spec, status)


def _waiting_facts(waiting: Pod, spec: Pod, status: Pod) -> dict[str, Any]:
    """What the container waits for, and which init container failed (a sidecar ended with its pod is no failure)."""
    sidecars = {_text(c, "name") for c in _maps(spec, "initContainers") if c.get("restartPolicy") == "Always"}
    failure: tuple[str, int] | None = None
    for init in _maps(status, "initContainerStatuses"):
        state, name = _map(init, "state"), _text(init, "name")
        code = _whole(_map(state, "terminated").get("exitCode"))
        if code and name not in sidecars:
            failure = failure or (name, code)
        blocked = _map(state, "waiting")
        if _text(blocked, "reason") not in ("", "PodInitializing") and _text(waiting, "reason") == "PodInitializing":
            waiting = blocked
    return {
        "waiting_reason": _text(waiting, "reason"),
        "waiting_message": _text(waiting, "message"),
        "init_failure": failure,
    }


def _condition_facts(spec: Pod, status: Pod) -> dict[str, Any]:
    conditions = {_text(item, "type"): item for item in _maps(status, "conditions")}
    scheduled, target = conditions.get("PodScheduled", {}), conditions.get("DisruptionTarget", {})
    return {
        "scheduled": scheduled.get("status") == "True" or bool(_text(spec, "nodeName")),
        "unschedulable_message": _text(scheduled, "message") if scheduled.get("status") == "False" else "",
        "has_sandbox": conditions.get("PodReadyToStartContainers", {}).get("status") == "True",
        "disruption": _text(target, "reason") if target.get("status") == "True" else "",
    }
