"""The closed set of causes: why a worker failed, was stopped, or needs a person's eye, and what its class makes of it.

Pure words. Log, result, command line and docs/failures.md (made by `python -m ottoscaler.cli.causes_table`) all speak
with the sentences given here. `class_of` is what retries ask; settings and templates can move a cause.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

CauseClass = Literal["own", "platform", "passing", "refused", "final", "none", "report"]
Target = Literal["own", "platform", "final"]
"""The classes that a cause can be moved to."""


class Cause(NamedTuple):
    """One cause: its class (`kind`), and one sentence each of what it means, what to do, and how it looks outside."""

    name: str
    kind: CauseClass
    meaning: str
    advice: str
    looks: str


CLASSES: Mapping[CauseClass, str] = MappingProxyType(
    {
        "own": "The worker's own fault: it counts against WORKER_MAX_ATTEMPTS; while tries are left, the worker runs "
        "again after a growing, random delay.",
        "platform": "The platform's fault: it does not count against WORKER_MAX_ATTEMPTS; the worker runs again, up to "
        "PLATFORM_MAX_ATTEMPTS, when it had surely not started, and when it had only with PLATFORM_RETRY_STARTED=true.",
        "passing": "It may pass by itself: the pod stays while its time lasts, then the worker failed for good.",
        "refused": "Refused for now: the same create is repeated with a growing, random delay within "
        "CREATE_TIMEOUT_SECONDS, then the worker failed for good.",
        "final": "Final: the worker failed at once, and is not run again.",
        "none": "No failure: the worker ends as terminated, and is not run again.",
        "report": "A report: it is logged with what to do, and ends no worker.",
    }
)
"""What happens by each class."""

_ALL = (
    # own fault
    Cause(
        "ExitCode",
        "own",
        "The worker ended with an exit code other than 0.",
        "Read its log; exit code and message are in the result.",
        "The pod is Failed; its container is terminated with an exit code from 1 to 128.",
    ),
    Cause(
        "OutOfMemory",
        "own",
        "The worker used more memory than its limit and was killed.",
        "Raise WORKER_MEMORY_LIMIT or the template's limit, or let the worker use less.",
        "Its container is terminated with reason OOMKilled.",
    ),
    Cause(
        "Killed",
        "own",
        "A signal ended the worker, and nothing says who sent it.",
        "Look for a crash (139, 134), a kill from inside, or memory that ran out outside process 1 (137).",
        "Its container is terminated with an exit code above 128, and no better explanation came with the final phase.",
    ),
    Cause(
        "DeadlineExceeded",
        "own",
        "The worker ran longer than its activeDeadlineSeconds.",
        "Raise the template's activeDeadlineSeconds, or give each worker less to do.",
        "The pod is Failed with reason DeadlineExceeded.",
    ),
    Cause(
        "HungAfterDeadline",
        "own",
        "The worker's deadline is over and its pod still does not end.",
        "Look at its node: a kubelet that is away, or a process that cannot be killed, keeps the pod.",
        "The pod is Running longer than activeDeadlineSeconds, its grace and 60 s together.",
    ),
    Cause(
        "LivenessFailed",
        "own",
        "The kubelet killed the worker because its liveness or startup probe failed.",
        "Mend what the probe asks for, or give it more time (periodSeconds, failureThreshold, initialDelaySeconds).",
        "Exit code 137 or 143, and a warning Unhealthy of the pod that says so.",
    ),
    Cause(
        "InitFailed",
        "own",
        "An init container failed, so the worker never ran.",
        "Read the log of the init container that the reason names.",
        "The pod is Failed; an init container is terminated with an exit code other than 0.",
    ),
    Cause(
        "Unknown",
        "own",
        "The pod failed, and nothing it shows says why.",
        "Look at the pod's node and at the events of the namespace.",
        "The pod is Failed without a reason and without an end of its worker.",
    ),
    # the platform's fault
    Cause(
        "Evicted",
        "platform",
        "The pod was evicted: by its node under pressure, or through the API by a drain.",
        "Set requests that match what workers use; let a PodDisruptionBudget slow drains down.",
        "The pod is Failed with reason Evicted, or has DisruptionTarget with EvictionByEvictionAPI or "
        "TerminationByKubelet.",
    ),
    Cause(
        "Preempted",
        "platform",
        "The scheduler ended the pod to make room for one of higher priority.",
        "Give workers a priorityClassName, or the cluster more room.",
        "The pod has DisruptionTarget with PreemptionByScheduler.",
    ),
    Cause(
        "NodeLost",
        "platform",
        "The pod's node fell silent, so nobody knows whether the worker runs; it ends only when its pod is gone.",
        "Mend the node, or delete its Node object when it is surely off.",
        "The pod has DisruptionTarget with DeletionByTaintManager or DeletionByPodGC, and often stays Running.",
    ),
    Cause(
        "NodeShutdown",
        "platform",
        "The node was shut down under the pod.",
        "Drain nodes before they are shut down.",
        "The pod is Failed with reason Terminated, NodeShutdown or Shutdown, and says that its node shuts down.",
    ),
    Cause(
        "OutOfResources",
        "platform",
        "The node refused the pod that was sent to it, for want of room or because it does not fit.",
        "Nothing, where it is rare; else look at what besides the scheduler binds pods to nodes (nodeName).",
        "The pod is Failed with reason OutOfcpu, OutOfmemory, OutOfpods, NodeAffinity or UnexpectedAdmissionError.",
    ),
    Cause(
        "DeletedByOther",
        "platform",
        "Somebody else deleted the pod.",
        "Find who deletes pods of this namespace; workers are stopped by a scale_down.",
        "The pod is gone, and Ottoscaler did not delete it.",
    ),
    # may pass
    Cause(
        "ImageNotFound",
        "passing",
        "The registry does not have the image.",
        "Correct OTTO_AGENT_IMAGE or the template's image, or push the image; IMAGE_PULL_GRACE_SECONDS is how long to "
        "wait.",
        "The container waits in ErrImagePull or ImagePullBackOff; the message says not found.",
    ),
    Cause(
        "ImageAccessDenied",
        "passing",
        "The registry does not let the node have the image.",
        "Give the template or its service account the right imagePullSecrets; registries say the same of images that "
        "do not exist.",
        "The container waits in ErrImagePull or ImagePullBackOff; the message says unauthorized or denied.",
    ),
    Cause(
        "RegistryUnreachable",
        "passing",
        "The node cannot pull the image: its registry does not answer, or breaks off.",
        "Check the registry, and the node's DNS, proxy and certificates.",
        "The container waits in ErrImagePull or ImagePullBackOff for any other reason.",
    ),
    Cause(
        "ConfigMissing",
        "passing",
        "A config map or secret that the container needs, or a key in it, does not exist.",
        "Create it in the namespace of the workers, or mark the reference optional.",
        "The container waits in CreateContainerConfigError.",
    ),
    Cause(
        "MountFailed",
        "passing",
        "A volume of the pod cannot be mounted.",
        "Look at the claim, secret or config map that the warning names.",
        "The container stays in ContainerCreating; a warning FailedMount or FailedAttachVolume of the pod says why.",
    ),
    Cause(
        "Unschedulable",
        "passing",
        "No node takes the pod; the reason begins with what is short: cpu, memory, taints, selector, claim.",
        "Add nodes, ask for less, or correct selector, tolerations or claim; PENDING_TIMEOUT_SECONDS is how long to "
        "wait.",
        "The pod is Pending; its condition PodScheduled is False with the scheduler's message.",
    ),
    # refused for now
    Cause(
        "QuotaExceeded",
        "refused",
        "The namespace's quota has no room for the pod.",
        "Raise the ResourceQuota, lower MAX_WORKERS, or wait until pods end.",
        "The create is refused with 403 and exceeded quota.",
    ),
    Cause(
        "ApiUnavailable",
        "refused",
        "The API server does not answer, is overloaded, or depends on a webhook that is away.",
        "Look at the API server and its admission webhooks; workers that run are not touched.",
        "The create is answered by 429 or 5xx, or by nothing.",
    ),
    Cause(
        "ServiceAccountMissing",
        "refused",
        "The service account of the workers does not exist.",
        "Create it, or correct WORKER_SERVICE_ACCOUNT or the template's serviceAccountName.",
        "The create is refused with 403 and error looking up service account.",
    ),
    Cause(
        "NamespaceTerminating",
        "refused",
        "The namespace is being deleted, or does not exist.",
        "Create it anew once it is gone, or correct NAMESPACE.",
        "The create is refused with 403 and is being terminated, or with 404.",
    ),
    # final
    Cause(
        "InvalidImageName",
        "final",
        "The image's name is none.",
        "Correct OTTO_AGENT_IMAGE or the template's image.",
        "The container waits in InvalidImageName.",
    ),
    Cause(
        "ImageNeverPull",
        "final",
        "The image is not on the node, and the pull policy is Never.",
        "Load the image onto the nodes, or change imagePullPolicy.",
        "The container waits in ErrImageNeverPull.",
    ),
    Cause(
        "BadCommand",
        "final",
        "The container's command cannot be started.",
        "Correct WORKER_COMMAND, the template's command or its workingDir; the reason names the file.",
        "The container is terminated with reason StartError or ContainerCannotRun (exit code 126, 127 or 128), or "
        "waits in CreateContainerError or RunContainerError.",
    ),
    Cause(
        "SecurityContextRefused",
        "final",
        "The node refuses the container because its image would run as root, which the pod forbids.",
        "Set runAsUser in the template, or a user in the image.",
        "The container waits in CreateContainerConfigError; the message says that the image will run as root.",
    ),
    Cause(
        "InvalidPod",
        "final",
        "The API says that the pod is invalid.",
        "Correct the template or the setting that the reason names.",
        "The create is refused with 400, 413 or 422, or with 403 for want of a priority class.",
    ),
    Cause(
        "AdmissionRefused",
        "final",
        "An admission policy, a webhook or Pod Security refuses the pod.",
        "Change the template until it fits, or the policy that the reason names.",
        "The create is refused with 403 or 422; the message names who denied it.",
    ),
    Cause(
        "Forbidden",
        "final",
        "Ottoscaler's account may not create this pod, or not read it.",
        "Run ottoscaler check, and give its service account the Role.",
        "The create is refused with 403, for its user cannot create pods; "
        "a read that is refused is only logged, and repeated until it is allowed.",
    ),
    Cause(
        "NameTaken",
        "final",
        "A pod that is not ours has the worker's name.",
        "Look whose it is (the reason says), and delete it or choose another namespace.",
        "The create is refused with 409, and the pod has another instance, era or no labels of ours.",
    ),
    # no failure
    Cause(
        "Stopped",
        "none",
        "A scale_down stopped the worker.",
        "Nothing.",
        "Ottoscaler deleted the pod.",
    ),
    Cause(
        "Cancelled",
        "none",
        "The worker's event was cancelled.",
        "Nothing.",
        "Ottoscaler deleted the pod, or never created it.",
    ),
    # reports
    Cause(
        "LabelsLost",
        "report",
        "Somebody took our labels off a pod; its worker is followed by name, and runs on.",
        "Find who changes labels of pods, and keep them from it: other replicas cannot see the pod.",
        "The watch says DELETED, and the pod is there.",
    ),
    Cause(
        "StuckTerminating",
        "report",
        "A pod is being deleted for longer than its grace and 60 s, and does not go.",
        "Look at its node, or at the finalizer that holds it.",
        "The pod has a deletionTimestamp that lies 60 s back.",
    ),
    Cause(
        "EraLost",
        "report",
        "Redis has forgotten everything; the pods of before are left as they are.",
        "Find out why Redis was emptied; ottoscaler sweep lists the pods of former eras and deletes them by command.",
        "Pods carry an era label that Redis does not know.",
    ),
)

CAUSES: Mapping[str, Cause] = MappingProxyType({cause.name: cause for cause in _ALL})
"""The closed set, by name, in the order of the table in docs/failures.md."""


def class_of(name: str, moved: Mapping[str, CauseClass] | None = None) -> CauseClass:
    """The class of a cause, after what was moved; a cause that is none counts as Unknown."""
    known = CAUSES.get(name, CAUSES["Unknown"])
    return (moved or {}).get(known.name, known.kind)


def check_retry_policy(policy: Mapping[str, str], field: str = "RETRY_POLICY") -> list[str]:
    """What is wrong with causes moved to classes, one sentence each that names `field`, value and what was expected."""
    problems = []
    for name, target in policy.items():
        cause = CAUSES.get(name)
        if cause is None:
            problems.append(f"{field} names {name!r}, expected a cause{suggest_cause(name)}")
        elif cause.kind in ("none", "report"):
            problems.append(f"{field} moves {name!r}, expected a cause of failure, which {name} is not")
        elif target not in get_args(Target):
            problems.append(f"{field} moves {name} to {target!r}, expected one of {', '.join(get_args(Target))}")
    return problems


def suggest_cause(name: str) -> str:
    """The words that help someone who mistyped a cause; they follow a sentence without its stop."""
    folded = {known.lower(): known for known in CAUSES}
    close = difflib.get_close_matches(name.lower(), folded, n=1)
    return f"; did you mean {folded[close[0]]}?" if close else "; ottoscaler explain lists them"
