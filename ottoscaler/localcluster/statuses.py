"""A pod's status as a kubelet writes it: containers, conditions, phase. Pure functions, no clock, no I/O.

The rules are those of Kubernetes 1.36, seen in recordings of a real cluster: the pod's phase waits for the
whole pod to be cleared away, while its conditions already speak of the phase that the containers imply
(`implied_phase`); conditions that others own, as DisruptionTarget, come first and stay.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ottoscaler.localcluster.quantities import pod_resources

Json = dict[str, Any]
Phase = Literal["Pending", "Running", "Succeeded", "Failed"]

TERMINAL_PHASES: tuple[Phase, ...] = ("Succeeded", "Failed")
OWN_CONDITIONS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
NEVER_STARTED = "1970-01-01T00:00:00Z"  # startedAt of a container whose process never came to life
DEADLINE_MESSAGE = "Pod was active on the node longer than the specified deadline"
NOT_LOCATED = "The container could not be located when the pod was terminated"


@dataclass(frozen=True, slots=True)
class ContainerState:
    """What the kubelet knows of one container; `state` and `last_state` have the API's own shape."""

    state: Json
    last_state: Json = field(default_factory=dict)
    restart_count: int = 0
    container_id: str = ""
    ready: bool = False

    @property
    def running(self) -> bool:
        """Its process lives."""
        return "running" in self.state

    @property
    def terminated(self) -> Json | None:
        """How it ended, or None."""
        ended: Json | None = self.state.get("terminated")
        return ended

    @property
    def exit_code(self) -> int | None:
        """Its exit code, or None while it has not ended."""
        return None if self.terminated is None else int(self.terminated["exitCode"])

    def wait(self, reason: str, message: str = "") -> ContainerState:
        """The same container, waiting for `reason`."""
        waiting = {"reason": reason} | ({"message": message} if message else {})
        return replace(self, state={"waiting": waiting}, ready=False)

    @property
    def next_run(self) -> int:
        """The number of its next run: 0 for the first, then the restart count that it will have."""
        return self.restart_count + bool(self.last_state or self.terminated)

    def start(self, container_id: str, started_at: str, *, ready: bool = True) -> ContainerState:
        """The same container with a living process; after a restart the count goes up."""
        return ContainerState(
            {"running": {"startedAt": started_at}},
            self.state if self.terminated else self.last_state,
            self.next_run,
            container_id,
            ready,
        )

    def end(
        self, exit_code: int, finished_at: str, *, reason: str = "", message: str = "", ready: bool = False
    ) -> ContainerState:
        """The same container after its end; without a reason: Completed for 0, Error for everything else."""
        ended: Json = {"exitCode": exit_code, "reason": reason or ("Completed" if exit_code == 0 else "Error")}
        if message:
            ended["message"] = message
        started_at = self.state["running"]["startedAt"] if self.running else NEVER_STARTED
        ended |= {"startedAt": started_at, "finishedAt": finished_at, "containerID": self.container_id}
        return replace(self, state={"terminated": ended}, ready=ready)

    def lose(self) -> ContainerState:
        """The same container when its pod is cleared away before it ever started."""
        ended = {"exitCode": 137, "reason": "ContainerStatusUnknown", "message": NOT_LOCATED}
        return replace(self, state={"terminated": ended | {"startedAt": None, "finishedAt": None}}, ready=False)

    def wait_to_restart(self, reason: str, message: str = "") -> ContainerState:
        """The same container waiting to run again, its end moved to `lastState`."""
        return replace(self, last_state=self.state).wait(reason, message)


@dataclass(frozen=True, slots=True)
class PodState:
    """Everything that a status is computed from, beside the pod itself."""

    containers: dict[str, ContainerState]  # by name, init containers too
    start_time: str
    phase: Phase = "Pending"
    sandbox_ready: bool = False
    pod_ip: str = ""
    reason: str = ""  # of the pod, as DeadlineExceeded
    message: str = ""
    failing: bool = False  # the kubelet has decided that it fails (deadline), though containers still run


