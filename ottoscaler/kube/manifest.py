"""What a worker pod looks like: identity, environment, resources and security, on top of a template if there is one.

Pure. What the template says of image, command, resources, scheduling, volumes, extra containers and security wins over
the defaults, and what the event's spec says of image, command and time over both; the name, the identity labels,
`OTTO_*` and `restartPolicy: Never` are always ours. A pod by the defaults alone, whatever its event's spec, passes the
Pod Security level "restricted".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ottoscaler.events import environment_name as environment_name
from ottoscaler.pods import (
    ATTEMPT_LABEL,
    ERA_LABEL,
    EVENT_LABEL,
    INDEX_LABEL,
    INSTANCE_LABEL,
    MANAGED_BY_LABEL,
    TASK_LABEL,
    WORKER_CONTAINER,
)
from ottoscaler.spec import Spec
from ottoscaler.trace_context import NO_CONTEXT, TraceContext

DEFAULT_IMAGE = "busybox:latest"
DEMONSTRATION = (["sh", "-c"], ["echo 'Starting...'; sleep 30; echo 'Done!'"])
"""Command and arguments while neither image, command nor template were chosen."""
LONGEST_NAME = 63
USER = 65534
"""nobody: a number, because the kubelet cannot judge a name, and one that owns nothing."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """Which worker a pod is. `count` = workers of its event; `instance` as `instance_label` gives it."""

    event_id: str
    index: int
    count: int
    attempt: int
    instance: str
    era: str
    task_id: str = ""
    metadata: Sequence[tuple[str, str]] = ()
    name_suffix: str = ""  # see pod_name
    context: TraceContext = NO_CONTEXT

    @property
    def name(self) -> str:
        """The pod's name."""
        return pod_name(self.event_id, self.index, self.attempt, self.name_suffix)


@dataclass(frozen=True, slots=True)
class WorkerDefaults:
    """What the settings say of workers; None for command and arguments = not given, () = the image's own.

    `timeout_seconds` is the policy's ceiling, for pods that are given no time otherwise; None = no ceiling.
    """

    image: str = DEFAULT_IMAGE
    command: Sequence[str] | None = None
    args: Sequence[str] | None = None
    cpu_limit: str = "500m"
    memory_limit: str = "128Mi"
    service_account: str | None = None
    timeout_seconds: int | None = None


def instance_label(instance_name: str, stream: str, group: str) -> str:
    """A label value that tells installations apart: 16 hex digits made of instance name, stream and group."""
    return hashlib.sha256("\0".join((instance_name, stream, group)).encode()).hexdigest()[:16]


def pod_name(event_id: str, index: int, attempt: int = 1, instance_suffix: str = "") -> str:
    """The name of a worker's pod: a function of its arguments alone, and always a DNS label (at most 63 characters).

    `instance_suffix` tells streams or groups in one namespace apart, empty for the default ones. An event id that
    does not fit, or is no part of a DNS label, is replaced by its hash.
    """
    end = (f"-{instance_suffix}" if instance_suffix else "") + (f"-r{attempt}" if attempt > 1 else "")
    start = f"otto-agent-{index}-"
    name = f"{start}{event_id}{end}"
    if len(name) <= LONGEST_NAME and re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name):
        return name
    return f"{start}{hashlib.sha256(f'{event_id}{end}'.encode()).hexdigest()[:24]}" + (
        f"-r{attempt}" if attempt > 1 else ""
    )


def build_pod(
    worker: WorkerIdentity,
    defaults: WorkerDefaults,
    template: Mapping[str, Any] | None = None,
    spec: Spec | None = None,
) -> Json:
    """The v1 Pod to create. `template` is a PodTemplate's `template`, checked when it was loaded, and never changed;
    `spec` is what the event asks for itself.

    Equal arguments give equal pods, so that a create can be sent again.
    """
    given = template or {}
    metadata, body = given.get("metadata") or {}, dict(given.get("spec") or {})
    containers = [dict(container) for container in body.get("containers") or [{"name": WORKER_CONTAINER}]]
    ours, asked = worker_container(containers), spec or Spec()
    _fill_container(ours, worker, defaults, template is not None, asked)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _metadata(worker, metadata),
        "spec": _spec(body, defaults, ours, asked.timeout_seconds)
        | {"containers": containers, "restartPolicy": "Never"},
    }


def worker_container(containers: Sequence[Json]) -> Json:
    """Our container among those of a pod: the one named `worker`, else the first."""
    return next((each for each in containers if each.get("name") == WORKER_CONTAINER), containers[0])


