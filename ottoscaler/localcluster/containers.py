"""One container of a pod: its image, its configuration, its runs, and its restarts.

Every wait ends when the pod is asked to stop; a process is asked to stop by the pod itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from ottoscaler.localcluster.environment import ConfigError, check_user, command_line, container_environment
from ottoscaler.localcluster.images import Image, find_image
from ottoscaler.localcluster.logs import ContainerLog
from ottoscaler.localcluster.probes import check_liveness
from ottoscaler.localcluster.process import ContainerProcess, ProcessPlan, StartError, run_process
from ottoscaler.localcluster.quantities import as_bytes
from ottoscaler.localcluster.simulated import SimulatedProcess, Simulation, find_simulation, run_simulated
from ottoscaler.localcluster.statuses import NEVER_STARTED, container_id, is_sidecar

if TYPE_CHECKING:
    from ottoscaler.localcluster.pod_worker import PodWorker

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _End:
    """How a run ended; no reason: Completed or Error, by the code."""

    code: int
    reason: str = ""
    message: str = ""


async def run_container(
    pod: PodWorker, container: Json, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run until it ends for good or the pod stops. Started (for sidecars) when it first runs or never will."""
    backoff = 0.0
    first_run = trio.Event()

    def note_first_run() -> None:
        if not first_run.is_set():
            first_run.set()
            task_status.started()

    try:
        while not pod.no_more_starts.is_set():
            await _wait_for_image(pod, container)
            plan = await _wait_for_plan(pod, container)
            if plan is None:
                return
            await _run_once(pod, container, plan, note_first_run)
            if pod.no_more_starts.is_set() or not _is_to_restart(pod, container):
                return
            backoff = await _back_off(pod, container, backoff)
    finally:
        note_first_run()


async def _wait_for_image(pod: PodWorker, container: Json) -> None:
    """Return when the image is there or the pod stops; absent images show ErrImagePull and ImagePullBackOff."""
    settings, image, name = pod.node.settings, container["image"], container["name"]
    backoff = settings.image_backoff
    while not pod.no_more_starts.is_set():
        found = find_image(image, container.get("imagePullPolicy", "IfNotPresent"))
        if isinstance(found, Image):
            return
        waiting = pod.state.containers[name]
        if not found.can_retry:
            reason = "InspectFailed" if found.reason == "InvalidImageName" else found.reason
            pod.emit(reason, found.message, warning=True, container=container)
            pod.emit("Failed", f"Error: {found.reason}", warning=True, container=container)
            pod.set_container(name, waiting.wait(found.reason, found.message))
            await pod.no_more_starts.wait()
            return
        pod.emit("Pulling", f'Pulling image "{image}"', container=container)
        pod.emit("Failed", f'Failed to pull image "{image}": {found.message}', warning=True, container=container)
        pod.emit("Failed", "Error: ErrImagePull", warning=True, container=container)
        pod.set_container(name, waiting.wait("ErrImagePull", found.message))
        await pod.pause(min(settings.back_off_shown, backoff))
        if not pod.no_more_starts.is_set():
            pod.emit("BackOff", f'Back-off pulling image "{image}"', container=container)
            pod.emit("Failed", "Error: ImagePullBackOff", warning=True, container=container)
            message = f'Back-off pulling image "{image}": ErrImagePull: {found.message}'
            pod.set_container(name, waiting.wait("ImagePullBackOff", message))
            await pod.pause(backoff)
            backoff = min(2 * backoff, settings.max_backoff)


async def _wait_for_plan(pod: PodWorker, container: Json) -> ProcessPlan | Simulation | None:
    """What to run, as soon as all that it refers to is there; None when the pod stops first."""
    while not pod.no_more_starts.is_set():
        try:
            return find_simulation(pod.pod) or _plan(pod, container)
        except ConfigError as error:
            pod.emit("Failed", f"Error: {error}", warning=True, container=container)
            waiting = pod.state.containers[container["name"]]
            pod.set_container(container["name"], waiting.wait("CreateContainerConfigError", str(error)))
            await pod.pause(pod.node.settings.retry)
    return None


def _plan(pod: PodWorker, container: Json) -> ProcessPlan:
    check_user(pod.pod, container)
    environment = container_environment(
        pod.pod,
        container,
        lambda kind, name: pod.node.lookup(pod.namespace, kind, name),
        pod_ip=pod.state.pod_ip,
        host_ip=pod.node.settings.node_ip,
    )
    return ProcessPlan(
        command_line(container, environment),
        environment,
        container.get("workingDir", ""),
        pod.directory / container["name"],
        pod.state.containers[container["name"]].next_run,
        pod.name,
    )


