"""Verdicts: what each pod that a real API server was recorded with means for its worker, and each refused create."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ottoscaler.causes import CAUSES
from ottoscaler.errors import OttoscalerError
from ottoscaler.kube.answers import error_of_answer
from ottoscaler.kube.requests import create_pod
from ottoscaler.pod_warnings import PodWarning
from ottoscaler.pods import PodRecord
from ottoscaler.verdicts import judge_end, judge_late, judge_refusal, judge_stuck, name_shortage
from tests.test_fleet_records import RECORDINGS, last_record, recorded

NOW = 1000.0


def warned(name: str) -> tuple[PodWarning, ...]:
    """The warnings that the kubelet was recorded with about a pod, as they came."""
    events = json.loads((RECORDINGS / "status-pods.json").read_text())[name]["events"]
    return tuple(read_warning(event) for event in events if event["type"] == "Warning")


def read_warning(event: dict[str, Any], seen: float = NOW) -> PodWarning:
    """One event of the API as the store reads it."""
    record = PodRecord.from_pod({"metadata": {"creationTimestamp": event["firstTimestamp"]}})
    later = PodRecord.from_pod({"metadata": {"creationTimestamp": event["lastTimestamp"]}})
    return PodWarning(event["reason"], event["message"], record.created_at or 0.0, later.created_at or 0.0, seen)


def states(recording: str, name: str) -> list[PodRecord]:
    """All recorded states of a pod, in their order."""
    found = [item for item in recorded(recording) if item["object"]["metadata"].get("name") == name]
    found.sort(key=lambda item: int(item["object"]["metadata"]["resourceVersion"]))
    return [PodRecord.from_pod(item["object"], gone=item["type"] == "DELETED") for item in found]


def pod(**fields: Any) -> PodRecord:
    """A pod that was never recorded, in the form in which the API documents it."""
    return msgspec.structs.replace(PodRecord(name="otto-agent-1", scheduled=True), **fields)


RECORDED_ENDS = {
    ("life", "life-ok"): ("", True),
    ("life", "life-fail"): ("ExitCode", True),
    ("failures", "f-init"): ("InitFailed", False),
    ("failures", "f-cmd"): ("BadCommand", False),
    ("failures", "f-oom"): ("Killed", True),
    ("more-failures", "oom-pid1"): ("OutOfMemory", True),
    ("more-failures", "deadline"): ("DeadlineExceeded", True),
    ("more-failures", "killed"): ("Killed", True),
    ("more-failures", "liveness"): ("Killed", True),  # without its warnings
    ("more-failures", "not-executable"): ("BadCommand", False),
    ("more-failures", "workdir-is-file"): ("BadCommand", False),
    ("more-failures", "out-of-cpu"): ("OutOfResources", False),
    ("more-failures", "selector-on-node"): ("OutOfResources", False),
    ("more-failures", "evict-me"): ("Evicted", True),
    ("more-failures", "ignores-term"): ("DeletedByOther", True),
    ("more-failures", "heeds-term"): ("DeletedByOther", True),
    ("more-failures", "two-containers"): ("", True),
    ("more-failures", "sidecar"): ("", True),
    ("platform", "preempted"): ("Preempted", True),
}


@pytest.mark.parametrize(("recording", "name"), RECORDED_ENDS, ids=lambda value: value)
def test_a_recorded_end_has_its_cause(recording: str, name: str) -> None:
    """The last recorded state gives the cause, for certain, and says whether the worker had started."""
    verdict = judge_end(last_record(recording, name))
    assert verdict is not None
    cause, started = RECORDED_ENDS[recording, name]
    assert (verdict.cause, verdict.has_started, verdict.certain) == (cause, started, True)
    assert verdict.outcome == ("failed" if cause else "succeeded")
    assert bool(verdict.reason) == bool(cause)


@pytest.mark.parametrize(("recording", "name"), RECORDED_ENDS, ids=lambda value: value)
def test_no_certain_verdict_is_ever_revised(recording: str, name: str) -> None:
    """Whatever state a verdict was certain in, all later states of the pod say the same."""
    verdicts = [judge_end(record) for record in states(recording, name)]
    certain = [(verdict.outcome, verdict.cause) for verdict in verdicts if verdict and verdict.certain]
    assert len(set(certain)) == 1


FAILED = {"phase": "Failed", "started_at": 10.0, "exit_code": 137, "term_reason": "Error"}


@pytest.mark.parametrize(
    ("fields", "cause", "started"),
    [
        ({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."}, "Evicted", False),
        (FAILED | {"disruption": "TerminationByKubelet", "reason": "Evicted"}, "Evicted", True),
        (FAILED | {"disruption": "TerminationByKubelet", "reason": "Terminated"}, "NodeShutdown", True),
        ({"phase": "Failed", "reason": "NodeShutdown"}, "NodeShutdown", False),
        (FAILED | {"disruption": "TerminationByKubelet", "reason": "Preempting"}, "Preempted", True),
        ({"phase": "Failed", "disruption": "DeletionByPodGC"}, "NodeLost", None),
        (
            {"phase": "Running", "gone": True, "started_at": 9.0, "disruption": "DeletionByTaintManager"},
            "NodeLost",
            True,
        ),
        ({"phase": "Failed", "reason": "UnexpectedAdmissionError"}, "OutOfResources", False),
        ({"phase": "Failed"}, "Unknown", False),
        (FAILED | {"started_at": None, "term_reason": "ContainerStatusUnknown"}, "ExitCode", None),
        (FAILED | {"exit_code": 3}, "ExitCode", True),
        (FAILED | {"exit_code": 143}, "Killed", True),
    ],
)
def test_an_end_that_was_not_recorded_has_its_cause(fields: dict[str, Any], cause: str, started: bool | None) -> None:
    """Ends that Kubernetes documents and nobody recorded are told apart by reason and condition."""
    verdict = judge_end(pod(**fields))
    assert verdict is not None
    assert (verdict.cause, verdict.has_started, verdict.certain) == (cause, started, True)


def test_a_plain_137_waits_for_the_words_that_come_later() -> None:
    """Until the final phase an eviction or a deadline looks like any other kill, so the verdict is not certain."""
    early = next(record for record in states("more-failures", "killed") if record.exit_code is not None)
    assert early.phase == "Running"
    verdict = judge_end(early)
    assert verdict is not None
    assert (verdict.cause, verdict.certain) == ("Killed", False)


def test_a_worker_that_ended_before_somebody_deleted_its_pod_keeps_its_own_cause() -> None:
    """A delete explains only the ends that came after it."""
    fields = FAILED | {"exit_code": 3, "finished_at": 100.0, "deleting": True}
    causes = [judge_end(pod(**fields, deleted_at=at)) for at in (99.0, 101.0)]
    assert [verdict and verdict.cause for verdict in causes] == ["DeletedByOther", "ExitCode"]


# -- warnings


def test_a_liveness_kill_is_told_by_its_warning() -> None:
    """The recorded warning of the probe turns the kill that it explains into LivenessFailed, with its words."""
    verdict = judge_end(last_record("more-failures", "liveness"), warned("liveness"))
    assert verdict is not None
    assert (verdict.cause, verdict.reason) == ("LivenessFailed", "Liveness probe failed (exit code 137)")


def test_only_a_probe_that_kills_explains_a_kill() -> None:
    """A probe of readiness, one that failed long before, and one of a worker that ended by itself explain nothing."""
    (warning,) = warned("liveness")
    ended = last_record("more-failures", "liveness")
    for record, other in (
        (ended, warning._replace(message="Readiness probe failed: ")),
        (ended, warning._replace(last=warning.last - 3600)),
        (msgspec.structs.replace(ended, exit_code=1), warning),
    ):
        verdict = judge_end(record, (other,))
        assert verdict is not None
        assert verdict.cause != "LivenessFailed"


def test_a_startup_probe_kills_like_a_liveness_probe() -> None:
    """Both are the worker's own fault and have the same cause."""
    (warning,) = warned("liveness")
    started = warning._replace(message="Startup probe failed: no such file")
    verdict = judge_end(last_record("more-failures", "liveness"), (started,))
    assert verdict is not None
    assert verdict.cause == "LivenessFailed"


