"""What a pod's state means for its worker: the judgement of one `PodRecord` and its warnings, pure.

Four questions. `judge_end`: has the worker ended, how, and is that certain already? An exit code of 0 and
`OOMKilled` are; any other end waits for the pod's final phase, because an eviction or a deadline first looks like a
plain 137 or 143 (the kubelet reports the container about a second before the pod's phase, reason and message).
`judge_stuck`: is the worker kept from starting by something that waiting will not mend, and how long may it still
be waited for? `judge_late`: what is wrong with a pod that does not go on or away? `judge_refusal`: what does an
answer to a create mean?
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from ottoscaler.errors import NotFound, OttoscalerError, Refused
from ottoscaler.fleet import PodRecord
from ottoscaler.outcomes import OutcomeWord
from ottoscaler.pod_warnings import PodWarning

LATE_SECONDS = 60.0
"""So long beyond its grace or deadline a pod may take before it is said to be stuck."""
QUIET_SECONDS = 5.0
"""A scheduler takes this long at most to look at a new pod."""


class Verdict(NamedTuple):
    """How a worker ended. `certain` is False while a better explanation may still come with the final phase;
    `has_started`: whether its process surely ran, surely did not (False), or nobody knows (None).
    """

    outcome: OutcomeWord
    cause: str = ""
    reason: str = ""
    certain: bool = True
    has_started: bool | None = None


class Stuck(NamedTuple):
    """Why a worker does not start, and which patience it deserves: a setting's name, or none at all (fails at once).

    It is worth a word only when it lasts for `quiet` seconds.
    """

    cause: str
    reason: str
    patience: str = ""
    quiet: float = 0.0


class Late(NamedTuple):
    """What will have to be said of a pod that is still as it is at `at` (Unix seconds); `ends`: it ends the worker."""

    cause: str
    reason: str
    at: float
    ends: bool = False


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
    "NodePorts",
    "UnexpectedAdmissionError",
}
_REASONS = {
    "Evicted": "Evicted",
    "Preempting": "Preempted",  # by the kubelet, for a critical pod
    "Terminated": "NodeShutdown",
    "NodeShutdown": "NodeShutdown",
    "Shutdown": "NodeShutdown",
    "NodeLost": "NodeLost",
} | dict.fromkeys(_NODE_REFUSALS, "OutOfResources")
"""Reasons of a failed pod that say that it was the platform's doing."""
_DISRUPTIONS = {
    "EvictionByEvictionAPI": "Evicted",
    "TerminationByKubelet": "Evicted",
    "PreemptionByScheduler": "Preempted",
    "DeletionByTaintManager": "NodeLost",
    "DeletionByPodGC": "NodeLost",
}
_NEVER_STARTED = {"StartError", "ContainerCannotRun"}
_FAILED_PROBE = re.compile(r"(Liveness|Startup) probe failed")
_MISSING_IMAGE = re.compile(r"(?<!such host: )\bnot found\b|NotFound|manifest unknown|does not exist", re.IGNORECASE)
_DENIED_IMAGE = re.compile(r"unauthorized|access denied|authorization failed|forbidden|authentication required", re.I)
_SHORT_WORDS = (
    (re.compile(r"Insufficient ([\w./-]*[\w])"), r"\1"),
    (re.compile(r"Too many pods"), "pods"),
    (re.compile(r"\btaint|were unschedulable"), "taints"),
    (re.compile(r"affinity/selector|node selector|affinity rules|topology spread"), "selector"),
    (re.compile(r"persistentvolumeclaim|volume node affinity|persistent volumes", re.I), "claim"),
    (re.compile(r"scheduling gates"), "gates"),
)


def has_started(record: PodRecord) -> bool | None:
    """Whether the worker's process ran before this last state of its pod; None = nobody knows."""
    if record.started_at is not None:
        return True
    if record.is_unseen:  # it may have run and gone since
        return None
    if record.term_reason in _NEVER_STARTED:
        return False
    if record.term_reason == "ContainerStatusUnknown":  # the kubelet came back and did not find it
        return None
    if record.exit_code is not None:
        return True
    if not record.scheduled:
        return False
    if _platform_cause(record) == "NodeLost":  # then the phase is the controllers' word, not the kubelet's
        return None
    return False if record.phase == "Failed" else None


