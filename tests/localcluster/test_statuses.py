"""Statuses computed from container states, beside those of a recorded cluster."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from ottoscaler.localcluster.quantities import pod_resources
from ottoscaler.localcluster.statuses import (
    ContainerState,
    PodState,
    implied_phase,
    initial_containers,
    pod_status,
    rejected_status,
)

Json = dict[str, Any]
RECORDED: dict[str, Json] = json.loads((Path(__file__).parent.parent / "recordings" / "status-pods.json").read_text())


def state_of(recorded: Json) -> ContainerState:
    """What a kubelet knew when it wrote this entry of containerStatuses."""
    return ContainerState(
        recorded["state"],
        recorded["lastState"],
        recorded["restartCount"],
        recorded.get("containerID", ""),
        recorded["ready"],
    )


def kubelet_changes() -> list[Any]:
    """Every recorded status that the kubelet wrote, with the pod as it was before."""
    steps = []
    for name, case in RECORDED.items():
        before = case["created"]
        for number, change in enumerate(case["changes"]):
            pod = copy.deepcopy(before)
            conditions = change["status"].get("conditions", [])
            if "containerStatuses" in change["status"] and conditions[-1]["type"] == "PodScheduled":
                pod["metadata"]["generation"] = change["status"]["observedGeneration"]
                if "node-lost" not in name:  # there the node controller, too, wrote conditions
                    steps.append(pytest.param(name, pod, change["status"], id=f"{name}-{number}"))
            before = pod | {"status": change["status"]}
    return steps


@pytest.mark.parametrize(("name", "pod", "recorded"), kubelet_changes())
def test_status_is_the_recorded_one(name: str, pod: Json, recorded: Json) -> None:
    """From the same container states, phase and addresses comes the recorded status, field by field."""
    statuses = [*recorded.get("initContainerStatuses", []), *recorded["containerStatuses"]]
    conditions = {condition["type"]: condition for condition in recorded["conditions"]}
    failing = name == "deadline" and conditions["Ready"].get("reason") == "PodFailed"
    known = PodState(
        containers={status["name"]: state_of(status) for status in statuses},
        start_time=recorded["startTime"],
        phase=recorded["phase"],
        sandbox_ready=conditions["PodReadyToStartContainers"]["status"] == "True",
        pod_ip=recorded.get("podIP", ""),
        reason=recorded.get("reason", ""),
        message=recorded.get("message", ""),
        failing=failing,
    )
    digest = next((status["imageID"] for status in statuses if status["imageID"]), "")
    images = {"busybox:latest": ("docker.io/library/busybox:latest", digest)}
    computed = pod_status(pod, known, now="now", host_ip=recorded["hostIP"], images=images)
    assert normal(computed) == normal(recorded)


def normal(status: Json) -> Json:
    """Without the times of transitions, and without the memory limit of 2**63 that some recorded pods show."""
    status = copy.deepcopy(status)
    for condition in status["conditions"]:
        assert condition.pop("lastTransitionTime")
    limits = status["resources"].get("limits", {})
    if limits.get("memory") == "9007199254740988Ki":
        del status["resources"]["limits"]
    return status


def test_transition_times_change_with_the_status_alone() -> None:
    """A condition keeps its lastTransitionTime until its status flips."""
    case = RECORDED["life-ok"]
    spec = case["created"]["spec"]
    waiting = PodState(initial_containers(spec), start_time="t0")
    pod = copy.deepcopy(case["created"])
    pod["status"] = pod_status(pod, waiting, now="t1", host_ip="h", images={})
    running = PodState({"worker": waiting.containers["worker"].start("id", "t2")}, start_time="t0", phase="Running")
    after = pod_status(pod, running, now="t2", host_ip="h", images={})
    times = {condition["type"]: condition["lastTransitionTime"] for condition in after["conditions"]}
    assert times == {
        "PodReadyToStartContainers": "t1",
        "Initialized": "t1",
        "Ready": "t2",
        "ContainersReady": "t2",
        "PodScheduled": "t1",
    }


@pytest.mark.parametrize("name", ["out-of-cpu", "selector-on-node"])
def test_refused_by_its_node_looks_as_recorded(name: str) -> None:
    """A pod that its node refuses fails at once, without conditions or containers."""
    created, recorded = RECORDED[name]["created"], RECORDED[name]["changes"][0]["status"]
    computed = rejected_status(
        created["status"],
        reason=recorded["reason"],
        message=recorded["message"].removeprefix("Pod was rejected: "),
        generation=1,
        start_time=recorded["startTime"],
    )
    assert computed == recorded


@pytest.mark.parametrize(
    ("policy", "codes", "phase"),
    [
        ("Never", [0, 0], "Succeeded"),
        ("Never", [0, 1], "Failed"),
        ("Never", [None, 1], "Running"),
        ("OnFailure", [0, 0], "Succeeded"),
        ("OnFailure", [0, 1], "Running"),
        ("Always", [0, 0], "Running"),
    ],
)
def test_phase_of_ended_containers(policy: str, codes: list[int | None], phase: str) -> None:
    """The phase that exit codes imply depends on the restart policy; None is a container that still runs."""
    names = [f"c{number}" for number in range(len(codes))]
    spec = {"restartPolicy": policy, "containers": [{"name": name, "image": "busybox"} for name in names]}
    states = {}
    for name, code in zip(names, codes, strict=True):
        running = initial_containers(spec)[name].start("id", "t")
        states[name] = running if code is None else running.end(code, "t")
    assert implied_phase(spec, states) == phase


def test_resources_add_up() -> None:
    """One container's quantities stay as written, several are added."""
    one = {"resources": {"requests": {"cpu": "1500m", "memory": "32Mi"}}}
    assert pod_resources({"containers": [one]}, "requests") == {"cpu": "1500m", "memory": "32Mi"}
    two = {"resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}
    assert pod_resources({"containers": [one, two]}, "requests") == {"cpu": "2500m", "memory": "1056Mi"}