def test_a_failed_mount_is_told_by_its_warning() -> None:
    """The pod itself looks like one that is still being created; its warning says that it is stuck."""
    record = last_record("more-failures", "missing-volume-secret")
    assert judge_stuck(record) is None
    stuck = judge_stuck(record, "", warned("missing-volume-secret"), NOW)
    assert stuck is not None
    assert (stuck.cause, stuck.patience) == ("MountFailed", "config")
    assert 'secret "none" not found' in stuck.reason


def test_a_mount_that_succeeded_at_last_is_no_failure() -> None:
    """A pod with its sandbox has its volumes mounted; where nothing says so, long silence means the same."""
    record = last_record("more-failures", "missing-volume-secret")
    (warning,) = warned("missing-volume-secret")
    brief = warning._replace(last=warning.first + 1)
    assert judge_stuck(msgspec.structs.replace(record, has_sandbox=True), "", (warning,), NOW) is None
    assert judge_stuck(record, "", (brief,), NOW + 5) is not None
    assert judge_stuck(record, "", (brief,), NOW + 7) is None
    assert judge_stuck(record, "", (warning,), NOW + 30) is not None


# -- what does not start

RECORDED_STUCK = {
    ("failures", "f-image"): ("RegistryUnreachable", "image_pull"),
    ("failures", "f-config"): ("ConfigMissing", "config"),
    ("failures", "f-unsched"): ("Unschedulable", "pending"),
    ("more-failures", "init-missing-image"): ("RegistryUnreachable", "image_pull"),
    ("more-failures", "invalid-image-name"): ("InvalidImageName", ""),
    ("more-failures", "never-pull"): ("ImageNeverPull", ""),
    ("more-failures", "missing-secret-key"): ("ConfigMissing", "config"),
    ("more-failures", "root-refused"): ("SecurityContextRefused", ""),
    ("more-failures", "missing-claim"): ("Unschedulable", "pending"),
}


