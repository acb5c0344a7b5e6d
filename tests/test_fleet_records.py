"""What a record says of every pod that a real API server was recorded with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottoscaler.fleet import PodRecord

RECORDINGS = Path(__file__).parent / "recordings"


def recorded(name: str) -> list[dict[str, Any]]:
    """The pods of one recording, in the order they were seen."""
    items: list[dict[str, Any]] = json.loads((RECORDINGS / f"kube-{name}-pods.json").read_text())
    return [item for item in items if item["object"].get("kind") == "Pod" and item["type"] != "BOOKMARK"]


def last_record(name: str, pod: str) -> PodRecord:
    """The record of the last state in which a pod was recorded."""
    states = [item for item in recorded(name) if item["object"]["metadata"].get("name") == pod]
    last = sorted(states, key=lambda item: int(item["object"]["metadata"]["resourceVersion"]))[-1]
    return PodRecord.from_pod(last["object"], gone=last["type"] == "DELETED")


ENDS: dict[tuple[str, str], dict[str, Any]] = {
    ("life", "life-ok"): {"phase": "Succeeded", "exit_code": 0, "gone": True, "deleting": True},
    ("life", "life-fail"): {"phase": "Failed", "exit_code": 3, "term_reason": "Error", "gone": False},
    ("failures", "f-image"): {"phase": "Pending", "waiting_reason": "ImagePullBackOff", "started_at": None},
    ("failures", "f-cmd"): {"phase": "Failed", "exit_code": 128, "term_reason": "StartError", "started_at": None},
    ("failures", "f-oom"): {"phase": "Failed", "exit_code": 137, "term_reason": "Error"},
    ("failures", "f-unsched"): {"scheduled": False, "exit_code": None, "node": ""},
    ("failures", "f-config"): {"waiting_reason": "CreateContainerConfigError", "scheduled": True},
    ("failures", "f-init"): {"phase": "Failed", "exit_code": None, "waiting_reason": "PodInitializing"},
    ("more-failures", "invalid-image-name"): {"waiting_reason": "InvalidImageName"},
    ("more-failures", "never-pull"): {"waiting_reason": "ErrImageNeverPull"},
    ("more-failures", "oom-pid1"): {"exit_code": 137, "term_reason": "OOMKilled", "phase": "Failed"},
    ("more-failures", "deadline"): {"exit_code": 137, "reason": "DeadlineExceeded", "phase": "Failed"},
    ("more-failures", "killed"): {"exit_code": 137, "term_reason": "Error", "reason": ""},
    ("more-failures", "liveness"): {"exit_code": 137, "term_reason": "Error", "reason": ""},
    ("more-failures", "missing-secret-key"): {"waiting_message": 'secret "none" not found'},
    ("more-failures", "missing-volume-secret"): {"waiting_reason": "ContainerCreating", "scheduled": True},
    ("more-failures", "missing-claim"): {"scheduled": False, "waiting_reason": ""},
    ("more-failures", "out-of-cpu"): {"phase": "Failed", "reason": "OutOfcpu", "exit_code": None},
    ("more-failures", "selector-on-node"): {"phase": "Failed", "reason": "NodeAffinity", "exit_code": None},
    ("more-failures", "workdir-is-file"): {"exit_code": 128, "term_reason": "StartError", "started_at": None},
    ("more-failures", "root-refused"): {"waiting_reason": "CreateContainerConfigError"},
    ("more-failures", "init-missing-image"): {"waiting_reason": "ErrImagePull", "init_failure": None},
    ("more-failures", "two-containers"): {"phase": "Succeeded", "exit_code": 0},
    ("more-failures", "sidecar"): {"phase": "Succeeded", "exit_code": 0, "init_failure": None},
    ("more-failures", "evict-me"): {"disruption": "EvictionByEvictionAPI", "gone": True, "phase": "Failed"},
    ("more-failures", "strip-me"): {"phase": "Running", "gone": False, "exit_code": None},
    ("platform", "node-lost"): {"disruption": "DeletionByTaintManager", "deleting": True},
}


@pytest.mark.parametrize(("recording", "pod"), ENDS, ids=lambda value: value)
def test_the_last_recorded_state_is_read(recording: str, pod: str) -> None:
    """Each recorded way to end or to hang gives the fields that tell it from the others."""
    record = last_record(recording, pod)
    expected = ENDS[recording, pod]
    assert {name: getattr(record, name) for name in expected} == expected


def test_a_failed_init_container_is_named_with_its_exit_code() -> None:
    """The record says which init container failed, and how, where the worker never started."""
    record = last_record("failures", "f-init")
    assert record.init_failure is not None
    assert (record.init_failure[1] != 0, record.started_at) == (True, None)


def test_an_unschedulable_pod_says_why() -> None:
    """The scheduler's own sentence is kept."""
    assert "Insufficient cpu" in last_record("more-failures", "too-much-cpu").unschedulable_message


