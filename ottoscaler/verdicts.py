"""What a pod's state means for its worker: the judgement of one `PodRecord`, pure.

Two questions. `judge_end`: has the worker ended, how, and is that certain already? An exit code of 0 and
`OOMKilled` are; any other end waits for the pod's final phase, because an eviction or a deadline first looks like a
plain 137 or 143 (the kubelet reports the container about a second before the pod's phase, reason and message).
`judge_stuck`: is the worker kept from starting by something that waiting will not mend, and how long may it still
be waited for?
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ottoscaler.errors import Refused
from ottoscaler.fleet import PodRecord
from ottoscaler.outcomes import OutcomeWord


class Verdict(NamedTuple):
    """How a worker ended. `certain` is False while a better explanation may still come with the final phase."""

    outcome: OutcomeWord
    cause: str = ""
    reason: str = ""
    certain: bool = True


class Stuck(NamedTuple):
    """Why a worker does not start, and which patience it deserves: a setting's name, or none at all (fails at once)."""

    cause: str
    reason: str
    patience: str = ""


class Graces(NamedTuple):
    """Seconds that each kind of patience lasts; `pending` 0 means for ever."""

    image_pull: float = 30.0
    config: float = 10.0
    pending: float = 300.0

    def limit(self, patience: str) -> float | None:
        """Seconds to wait for what `judge_stuck` found, None = for ever."""
        match patience:
            case "":
                return 0.0
            case "pending":
                return self.pending or None
            case "image_pull":
                return self.image_pull
            case _:
                return self.config


_NODE_REFUSALS = {
    "OutOfcpu",
    "OutOfmemory",
    "OutOfpods",
    "OutOfephemeral-storage",
    "NodeAffinity",
    "UnexpectedAdmissionError",
}
_DISRUPTIONS = {
    "EvictionByEvictionAPI": "Evicted",
    "TerminationByKubelet": "Evicted",
    "PreemptionByScheduler": "Preempted",
    "DeletionByTaintManager": "NodeLost",
    "DeletionByPodGC": "NodeLost",
}
_MISSING_IMAGE = re.compile(r"(?<!such host: )\bnot found\b|NotFound|manifest unknown|does not exist", re.IGNORECASE)
_DENIED_IMAGE = re.compile(r"unauthorized|access denied|authorization failed|forbidden|authentication required", re.I)


def judge_end(record: PodRecord) -> Verdict | None:
    """The worker's end as far as this record shows one, else None."""
    if record.exit_code == 0 and not record.init_failure:
        return Verdict("succeeded")
    if record.phase == "Succeeded":
        return Verdict("succeeded")
    if record.exit_code is not None and record.term_reason == "OOMKilled":
        return Verdict("failed", "OutOfMemory", "the worker used more memory than its limit and was killed")
    if record.phase == "Failed":
        return _judge_failed(record)
    if record.gone and (disrupted := _judge_disrupted(record)):
        return disrupted
    if record.exit_code is not None:
        return _judge_exit(record)._replace(certain=record.gone)
    return None


def _judge_failed(record: PodRecord) -> Verdict:
    if record.reason == "DeadlineExceeded":
        return Verdict("failed", "DeadlineExceeded", record.message or "the pod ran longer than its deadline")
    if record.reason == "Evicted":
        return Verdict("failed", "Evicted", record.message or "the node evicted the pod")
    if record.reason in _NODE_REFUSALS:
        return Verdict("failed", "OutOfResources", record.message or f"the node refused the pod: {record.reason}")
    if disrupted := _judge_disrupted(record):
        return disrupted
    if record.init_failure:
        name, code = record.init_failure
        return Verdict("failed", "InitFailed", f"init container {name} ended with exit code {code}")
    if record.exit_code is not None:
        return _judge_exit(record)
    said = ": ".join(part for part in (record.reason, record.message) if part)
    return Verdict("failed", "Unknown", said or "the pod failed and says nothing about why")


def _judge_disrupted(record: PodRecord) -> Verdict | None:
    cause = _DISRUPTIONS.get(record.disruption)
    return Verdict("failed", cause, f"the platform ended the pod: {record.disruption}") if cause else None


def _judge_exit(record: PodRecord) -> Verdict:
    code = record.exit_code
    if record.term_reason in ("StartError", "ContainerCannotRun"):
        return Verdict("failed", "BadCommand", record.term_message or "the container's command could not be started")
    if code is not None and code > 128 and record.term_reason in ("Error", ""):
        return Verdict("failed", "Killed", f"the worker was ended by signal {code - 128} (exit code {code})")
    return Verdict("failed", "ExitCode", f"the worker ended with exit code {code}")


def judge_stuck(record: PodRecord, pull_error: str = "") -> Stuck | None:
    """Why the worker does not start. `pull_error`: what ErrImagePull said last, for ImagePullBackOff may hide it."""
    message = record.waiting_message
    match record.waiting_reason:
        case "InvalidImageName":
            return Stuck("InvalidImageName", message)
        case "ErrImageNeverPull":
            return Stuck("ImageNeverPull", message)
        case "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" | "ImageInspectError":
            return _judge_pull(pull_error or message)
        case "CreateContainerConfigError" if "will run as root" in message or "runAsNonRoot" in message:
            return Stuck("SecurityContextRefused", message)
        case "CreateContainerConfigError":
            return Stuck("ConfigMissing", message, "config")
        case "CreateContainerError" | "RunContainerError":
            return Stuck("BadCommand", message, "config")
    if record.unschedulable_message and not record.scheduled:
        return Stuck("Unschedulable", record.unschedulable_message, "pending")
    return None


def _judge_pull(message: str) -> Stuck:
    if _DENIED_IMAGE.search(message):
        return Stuck("ImageAccessDenied", message, "image_pull")
    if _MISSING_IMAGE.search(message):
        return Stuck("ImageNotFound", message, "image_pull")
    return Stuck("RegistryUnreachable", message, "image_pull")


def judge_refusal(error: Refused) -> tuple[str, bool]:
    """The cause that a refused create stands for, and whether it may pass (then the same attempt is made again)."""
    message = error.message
    if error.status == 403 and "exceeded quota" in message:
        return "QuotaExceeded", True
    if error.status == 403 and "is being terminated" in message:
        return "NamespaceTerminating", True
    if error.status == 403 and "error looking up service account" in message:
        return "ServiceAccountMissing", True
    if error.status == 403:
        return (
            "AdmissionRefused" if "admission" in message or "violates PodSecurity" in message else "Forbidden"
        ), False
    if error.status == 422 and "is forbidden" in message:
        return "AdmissionRefused", False
    return "InvalidPod", False