def is_sidecar(container: Json) -> bool:
    """A native sidecar: an init container that stays (restartPolicy Always)."""
    return container.get("restartPolicy") == "Always"


def initial_containers(spec: Json) -> dict[str, ContainerState]:
    """All containers of a pod that has just come to its node."""
    waiting = {"waiting": {"reason": "PodInitializing" if spec.get("initContainers") else "ContainerCreating"}}
    everyone = [*spec.get("initContainers", []), *spec["containers"]]
    return {container["name"]: ContainerState(waiting) for container in everyone}


def implied_phase(spec: Json, containers: dict[str, ContainerState]) -> Phase:
    """The phase that the containers' states alone imply (Kubernetes' getPhase)."""
    policy = spec.get("restartPolicy", "Always")
    for container in spec.get("initContainers", []):
        state = containers[container["name"]]
        if is_sidecar(container):
            if not state.running and state.terminated is None:
                return "Pending"
        elif state.exit_code != 0:
            return "Failed" if state.terminated is not None and policy == "Never" else "Pending"
    regular = [containers[container["name"]] for container in spec["containers"]]
    if any("waiting" in state.state and not state.last_state for state in regular):
        return "Pending"
    staying = [containers[container["name"]] for container in spec.get("initContainers", []) if is_sidecar(container)]
    if any(state.running for state in [*regular, *staying]) or policy == "Always":
        return "Running"
    codes = [(state.terminated or state.last_state["terminated"])["exitCode"] for state in regular]
    if not any(codes):
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def container_status(container: Json, known: ContainerState, *, image: str, image_id: str) -> Json:
    """One entry of containerStatuses. `image`, `image_id`: the resolved name and digest, shown once it has run."""
    exists = bool(known.container_id)
    status: Json = {
        "name": container["name"],
        "state": known.state,
        "lastState": known.last_state,
        "ready": known.ready,
        "restartCount": known.restart_count,
        "image": image if exists else container["image"],
        "imageID": image_id if exists else "",
    }
    if exists:
        status["containerID"] = known.container_id
    status["started"] = known.running
    if exists:
        resources = container.get("resources", {})
        if resources.get("requests"):
            status["allocatedResources"] = resources["requests"]
        status["resources"] = resources
    if container.get("volumeMounts"):
        status["volumeMounts"] = [_mount_status(mount) for mount in container["volumeMounts"]]
    return status


def _mount_status(mount: Json) -> Json:
    status = {"name": mount["name"], "mountPath": mount["mountPath"]}
    return status | {"readOnly": True, "recursiveReadOnly": "Disabled"} if mount.get("readOnly") else status


def container_id(uid: str, name: str, restart: int) -> str:
    """A containerd-like id that is the same whenever it is asked for."""
    return "containerd://" + hashlib.sha256(f"{uid}/{name}/{restart}".encode()).hexdigest()


def rejected_status(previous: Json, *, reason: str, message: str, generation: int, start_time: str) -> Json:
    """The status of a pod that its node refuses to run."""
    failed = {"phase": "Failed", "message": f"Pod was rejected: {message}", "reason": reason}
    return previous | {"observedGeneration": generation, **failed, "startTime": start_time}


def pod_status(pod: Json, known: PodState, *, now: str, host_ip: str, images: dict[str, tuple[str, str]]) -> Json:
    """The pod's whole status.

    `pod` as last published (its old status keeps transition times and others' conditions), `now` as RFC 3339
    seconds, `images` maps a container's image to its resolved name and digest.
    """
    spec, old, generation = pod["spec"], pod["status"], pod["metadata"].get("generation", 1)
    status: Json = {"observedGeneration": generation, "phase": known.phase}
    status["conditions"] = _conditions(spec, known, old.get("conditions", []), generation=generation, now=now)
    status |= {key: value for key, value in (("message", known.message), ("reason", known.reason)) if value}
    if "nominatedNodeName" in old:
        status["nominatedNodeName"] = old["nominatedNodeName"]
    status |= {"hostIP": host_ip, "hostIPs": [{"ip": host_ip}]}
    if known.pod_ip:
        status |= {"podIP": known.pod_ip, "podIPs": [{"ip": known.pod_ip}]}
    status["startTime"] = known.start_time
    for key, containers in _status_lists(spec):
        status[key] = [_one_status(container, known, images) for container in containers]
    status["qosClass"] = old.get("qosClass", "BestEffort")
    requests, limits = pod_resources(spec, "requests"), pod_resources(spec, "limits")
    if requests:
        status["allocatedResources"] = requests
    status["resources"] = {k: v for k, v in (("limits", limits), ("requests", requests)) if v}
    return status


