"""The life of one pod on this node: admitted, run, ended, cleared away; each step published as recorded.

One task per pod runs `PodWorker.run`; the kubelet tells it what the API says of the pod (`heed`) and, when the
pod is gone from the API, to let go at once (`abandon`). Containers are run by `containers.run_container`.

    ContainerCreating → sandbox ready → (init containers) → Running → terminated → Succeeded | Failed
    deleted: SIGTERM … SIGKILL → terminated and phase in one change → grace 0 → DELETED
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import trio

from ottoscaler.localcluster.containers import run_container
from ottoscaler.localcluster.environment import missing_volume
from ottoscaler.localcluster.images import Image, find_image
from ottoscaler.localcluster.logs import ContainerLog
from ottoscaler.localcluster.node import Node
from ottoscaler.localcluster.scheduler import admission_refusal
from ottoscaler.localcluster.statuses import (
    DEADLINE_MESSAGE,
    ContainerState,
    PodState,
    implied_phase,
    initial_containers,
    is_sidecar,
    pod_status,
    rejected_status,
)
from ottoscaler.localcluster.store import NotFound

Json = dict[str, Any]


class Stoppable(Protocol):
    """A running container, process or simulation."""

    def request_stop(self, grace: float) -> None:
        """SIGTERM now, the end after `grace` seconds at the latest."""

    def kill(self, *, out_of_memory: bool = False) -> None:
        """SIGKILL at once."""


class PodWorker:
    """Everything the kubelet knows and does about one pod."""

    def __init__(self, node: Node, pod: Json) -> None:
        self.node, self.pod, self.spec = node, pod, pod["spec"]
        metadata = pod["metadata"]
        self.namespace: str = metadata["namespace"]
        self.name: str = metadata["name"]
        self.uid: str = metadata["uid"]
        self.state = PodState(initial_containers(self.spec), start_time=node.now)
        self.running: dict[str, Stoppable] = {}
        self.logs: dict[str, ContainerLog] = {}
        self.previous_logs: dict[str, ContainerLog] = {}
        self.stopping = False  # deleted or beyond its deadline: the next publication is the final one
        self.no_more_starts = trio.Event()  # nothing is started (again): stopping, or only sidecars are left
        self.finished = False  # its final status is published
        self.ended = trio.Event()  # its task has ended, no process of it is left
        self._stop_grace = float("inf")
        self._scope = trio.CancelScope()
        policies = {c["image"]: c.get("imagePullPolicy", "") for c in self.all_containers}
        found = {name: find_image(name, policy) for name, policy in policies.items()}
        self._images = {name: (image.name, image.id) for name, image in found.items() if isinstance(image, Image)}

    @property
    def all_containers(self) -> list[Json]:
        """Init containers first."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def directory(self) -> Path:
        """Where its containers have their homes."""
        return self.node.root / "pods" / self.uid

    @property
    def log_directory(self) -> Path:
        """Where its logs are."""
        return self.node.root / "logs" / f"{self.namespace}_{self.name}_{self.uid}"

    @property
    def _own_grace(self) -> float:
        return float(self.spec.get("terminationGracePeriodSeconds", 30))

    def heed(self, pod: Json) -> None:
        """Take in what the API says of the pod now: a deletion stops it, or shortens its grace."""
        self.pod = pod
        metadata = pod["metadata"]
        if "deletionTimestamp" not in metadata:
            return
        if self.finished:
            self._remove_nowait()
        else:
            self._stop(float(metadata.get("deletionGracePeriodSeconds", 0)))
            self.publish()

    def remove_files(self) -> None:
        """Remove homes and logs; blocking, once `ended` is set."""
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.rmtree(self.log_directory, ignore_errors=True)

    def abandon(self) -> None:
        """The pod is gone from the API: whatever still runs is killed at once."""
        self._scope.cancel(reason="the pod was removed from the API")

    async def run(self) -> None:
        """The whole life; returns when the final status is published and, where it was deleted, the pod removed."""
        try:
            with self._scope:
                if not self._reject():
                    await self._live()
                    await self._finish()
        finally:
            for log in self.logs.values():
                log.close()
            self.ended.set()

    async def pause(self, seconds: float) -> None:
        """Sleep, but not beyond a request to stop."""
        with trio.move_on_after(seconds):
            await self.no_more_starts.wait()

    def publish(self) -> None:
        """Write the status that follows from the state; nothing while the node is silent."""

        def change(pod: Json) -> None:
            if pod["metadata"]["uid"] == self.uid:
                settings = self.node.settings
                pod["status"] = pod_status(
                    pod, self.state, now=self.node.now, host_ip=settings.node_ip, images=self._images
                )

        if not self.node.silent:
            self._update(change)

    def set_container(self, name: str, state: ContainerState) -> None:
        """One container has a new state: publish it, unless it ended while all is being stopped."""
        self.state = replace(self.state, containers={**self.state.containers, name: state})
        if self.state.phase == "Pending" and implied_phase(self.spec, self.state.containers) == "Running":
            self.state = replace(self.state, phase="Running")
        if state.terminated is None or not self.stopping:
            self.publish()

    def emit(self, reason: str, message: str, *, warning: bool = False, container: Json | None = None) -> None:
        """An event about this pod, or about one container of it; a silent node's events are lost."""
        if self.node.silent:
            return
        where = ""
        if container is not None:
            field = "initContainers" if container in self.spec.get("initContainers", []) else "containers"
            where = f"spec.{field}{{{container['name']}}}"
        self.node.events.emit(self.pod, reason, message, kind="Warning" if warning else "Normal", container=where)

    def note_running(self, container: Json, process: Stoppable) -> None:
        """A container runs; where the pod is already being stopped it is stopped at once."""
        self.running[container["name"]] = process
        if self.stopping:
            process.request_stop(self._stop_grace)

    def _stop(self, grace: float) -> None:
        if grace >= self._stop_grace:
            return
        self._stop_grace = grace
        for name, process in self.running.items():
            if not self.stopping:
                container = next(container for container in self.all_containers if container["name"] == name)
                self.emit("Killing", f"Stopping container {name}", container=container)
            process.request_stop(grace)
        self.stopping = True
        self.no_more_starts.set()

    def _reject(self) -> bool:
        refusal = admission_refusal(self.spec, self.node)
        if refusal is None:
            return False
        reason, message = refusal

        def change(pod: Json) -> None:
            generation = pod["metadata"].get("generation", 1)
            pod["status"] = rejected_status(
                pod["status"], reason=reason, message=message, generation=generation, start_time=self.node.now
            )

        self._update(change)
        self.finished = True
        self.emit(reason, message, warning=True)
        return True

    async def _live(self) -> None:
        """Run all containers to their end, within the pod's deadline."""
        deadline = self.spec.get("activeDeadlineSeconds")
        self.publish()
        if deadline is None:
            await self._run_containers()
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._enforce_deadline, deadline)
            await self._run_containers()
            nursery.cancel_scope.cancel(reason="all containers have ended")

    async def _enforce_deadline(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self.state = replace(self.state, failing=True)
        self.publish()
        self.state = replace(self.state, reason="DeadlineExceeded", message=DEADLINE_MESSAGE)
        self.emit("DeadlineExceeded", DEADLINE_MESSAGE)
        self._stop(self._own_grace)

    async def _run_containers(self) -> None:
        await self._wait_for_volumes()
        await self.pause(self.node.settings.start_delay)
        if self.stopping:
            return
        self.state = replace(self.state, sandbox_ready=True)
        self.publish()
        self.state = replace(self.state, pod_ip=self.node.next_address())
        async with trio.open_nursery() as sidecars:
            if await self._initialize(sidecars):
                await self._run_regular()
            self.no_more_starts.set()
            for process in self.running.values():
                process.request_stop(self._own_grace)

    async def _wait_for_volumes(self) -> None:
        while not self.no_more_starts.is_set():
            problem = missing_volume(self.pod, lambda kind, name: self.node.lookup(self.namespace, kind, name))
            if problem is None:
                return
            self.emit("FailedMount", problem, warning=True)
            await self.pause(self.node.settings.retry)

    async def _initialize(self, sidecars: trio.Nursery) -> bool:
        """Run the init containers in order, sidecars on; whether the regular ones may start."""
        for container in self.spec.get("initContainers", []):
            if is_sidecar(container):
                await sidecars.start(run_container, self, container)
            else:
                await run_container(self, container)
                if self.state.containers[container["name"]].exit_code != 0:
                    return False
            if self.stopping:
                return False
        return True

    async def _run_regular(self) -> None:
        first, *others = self.spec["containers"]
        if not others:
            await run_container(self, first)
            return
        async with trio.open_nursery() as nursery:
            for container in self.spec["containers"]:
                nursery.start_soon(run_container, self, container)

    async def _finish(self) -> None:
        """Publish the final status and, if the pod is deleted, have it removed."""
        if not self.stopping:
            await trio.sleep(self.node.settings.phase_delay)
        regular = [container["name"] for container in self.spec["containers"]]
        began = any("waiting" not in self.state.containers[name].state for name in regular)
        if began or not self.spec.get("initContainers"):
            lost = {n: s.lose() if "waiting" in s.state else s for n, s in self.state.containers.items()}
            self.state = replace(self.state, containers=lost)
        succeeded = all(self.state.containers[name].exit_code == 0 for name in regular) and not self.state.failing
        self.state = replace(self.state, phase="Succeeded" if succeeded else "Failed", sandbox_ready=False)
        await self.node.wait_heard()
        self.publish()
        if "deletionTimestamp" in self.pod["metadata"]:
            await trio.sleep(self.node.settings.removal_delay)
            await self.node.wait_heard()
            self._remove_nowait()
        self.finished = True

    def _remove_nowait(self) -> None:
        """End the grace of a deleted pod; remove it unless finalizers hold it."""

        def change(pod: Json) -> None:
            metadata = pod["metadata"]
            if metadata["uid"] == self.uid and metadata["deletionGracePeriodSeconds"] != 0:
                metadata |= {"deletionTimestamp": self.node.now, "deletionGracePeriodSeconds": 0}

        after = self._update(change)
        if after is not None and after["metadata"]["uid"] == self.uid and not after["metadata"].get("finalizers"):
            self.node.store.remove("pods", self.namespace, self.name)

    def _update(self, change: Any) -> Json | None:
        try:
            return self.node.store.update("pods", self.namespace, self.name, change)
        except NotFound:  # removed by force; `abandon` is on its way
            return None