@pytest.mark.parametrize(("recording", "name"), RECORDED_STUCK, ids=lambda value: value)
def test_a_recorded_pod_that_does_not_start_has_its_cause(recording: str, name: str) -> None:
    """The recorded state says what the pod waits for, and how long that is waited out."""
    pull_error = next((r.waiting_message for r in states(recording, name) if r.waiting_reason == "ErrImagePull"), "")
    stuck = judge_stuck(last_record(recording, name), pull_error)
    assert stuck is not None
    assert (stuck.cause, stuck.patience) == RECORDED_STUCK[recording, name]
    assert stuck.reason


@pytest.mark.parametrize("name", ["missing-volume-secret", "strip-me"])
def test_a_pod_that_may_start_is_not_stuck(name: str) -> None:
    """A pod that is created or runs waits for nothing that we know of."""
    assert judge_stuck(last_record("more-failures", name)) is None


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ('failed to resolve reference "x:1": x:1: not found', "ImageNotFound"),
        ("manifest unknown: manifest unknown", "ImageNotFound"),
        ("pull access denied, repository does not exist or may require authorization", "ImageAccessDenied"),
        ("failed to authorize: 401 Unauthorized", "ImageAccessDenied"),
        ("dial tcp: lookup registry.example: no such host", "RegistryUnreachable"),
        ("dial tcp 10.0.0.1:443: i/o timeout", "RegistryUnreachable"),
    ],
)
def test_a_pull_that_fails_is_told_apart_by_its_message(message: str, cause: str) -> None:
    """ImagePullBackOff hides why: what ErrImagePull said before decides."""
    waiting = pod(phase="Pending", waiting_reason="ImagePullBackOff", waiting_message='Back-off pulling image "x:1"')
    stuck = judge_stuck(waiting, message)
    assert stuck is not None
    assert (stuck.cause, stuck.reason) == (cause, message)


@pytest.mark.parametrize(
    ("name", "words"),
    [("too-much-cpu", "cpu"), ("too-much-memory", "memory"), ("no-such-node", "selector"), ("missing-claim", "claim")],
)
def test_a_recorded_shortage_is_named_first(name: str, words: str) -> None:
    """The reason begins with a short word for what no node has, then the scheduler's own sentence."""
    stuck = judge_stuck(last_record("more-failures", name))
    assert stuck is not None
    assert stuck.reason.startswith(f"{words}: 0/1 nodes are available")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {a: b}.", "cpu, taints: "),
        ("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.", "nvidia.com/gpu: "),
        ("0/1 nodes are available: 1 node(s) were unschedulable.", "taints: "),
        ("0/1 nodes are available: 1 Too many pods.", "pods: "),
        ("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.", "claim: "),
        ("0/2 nodes are available: 2 node(s) had volume node affinity conflict.", "claim: "),
        ("Scheduling is blocked due to non-empty scheduling gates", "gates: "),
        ("no nodes available to schedule pods", ""),
    ],
)
def test_what_is_short_is_named_in_short(message: str, words: str) -> None:
    """Each kind of shortage has its word, several are listed, and an unknown one leaves the sentence as it is."""
    assert name_shortage(message) == words + message


# -- what does not go on


def test_a_silent_node_is_reported_and_ends_nothing() -> None:
    """While its pod stays, nobody knows whether the worker runs: NodeLost is said at once, and there is no verdict."""
    lost = next(record for record in states("platform", "node-lost") if record.disruption and record.deleting)
    assert lost.phase == "Running"
    assert judge_end(lost) is None
    report, stuck = judge_late(lost)
    assert (report.cause, report.at, report.ends) == ("NodeLost", 0.0, False)
    assert lost.gone_by is not None
    assert (stuck.cause, stuck.at, stuck.ends) == ("StuckTerminating", lost.gone_by + 60, False)