def _metadata(worker: WorkerIdentity, template: Mapping[str, Any]) -> Json:
    labels = {
        MANAGED_BY_LABEL: "ottoscaler",
        "app.kubernetes.io/managed-by": "ottoscaler",
        "app.kubernetes.io/name": "otto-agent",
        INSTANCE_LABEL: worker.instance,
        ERA_LABEL: worker.era,
        EVENT_LABEL: worker.event_id,
        INDEX_LABEL: str(worker.index),
        ATTEMPT_LABEL: str(worker.attempt),
    }
    identity: Json = {}
    if worker.task_id:
        identity[TASK_LABEL] = worker.task_id
        if is_label_value(worker.task_id):
            labels[TASK_LABEL] = worker.task_id
    undisturbed = {"karpenter.sh/do-not-disrupt": "true", "cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
    return {
        "name": worker.name,
        "labels": _without(template.get("labels"), TASK_LABEL) | labels,
        "annotations": undisturbed | _without(template.get("annotations"), TASK_LABEL) | identity,
    }


def is_label_value(text: str) -> bool:
    """Whether a text can be a label's value: at most 63 characters, letters and digits at both ends."""
    return len(text) <= 63 and bool(re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?", text))


def _without(values: Mapping[str, Any] | None, key: str) -> Json:
    return {name: value for name, value in (values or {}).items() if name != key}


def _spec(template: Json, defaults: WorkerDefaults, ours: Json, timeout_seconds: int) -> Json:
    spec: Json = {"enableServiceLinks": False, "automountServiceAccountToken": False}
    if defaults.service_account:
        spec["serviceAccountName"] = defaults.service_account
    if defaults.timeout_seconds:
        spec["activeDeadlineSeconds"] = defaults.timeout_seconds
    spec |= {name: value for name, value in template.items() if value is not None}
    if timeout_seconds:
        spec["activeDeadlineSeconds"] = timeout_seconds
    user = {"runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "seccompProfile": {"type": "RuntimeDefault"}}
    chosen = spec.get("securityContext") or {}
    if 0 in (chosen.get("runAsUser"), ours["securityContext"].get("runAsUser")):
        del user["runAsNonRoot"]  # the template asks for root: it would be refused by the kubelet only
    spec["securityContext"] = user | chosen
    return spec


def _fill_container(
    container: Json, worker: WorkerIdentity, defaults: WorkerDefaults, is_templated: bool, asked: Spec
) -> None:
    """Complete our container in place (a copy): what it says itself stays, but for `OTTO_*` and what is asked."""
    container.setdefault("name", WORKER_CONTAINER)
    container["image"] = asked.image or container.get("image") or defaults.image
    command, args = _command(container, defaults, is_templated, asked)
    for name, value in (("command", command), ("args", args)):
        if value:
            container[name] = value
        else:
            container.pop(name, None)
    limits = {"cpu": defaults.cpu_limit, "memory": defaults.memory_limit}
    container["resources"] = container.get("resources") or {"limits": limits, "requests": dict(limits)}
    confined: Json = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    chosen = container.get("securityContext") or {}
    if chosen.get("privileged"):
        confined = {}  # the API refuses a privileged container that may not escalate
    container["securityContext"] = confined | chosen
    env = environment(worker)
    named = {each["name"] for each in env}
    theirs = [each for each in container.get("env") or () if not _is_ours(str(each.get("name", "")), named)]
    container["env"] = env + theirs


def _is_ours(variable: str, named: Collection[str]) -> bool:
    """Whether only we may set it; where `ottoscaler forward` finds otto-handler is for the template to say."""
    return variable in named or (variable.startswith("OTTO_") and not variable.startswith("OTTO_HANDLER_"))


def _command(container: Json, defaults: WorkerDefaults, is_templated: bool, asked: Spec) -> tuple[list[str], list[str]]:
    """Command and arguments, both from the first place that gives either: event, template, settings, demonstration,
    image.
    """
    if asked.command is not None or asked.args is not None:
        return list(asked.command or ()), list(asked.args or ())
    if container.get("command") or container.get("args"):
        return list(container.get("command") or ()), list(container.get("args") or ())
    if defaults.command is not None or defaults.args is not None:
        return list(defaults.command or ()), list(defaults.args or ())
    if not is_templated and container["image"] == DEFAULT_IMAGE:
        return DEMONSTRATION
    return [], []


def environment(worker: WorkerIdentity) -> list[Json]:
    """The `OTTO_*` variables, and `TRACEPARENT` and `TRACESTATE` where there is a trace, which is how programs are
    handed its context. Dollars are doubled, because the kubelet expands `$(NAME)` in values and `$$` is `$`.
    """
    variables = {
        "OTTO_EVENT_ID": worker.event_id,
        "OTTO_TASK_ID": worker.task_id,
        "OTTO_WORKER_INDEX": str(worker.index),
        "OTTO_WORKER_COUNT": str(worker.count),
        "OTTO_ATTEMPT": str(worker.attempt),
        "OTTO_METADATA": msgspec.json.encode(dict(worker.metadata)).decode(),
    }
    variables |= {environment_name(name): value for name, value in worker.metadata}
    variables |= {name.upper(): value for name, value in worker.context.pairs()}
    return [{"name": name, "value": value.replace("$", "$$")} for name, value in variables.items()]
