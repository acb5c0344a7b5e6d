"""What we keep of the objects in a list: only what records and warnings are read from. Changes what it is given."""

from __future__ import annotations

from typing import Any

TOLD_CONDITIONS = frozenset({"PodScheduled", "PodReadyToStartContainers", "DisruptionTarget"})
TOLD_SPEC = ("nodeName", "activeDeadlineSeconds", "terminationGracePeriodSeconds")
TOLD_STATUS = ("phase", "reason", "message", "podIP", "startTime")
TOLD_EVENT = ("involvedObject", "reason", "message", "firstTimestamp", "lastTimestamp", "eventTime", "series")


def slim_pod(pod: dict[str, Any]) -> dict[str, Any]:
    """A pod without the parts that no record is read from: a whole one takes 20 kB of memory."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    pod["spec"] = {key: spec[key] for key in TOLD_SPEC if key in spec} | {
        "containers": _only(spec.get("containers"), "name"),
        "initContainers": _only(spec.get("initContainers"), "name", "restartPolicy"),
    }
    pod["status"] = {key: status[key] for key in TOLD_STATUS if key in status} | {
        "conditions": [each for each in status.get("conditions") or () if each.get("type") in TOLD_CONDITIONS],
        "containerStatuses": _only(status.get("containerStatuses"), "name", "state"),
        "initContainerStatuses": _only(status.get("initContainerStatuses"), "name", "state"),
    }
    pod.get("metadata", {}).pop("managedFields", None)
    return pod


def slim_event(event: dict[str, Any]) -> dict[str, Any]:
    """An event of the API without the parts that no warning is read from."""
    return {key: event.get(key) for key in TOLD_EVENT}


def _only(items: list[dict[str, Any]] | None, *keys: str) -> list[dict[str, Any]]:
    return [{key: each[key] for key in keys if key in each} for each in items or ()]