async def _run_once(
    pod: PodWorker, container: Json, plan: ProcessPlan | Simulation, note_run: Callable[[], None]
) -> None:
    """One run, from its start to its terminated state."""
    name = container["name"]
    restart = pod.state.containers[name].next_run
    log = _open_log(pod, name, restart)

    def started(process: ContainerProcess | SimulatedProcess) -> None:
        pod.note_running(container, process)
        identity = container_id(pod.uid, name, restart)
        ready = is_sidecar(container) or container in pod.spec["containers"]
        pod.set_container(name, pod.state.containers[name].start(identity, pod.node.now, ready=ready))
        note_run()

    try:
        if isinstance(plan, Simulation):
            await pod.pause(plan.start_delay)
            if pod.no_more_starts.is_set():
                return
            end = _End(*await run_simulated(plan, log, started))
        else:
            end = await _run_real(pod, container, plan, log, started)
    finally:
        pod.running.pop(name, None)
        log.close()
    state = pod.state.containers[name]
    if end.reason == "StartError":
        pod.emit("Failed", f"Error: {end.message}", warning=True, container=container)
        state = state.start(container_id(pod.uid, name, restart), NEVER_STARTED)
    ready = end.code == 0 and container not in pod.spec["containers"] and not is_sidecar(container)
    pod.set_container(name, state.end(end.code, pod.node.now, reason=end.reason, message=end.message, ready=ready))


async def _run_real(
    pod: PodWorker,
    container: Json,
    plan: ProcessPlan,
    log: ContainerLog,
    started: Callable[[ContainerProcess], None],
) -> _End:
    """Run a process group, with its memory limit and its liveness probe."""
    limit = container.get("resources", {}).get("limits", {}).get("memory")
    process: ContainerProcess | None = None
    pod.emit("Pulled", f'Container image "{container["image"]}" already present on machine', container=container)
    pod.emit("Created", f"Created container: {container['name']}", container=container)

    def note(lives: ContainerProcess) -> None:
        nonlocal process
        process = lives
        if limit is not None:
            pod.node.memory.watch(lives, as_bytes(limit))
        pod.emit("Started", f"Started container {container['name']}", container=container)
        started(lives)
        if "exec" in container.get("livenessProbe", {}):
            probes.start_soon(check_liveness, pod, container, plan, lives)

    async with trio.open_nursery() as probes:
        try:
            await pod.node.guard.ensure_started()
            log.create()
            end = _End(await run_process(plan, log, note))
        except (StartError, OSError) as error:  # OSError: this machine has no more files or space for a log
            end = _End(128, "StartError", str(error))
        finally:
            if process is not None:
                pod.node.memory.forget(process)
                pod.node.note_ended(plan.mark)
        probes.cancel_scope.cancel(reason="the container has ended")
    return _End(end.code, "OOMKilled") if process is not None and process.out_of_memory else end


def _open_log(pod: PodWorker, name: str, restart: int) -> ContainerLog:
    path = pod.log_directory / name / f"{restart}.log"
    log = ContainerLog(path, max_bytes=pod.node.settings.max_log_bytes, now_ns=time.time_ns)
    if name in pod.logs:
        pod.previous_logs[name] = pod.logs[name]
    pod.logs[name] = log
    return log


def _is_to_restart(pod: PodWorker, container: Json) -> bool:
    policy = "Always" if is_sidecar(container) else pod.spec.get("restartPolicy", "Always")
    failed = pod.state.containers[container["name"]].exit_code != 0
    if container not in pod.spec["containers"] and not is_sidecar(container):
        return policy != "Never" and failed
    return policy == "Always" or (policy == "OnFailure" and failed)


async def _back_off(pod: PodWorker, container: Json, backoff: float) -> float:
    """Wait before the next run: not at all before the second one, then ever longer. The next backoff."""
    name, settings = container["name"], pod.node.settings
    state = pod.state.containers[name]
    if backoff == 0:
        await pod.pause(settings.phase_delay)
        return settings.crash_backoff
    where = f"{pod.name}_{pod.namespace}({pod.uid})"
    message = f"back-off {backoff:.0f}s restarting failed container={name} pod={where}"
    pod.emit(
        "BackOff", f"Back-off restarting failed container {name} in pod {where}", warning=True, container=container
    )
    pod.set_container(name, state.wait_to_restart("CrashLoopBackOff", message))
    await pod.pause(backoff)
    return min(2 * backoff, settings.max_backoff)