def test_a_worker_of_a_lost_node_ends_when_its_pod_does() -> None:
    """When the kubelet is back, or the pod is gone, the verdict is NodeLost for a worker that had started."""
    gone = msgspec.structs.replace(last_record("platform", "node-lost"), gone=True)
    verdict = judge_end(gone)
    assert verdict is not None
    assert (verdict.cause, verdict.has_started) == ("NodeLost", True)
    assert judge_late(gone) == []


def test_a_pod_that_outlives_its_deadline_is_hung() -> None:
    """A minute after deadline and grace a pod that still runs ends its worker as HungAfterDeadline."""
    (late,) = judge_late(pod(phase="Running", started_at=0.0, deadline_at=100.0, grace=5.0))
    assert (late.cause, late.at, late.ends) == ("HungAfterDeadline", 165.0, True)
    assert judge_late(pod(phase="Failed", deadline_at=100.0)) == []


def test_the_recorded_deadline_is_read() -> None:
    """The deadline counts from the pod's start, not from its creation or its container's."""
    record = next(record for record in states("more-failures", "deadline") if record.started_at)
    assert record.created_at is not None
    assert record.deadline_at is not None
    assert record.created_at < record.deadline_at <= record.created_at + 5
    assert record.grace == 1.0


# -- refused creates

REFUSALS = {
    "no containers": ("InvalidPod", False),
    "body is not JSON": ("InvalidPod", False),
    "wrong content type": ("InvalidPod", False),
    "namespace missing": ("NamespaceTerminating", True),
    "no rights: create": ("Forbidden", False),
    "quota exceeded 2": ("QuotaExceeded", True),
    "pod security violated": ("AdmissionRefused", False),
    "create in a terminating namespace": ("NamespaceTerminating", True),
    "refused by an admission policy": ("AdmissionRefused", False),
    "admission webhook cannot be reached": ("ApiUnavailable", True),
    "priority class that does not exist": ("InvalidPod", False),
    "invalid name": ("InvalidPod", False),
    "request above its limit": ("InvalidPod", False),
}


def refusal(code: int, body: Any) -> OttoscalerError:
    """The error that an answer to a create stands for."""
    request = create_pod("otto", {"metadata": {"name": "otto-agent-1"}})
    return error_of_answer(request, code, msgspec.json.encode(body), {}, "https://api")


@pytest.mark.parametrize("note", REFUSALS)
def test_a_recorded_refusal_has_its_cause(note: str) -> None:
    """Code and message of a recorded answer give the cause, and whether it may pass."""
    answers = json.loads((Path(RECORDINGS) / "kube-refusals.json").read_text())
    (answer,) = [each for each in answers if each["note"] == note]
    assert judge_refusal(refusal(answer["status"], answer["body"])) == REFUSALS[note]


@pytest.mark.parametrize(
    ("code", "message", "cause", "may_pass"),
    [
        (
            403,
            'pods "p" is forbidden: error looking up service account otto/none: serviceaccount "none" not found',
            "ServiceAccountMissing",
            True,
        ),
        (403, 'admission webhook "w.example" denied the request: no', "AdmissionRefused", False),
        (400, 'admission webhook "w.example" denied the request: no', "AdmissionRefused", False),
        (403, 'pods "p" is forbidden: maximum cpu usage per Container is 1', "AdmissionRefused", False),
        (403, 'pods "p" is forbidden: failed quota: q: must specify limits.cpu', "AdmissionRefused", False),
        (413, "Request entity too large", "InvalidPod", False),
        (429, "too many requests", "ApiUnavailable", True),
        (500, "Internal error occurred", "ApiUnavailable", True),
        (503, "apiserver is shutting down", "ApiUnavailable", True),
    ],
)
def test_other_refusals_have_their_cause(code: int, message: str, cause: str, may_pass: bool) -> None:
    """Answers that Kubernetes gives in other places are told apart in the same way."""
    body = {"kind": "Status", "status": "Failure", "message": message, "reason": "Forbidden", "code": code}
    assert judge_refusal(refusal(code, body)) == (cause, may_pass)


def test_every_cause_is_one_of_the_closed_set() -> None:
    """No verdict speaks a word that `explain` does not know."""
    spoken = {cause for cause, _ in (*RECORDED_ENDS.values(), *RECORDED_STUCK.values(), *REFUSALS.values()) if cause}
    assert spoken <= set(CAUSES)