# -- ends


def judge_end(record: PodRecord, warnings: Sequence[PodWarning] = ()) -> Verdict | None:
    """The worker's end as far as this record shows one, else None."""
    verdict = _judge_end(record, warnings)
    return verdict and verdict._replace(has_started=has_started(record))


def _judge_end(record: PodRecord, warnings: Sequence[PodWarning]) -> Verdict | None:
    if record.exit_code == 0 and not record.init_failure:
        return Verdict("succeeded")
    if record.phase == "Succeeded":
        return Verdict("succeeded")
    if record.exit_code is not None and record.term_reason == "OOMKilled":
        return Verdict("failed", "OutOfMemory", "the worker used more memory than its limit and was killed")
    if record.phase == "Failed":
        return _judge_failed(record, warnings)
    if (record.gone or record.exit_code is not None) and (disrupted := _judge_platform(record)):
        return disrupted
    if record.exit_code is not None:
        return _judge_exit(record, warnings)._replace(certain=record.gone)
    return None


def _judge_failed(record: PodRecord, warnings: Sequence[PodWarning]) -> Verdict:
    if record.reason == "DeadlineExceeded":
        return Verdict("failed", "DeadlineExceeded", record.message or "the pod ran longer than its deadline")
    if disrupted := _judge_platform(record):
        return disrupted
    if record.init_failure:
        name, code = record.init_failure
        return Verdict("failed", "InitFailed", f"init container {name} ended with exit code {code}")
    if record.exit_code is not None:
        return _judge_exit(record, warnings)
    said = ": ".join(part for part in (record.reason, record.message) if part)
    return Verdict("failed", "Unknown", said or "the pod failed and says nothing about why")


def _platform_cause(record: PodRecord) -> str:
    """The platform's doing as the pod's reason says it, else its condition; empty where neither does."""
    return _REASONS.get(record.reason) or _DISRUPTIONS.get(record.disruption) or ""


def _judge_platform(record: PodRecord) -> Verdict | None:
    cause = _platform_cause(record)
    said = record.message or f"the platform ended the pod: {record.disruption or record.reason}"
    return Verdict("failed", cause, said) if cause else None


def _judge_exit(record: PodRecord, warnings: Sequence[PodWarning]) -> Verdict:
    code = record.exit_code or 0
    if record.term_reason in _NEVER_STARTED:
        return Verdict("failed", "BadCommand", record.term_message or "the container's command could not be started")
    if _was_deleted_first(record):
        return Verdict("failed", "DeletedByOther", f"pod {record.name} was deleted by someone else (exit code {code})")
    if code <= 128 or record.term_reason not in ("Error", ""):
        return Verdict("failed", "ExitCode", f"the worker ended with exit code {code}")
    if probe := _failed_probe(record, warnings):
        return Verdict("failed", "LivenessFailed", f"{probe} (exit code {code})")
    return Verdict("failed", "Killed", f"the worker was ended by signal {code - 128} (exit code {code})")


def _was_deleted_first(record: PodRecord) -> bool:
    """Whether the worker ended only after the delete of its pod was asked for; both times have whole seconds."""
    if record.deleted_at is None:
        return False
    return record.finished_at is None or record.finished_at >= record.deleted_at


def _failed_probe(record: PodRecord, warnings: Sequence[PodWarning]) -> str:
    """What the probe said that this kill came from: the last one before the end, no longer ago than grace and slack."""
    for warning in warnings:
        if warning.reason == "Unhealthy" and _FAILED_PROBE.match(warning.message):
            ago = (record.finished_at or warning.last) - warning.last
            if ago <= record.grace + LATE_SECONDS / 2:
                return warning.message.rstrip(": ")
    return ""


# -- what does not start


