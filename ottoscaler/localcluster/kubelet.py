"""The kubelet: runs every pod that is bound to its node, and nothing outlives it.

Owned by the cluster, which starts `run` in its nursery and cancels it to stop. In come the changes of pods in
the store; out go statuses and events. `run` returns when every process of every pod is dead: cancelled workers
kill their groups, and the guard kills what left its group.

Not done here, and in a real cluster so: volumes are looked for but not mounted; no isolation (files, network,
users: runAsUser is not obeyed); CPU limits; readiness, startup, HTTP, TCP and gRPC probes; lifecycle hooks;
ephemeral containers; termination messages; node pressure; in-place resize; the resyncs that show a memory limit of
2**63 in a pod's own `resources`. Requests are not summed up: the node is never full. A sidecar that fails while
the pod ends is not reported apart. Statuses of several containers may come in more, smaller steps.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import trio

from ottoscaler.localcluster.logs import LogNotAvailable, LogOptions, read_log
from ottoscaler.localcluster.node import Node, NodeSettings
from ottoscaler.localcluster.pod_worker import PodWorker
from ottoscaler.localcluster.process import raise_file_limit
from ottoscaler.localcluster.scheduler import Scheduler
from ottoscaler.localcluster.statuses import TERMINAL_PHASES
from ottoscaler.localcluster.store import Change, Store
from ottoscaler.localcluster.strays import kill, marked_processes

Json = dict[str, Any]
_SWEEP_PAUSE = 0.2  # seconds: containers that end together are swept together


class Kubelet:
    """One node's kubelet and, beside it, the scheduler. `settings` has times, sizes and the node's room."""

    def __init__(
        self, store: Store, *, data_dir: Path, node_name: str = "local", settings: NodeSettings | None = None
    ) -> None:
        self.store = store
        self.node = Node(store, data_dir, node_name, settings or NodeSettings())
        self.scheduler = Scheduler(self.node)
        self._workers: dict[str, PodWorker] = {}  # by uid
        self._skipped = 0  # of pods that are gone

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run pods for ever; started when new pods are heeded. Cancelled: ends all processes, within seconds."""
        self.node.register()
        raise_file_limit()
        try:
            with self.store.subscribe("pods") as changes:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.node.memory.run)
                    nursery.start_soon(self._sweep)
                    await nursery.start(self.scheduler.run)
                    task_status.started()
                    for pod in self.store.list("pods"):
                        self._heed(nursery, pod)
                    async for change in changes:
                        await self.node.wait_heard()
                        self._handle(nursery, change)
        finally:
            await self.node.guard.close()
            self.node.remove_files()

    def read_log(self, namespace: str, name: str, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        """A container's log in pieces; raises LogNotAvailable with the API's message where there is none.

        A container that has not begun to write gives an empty log, which `follow` waits on.
        """
        pod = self.store.get("pods", namespace, name)
        worker = self._workers.get(pod["metadata"]["uid"])
        logs = {} if worker is None else worker.previous_logs if options.previous else worker.logs
        if container not in logs:
            if options.previous:
                raise LogNotAvailable(f'previous terminated container "{container}" in pod "{name}" not found')
            raise LogNotAvailable(f'container "{container}" in pod "{name}" is waiting to start: ContainerCreating')
        return read_log(logs[container], options)

    def kill_containers(self, namespace: str, name: str, *, container: str = "", out_of_memory: bool = False) -> None:
        """Kill by signal 9 the running containers of a pod, or one of them; raises NotFound where there is no pod."""
        pod = self.store.get("pods", namespace, name)
        worker = self._workers.get(pod["metadata"]["uid"])
        for running, process in [] if worker is None else list(worker.running.items()):
            if container in ("", running):
                process.kill(out_of_memory=out_of_memory)

    def rotate_logs(self, namespace: str, name: str) -> None:
        """Begin a new log file for each container of a pod; raises NotFound where there is no pod."""
        pod = self.store.get("pods", namespace, name)
        worker = self._workers.get(pod["metadata"]["uid"])
        for container_log in [] if worker is None else worker.logs.values():
            container_log.rotate()

    def skipped_lines(self) -> int:
        """How many log entries followers did not get because a new file was begun, of all pods that ever were."""
        return self._skipped + sum(log.skipped for worker in self._workers.values() for log in worker.logs.values())

    def fall_silent(self) -> None:
        """The node is lost: nothing is heard of it, its pods go on. `harm.node_lost` does the API's part."""
        self.node.fall_silent()
        self.scheduler.place_all()

    def come_back(self) -> None:
        """The node is heard again: statuses are written anew, then what was missed is heeded."""
        self.node.come_back()
        for worker in list(self._workers.values()):
            if not worker.finished:
                worker.publish()
        self.scheduler.place_all()

    def statistics(self) -> dict[str, int]:
        """How many pods this kubelet knows, and how many of them have not ended."""
        return {"pods": len(self._workers), "active": sum(not w.ended.is_set() for w in self._workers.values())}

    def _handle(self, nursery: trio.Nursery, change: Change) -> None:
        if change.type != "DELETED":
            self._heed(nursery, change.object)
            return
        worker = self._workers.pop(change.object["metadata"]["uid"], None)
        if worker is not None:
            self._skipped += sum(log.skipped for log in worker.logs.values())
            worker.abandon()
            if worker.logs:
                nursery.start_soon(self._clean_up, worker)

    def _heed(self, nursery: trio.Nursery, pod: Json) -> None:
        uid = pod["metadata"]["uid"]
        if uid in self._workers:
            self._workers[uid].heed(pod)
        elif pod["spec"].get("nodeName") == self.node.name and pod["status"]["phase"] not in TERMINAL_PHASES:
            worker = self._workers[uid] = PodWorker(self.node, pod)
            worker.heed(pod)
            nursery.start_soon(worker.run)

    async def _clean_up(self, worker: PodWorker) -> None:
        """Remove the files of a pod that is gone, once its processes are."""
        await worker.ended.wait()
        await trio.to_thread.run_sync(worker.remove_files)

    async def _sweep(self) -> None:
        """Kill processes that left their container's group, soon after the container has ended."""
        while True:
            await self.node.something_ended.wait()
            await trio.sleep(_SWEEP_PAUSE)
            self.node.something_ended = trio.Event()
            ended = self.node.ended_marks
            self.node.ended_marks = set()
            for pid, mark in marked_processes(self.node.root):
                if mark in ended:
                    kill(pid)
