"""A pod in three words, as kubectl's columns show it: READY, STATUS, RESTARTS."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any


def pod_ready(pod: dict[str, Any]) -> str:
    """How many containers are ready, of how many; sidecars count."""
    spec, status = pod["spec"], pod.get("status", {})
    sidecars = {c["name"] for c in spec.get("initContainers", []) if c.get("restartPolicy") == "Always"}
    states = [
        *status.get("containerStatuses", []),
        *(state for state in status.get("initContainerStatuses", []) if state["name"] in sidecars),
    ]
    ready = sum(1 for state in states if state.get("ready") and "running" in state.get("state", {}))
    return f"{ready}/{len(spec['containers']) + len(sidecars)}"


def pod_restarts(pod: dict[str, Any], now: datetime, age: Callable[[str, datetime], str]) -> str:
    """How often containers were started again, and when last."""
    states = pod.get("status", {}).get("containerStatuses", [])
    restarts = sum(state.get("restartCount", 0) for state in states)
    ends = [(state.get("lastState", {}).get("terminated") or {}).get("finishedAt") for state in states]
    last = max(filter(None, ends), default=None)
    return f"{restarts} ({age(last, now)} ago)" if restarts and last else str(restarts)


def pod_status(pod: dict[str, Any]) -> str:
    """The one word for what the pod is doing."""
    status = pod.get("status", {})
    word = status.get("reason") or status.get("phase", "")
    word = _initializing(pod) or _running_word(status, word)
    if "deletionTimestamp" in pod["metadata"]:
        if status.get("reason") == "NodeLost":
            return "Unknown"
        if status.get("phase") not in ("Succeeded", "Failed"):
            return "Terminating"
    return str(word)


def _initializing(pod: dict[str, Any]) -> str:
    """What the first unfinished init container does, or "" where all have done their part."""
    planned = {c["name"]: c for c in pod["spec"].get("initContainers", [])}
    for index, state in enumerate(pod.get("status", {}).get("initContainerStatuses", [])):
        now = state.get("state", {})
        ended = now.get("terminated")
        if ended and ended["exitCode"] == 0:
            continue
        if planned.get(state["name"], {}).get("restartPolicy") == "Always" and state.get("started"):
            continue
        if ended:
            return f"Init:{_end_word(ended)}"
        waiting = (now.get("waiting") or {}).get("reason", "")
        if waiting and waiting != "PodInitializing":
            return f"Init:{waiting}"
        return f"Init:{index}/{len(planned)}"
    return ""


def _running_word(status: dict[str, Any], word: str) -> str:
    is_running = False
    for state in reversed(status.get("containerStatuses", [])):
        now = state.get("state", {})
        if (now.get("waiting") or {}).get("reason"):
            word = now["waiting"]["reason"]
        elif now.get("terminated"):
            word = _end_word(now["terminated"])
        elif "running" in now and state.get("ready"):
            is_running = True
    if word == "Completed" and is_running:
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))
        return "Running" if ready else "NotReady"
    return word


def _end_word(ended: dict[str, Any]) -> str:
    if ended.get("reason"):
        return str(ended["reason"])
    return f"Signal:{ended['signal']}" if ended.get("signal") else f"ExitCode:{ended['exitCode']}"