def test_the_container_ends_before_the_phase() -> None:
    """A record shows the exit code while the phase still says Running, as the kubelet reports it."""
    early = [
        PodRecord.from_pod(item["object"])
        for item in recorded("life")
        if item["object"]["metadata"]["name"] == "life-ok" and item["type"] == "MODIFIED"
    ]
    assert [record.phase for record in early if record.exit_code == 0][:2] == ["Running", "Succeeded"]


@pytest.mark.parametrize("recording", ["life", "failures", "more-failures", "platform"])
def test_every_recorded_pod_is_read(recording: str) -> None:
    """Name, uid, version, phase and creation time of every recorded pod come out as they went in."""
    for item in recorded(recording):
        pod, record = item["object"], PodRecord.from_pod(item["object"])
        metadata = pod["metadata"]
        assert (record.name, record.uid) == (metadata["name"], metadata["uid"])
        assert record.resource_version == int(metadata.get("resourceVersion", 0))
        assert record.phase == pod["status"]["phase"]
        assert record.created_at is not None
        assert record.deleting == ("deletionTimestamp" in metadata)
        if record.started_at and record.finished_at:
            assert record.created_at - 1 <= record.started_at <= record.finished_at


def test_identity_is_read_from_labels_and_the_task_id_from_its_annotation() -> None:
    """Event, index, attempt, era and instance are labels; the whole task id is an annotation."""
    labels = {f"ottoscaler/{name}": value for name, value in [("event-id", "7-0"), ("index", "3"), ("attempt", "2")]}
    labels |= {"ottoscaler/era": "e1", "ottoscaler/instance": "i1", "ottoscaler/task-id": "cut"}
    record = PodRecord.from_pod({"metadata": {"labels": labels, "annotations": {"ottoscaler/task-id": "cut short"}}})
    assert (record.event_id, record.index, record.attempt) == ("7-0", 3, 2)
    assert (record.era, record.instance, record.task_id) == ("e1", "i1", "cut short")


def test_the_judged_container_is_the_one_named_worker_else_the_first_of_the_spec() -> None:
    """Statuses come sorted by name, so the spec's order decides, and the name `worker` before it."""
    statuses = [{"name": name, "state": {"terminated": {"exitCode": code}}} for name, code in [("a", 1), ("b", 2)]]
    pod: dict[str, Any] = {
        "spec": {"containers": [{"name": "b"}, {"name": "a"}]},
        "status": {"containerStatuses": statuses},
    }
    assert PodRecord.from_pod(pod).exit_code == 2
    pod["spec"]["containers"].append({"name": "worker"})
    assert PodRecord.from_pod(pod).exit_code is None


KEYS = """metadata spec status labels name state terminated waiting running exitCode containers conditions type reason
containerStatuses initContainerStatuses initContainers creationTimestamp resourceVersion deletionTimestamp
activeDeadlineSeconds startTime deletionGracePeriodSeconds"""


def _nested(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return inner | st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS.split()), inner, max_size=5)


JSON = _nested(_nested(_nested(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5))))


@given(st.dictionaries(st.sampled_from(["metadata", "spec", "status", "x"]), JSON))
def test_any_json_gives_a_record(pod: dict[str, Any]) -> None:
    """Whatever an API might send, reading it gives a record and never an error."""
    assert isinstance(PodRecord.from_pod(pod), PodRecord)