def judge_stuck(
    record: PodRecord, pull_error: str = "", warnings: Sequence[PodWarning] = (), now: float = 0.0
) -> Stuck | None:
    """Why the worker does not start. `pull_error`: what ErrImagePull said last, for ImagePullBackOff may hide it;
    `now` by trio's clock, for warnings that are over.
    """
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
        return Stuck("Unschedulable", name_shortage(record.unschedulable_message), "pending")
    if record.phase == "Pending" and not record.scheduled and not record.waiting_reason:
        return Stuck("Unschedulable", "no scheduler has taken the pod up", "pending", QUIET_SECONDS)
    return _judge_mount(record, warnings, now)


def _judge_pull(message: str) -> Stuck:
    if _DENIED_IMAGE.search(message):
        return Stuck("ImageAccessDenied", message, "image_pull")
    if _MISSING_IMAGE.search(message):
        return Stuck("ImageNotFound", message, "image_pull")
    return Stuck("RegistryUnreachable", message, "image_pull")


def _judge_mount(record: PodRecord, warnings: Sequence[PodWarning], now: float) -> Stuck | None:
    if not is_waiting_for_volumes(record):
        return None
    for warning in warnings:
        if warning.reason in ("FailedMount", "FailedAttachVolume") and warning.is_current(now):
            return Stuck("MountFailed", warning.message, "config")
    return None


def is_waiting_for_volumes(record: PodRecord) -> bool:
    """Whether the pod has a node and is not so far that its containers can start; only its warnings say why."""
    is_waiting = record.waiting_reason in ("ContainerCreating", "PodInitializing", "") and record.scheduled
    return is_waiting and record.phase == "Pending" and record.started_at is None and not record.has_sandbox


def name_shortage(message: str) -> str:
    """The scheduler's message with what is short in front: `cpu, taints: 0/3 nodes are available: …`."""
    why = message.split("preemption:")[0]
    words = [found.expand(word) for pattern, word in _SHORT_WORDS for found in pattern.finditer(why)]
    return f"{', '.join(dict.fromkeys(words))}: {message}" if words else message


# -- what does not go on


def judge_late(record: PodRecord) -> list[Late]:
    """What must be said of a pod that stays as it is: NodeLost, StuckTerminating (reports), HungAfterDeadline."""
    if record.gone:
        return []
    found = []
    if _platform_cause(record) == "NodeLost" and not record.is_final:
        said = "the node is silent, nobody knows whether the worker runs; it ends when its pod is gone"
        found.append(Late("NodeLost", f"{said} ({record.disruption or record.reason})", 0.0))
    if record.gone_by is not None:
        said = "the pod is being deleted and does not go; look at its node and its finalizers"
        found.append(Late("StuckTerminating", said, record.gone_by + LATE_SECONDS))
    elif record.deadline_at is not None and not record.is_final:
        said = "the pod's deadline and grace are over, and it still runs"
        at = record.deadline_at + record.grace + LATE_SECONDS
        found.append(Late("HungAfterDeadline", said, at, ends=True))
    return found


# -- answers to a create


def judge_refusal(error: OttoscalerError) -> tuple[str, bool]:
    """The cause that a create without success stands for, and whether it may pass (then the same attempt is made
    again). Kubernetes has one code for many reasons, so the message tells them apart.
    """
    if isinstance(error, NotFound):
        return "NamespaceTerminating", True
    if not isinstance(error, Refused):
        return "ApiUnavailable", True
    message = error.message
    if "denied the request" in message or "denied request" in message:  # a webhook chooses its own code
        return "AdmissionRefused", False
    if error.status == 403:
        return _judge_forbidden(message)
    if error.status == 422 and "is forbidden" in message:
        return "AdmissionRefused", False
    return "InvalidPod", False


def _judge_forbidden(message: str) -> tuple[str, bool]:
    if "exceeded quota" in message:
        return "QuotaExceeded", True
    if "is being terminated" in message:
        return "NamespaceTerminating", True
    if "error looking up service account" in message:
        return "ServiceAccountMissing", True
    if "no PriorityClass" in message:
        return "InvalidPod", False
    is_about_rights = "cannot create resource" in message or "is forbidden: " not in message
    return ("Forbidden" if is_about_rights else "AdmissionRefused"), False