def _status_lists(spec: Json) -> list[tuple[str, list[Json]]]:
    """Init containers keep the order of the spec, containers are sorted by name (as recorded)."""
    lists = [("containerStatuses", sorted(spec["containers"], key=lambda container: container["name"]))]
    return [("initContainerStatuses", spec["initContainers"]), *lists] if spec.get("initContainers") else lists


def _one_status(container: Json, known: PodState, images: dict[str, tuple[str, str]]) -> Json:
    image, image_id = images.get(container["image"], (container["image"], ""))
    return container_status(container, known.containers[container["name"]], image=image, image_id=image_id)


def _conditions(spec: Json, known: PodState, old: list[Json], *, generation: int, now: str) -> list[Json]:
    before = {condition["type"]: condition for condition in old}
    verdicts = {
        "PodReadyToStartContainers": _verdict(known.sandbox_ready),
        "Initialized": _initialized(spec, known),
        "Ready": _containers_ready(spec, known),
        "ContainersReady": _containers_ready(spec, known),
        "PodScheduled": _verdict(True),
    }
    mine = []
    for kind, verdict in verdicts.items():
        last = before.get(kind, {})
        since = last["lastTransitionTime"] if last.get("status") == verdict["status"] else now
        head = {"type": kind, "observedGeneration": generation, "status": verdict["status"]}
        tail = {key: verdict[key] for key in ("reason", "message") if key in verdict}
        mine.append(head | {"lastProbeTime": None, "lastTransitionTime": since} | tail)
    return [condition for condition in old if condition["type"] not in OWN_CONDITIONS] + mine


def _verdict(holds: bool, reason: str = "", message: str = "") -> Json:
    verdict = {"status": "True" if holds else "False"}
    return verdict | {k: v for k, v in (("reason", reason), ("message", message)) if v}


def _judged_phase(spec: Json, known: PodState) -> Phase:
    if known.failing or known.phase in TERMINAL_PHASES:
        return "Failed" if known.failing else known.phase
    return implied_phase(spec, known.containers)


def _initialized(spec: Json, known: PodState) -> Json:
    if _judged_phase(spec, known) == "Succeeded":
        return _verdict(True, "PodCompleted")
    regular = [known.containers[container["name"]] for container in spec["containers"]]
    if any(state.running or state.terminated or state.last_state for state in regular):
        return _verdict(True)
    unfinished = []
    for container in spec.get("initContainers", []):
        state = known.containers[container["name"]]
        if not (state.running if is_sidecar(container) else state.ready):
            unfinished.append(container["name"])
    if unfinished:
        return _verdict(
            False, "ContainersNotInitialized", f"containers with incomplete status: [{' '.join(unfinished)}]"
        )
    return _verdict(True)


def _containers_ready(spec: Json, known: PodState) -> Json:
    phase = _judged_phase(spec, known)
    if phase == "Succeeded":
        return _verdict(False, "PodCompleted")
    if phase == "Failed":
        return _verdict(False, "PodFailed")
    sidecars = [container for container in spec.get("initContainers", []) if is_sidecar(container)]
    everyone = [container["name"] for container in [*sidecars, *spec["containers"]]]
    unready = [name for name in everyone if not known.containers[name].ready]
    if unready:
        return _verdict(False, "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]")
    return _verdict(True)
