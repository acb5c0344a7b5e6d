"""A Kubernetes API in memory, under any clock: pods that live and end as planned, one watch, and faults on demand.

Objects are never changed in place: each change publishes a new one, so that all who were told of a pod share one copy.

`World` is the cluster: it outlives the scalers that a test starts and kills. `WorldKube` (`world_kube.py`) is one
scaler's client of it. What each worker did is kept in
`World.runs`, the judge of "never twice".
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import trio

from ottoscaler.errors import Ambiguous, Conflict, Expired, Unavailable

LABEL = "ottoscaler/"


@dataclass(frozen=True)
class Plan:
    """The life of a worker: seconds until it runs and how long, its exit code; `stuck` = why it never starts."""

    start_delay: float = 0.1
    duration: float = 1.0
    exit_code: int = 0
    stuck: str = ""
    reason: str = ""
    ignores_term: bool = False
    finalizer_seconds: float = 0.0
    """So long somebody's finalizer keeps a pod whose deletion was asked for and whose worker has ended."""


class World:
    """All pods of one namespace, with a history that watches read."""

    def __init__(
        self, plan: Callable[[Mapping[str, str]], Plan] = lambda labels: Plan(), phase_lag: float = 1.1
    ) -> None:
        self.plan = plan
        self.phase_lag = phase_lag
        self.phase_lags: dict[str, float] = {}
        """Other lags, by the worker's index."""
        self.pods: dict[str, dict[str, Any]] = {}
        self.runs: list[tuple[str, int, int]] = []
        self.writes: list[tuple[str, str]] = []
        self.reads: list[str] = []
        self.late_creates: list[float] = []
        """For each of the next creates: its client gets no answer, and it is carried out so many seconds later."""
        self.strangers: list[dict[str, str]] = []
        """The next creates meet a pod of their name, with these labels."""
        self.creates_to_come: list[str] = []
        """Such creates that are not carried out yet."""
        self.is_guarded: Callable[[str], bool] = lambda event_id: True
        """Whether somebody could delete at once what comes late for an event."""
        self.unguarded: set[str] = set()
        """Pods that came late while nobody could."""
        self.came_late: set[str] = set()
        """Pods of creates that were carried out later."""
        self.version = 100
        self.history_kept = 100_000
        """Changes that a watch can still be told; one from before them is answered 410."""
        self.warnings: list[dict[str, Any]] = []
        self._history: list[tuple[int, str, dict[str, Any]]] = []
        self._changed = trio.Event()
        self._warned = trio.Event()
        self._of_pod: dict[str, trio.Event] = {}
        """Who waits for a change of one pod, by its name."""
        self._finalizers: dict[str, float] = {}
        self._uids = itertools.count(1)
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Let pods live until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out a create, now."""
        name = body["metadata"]["name"]
        if name in self.pods:
            raise Conflict(f'pods "{name}" already exists', status=409, reason="AlreadyExists")
        pod = copied(dict(body))
        pod["metadata"] |= {"uid": f"uid-{next(self._uids)}", "creationTimestamp": "2026-01-01T00:00:00Z"}
        pod["status"] = {"phase": "Pending", "conditions": [], "containerStatuses": []}
        self._publish("ADDED", pod)
        assert self._nursery is not None
        self._nursery.start_soon(self._live, name, pod["metadata"]["uid"])
        return self.pods[name]

    def put_stranger(self, name: str, labels: dict[str, str]) -> None:
        """Somebody else has made a pod of this name, which runs on."""
        metadata = {"name": name, "labels": labels, "uid": f"uid-{next(self._uids)}"}
        self._publish("ADDED", {"metadata": metadata, "spec": {}, "status": {"phase": "Running"}})

    def create_later(self, body: Mapping[str, Any], seconds: float) -> None:
        """Carry out a create when its client is long gone."""

        async def later() -> None:
            await trio.sleep(seconds)
            self.creates_to_come.remove(body["metadata"]["name"])
            with suppress(Conflict):
                self.create(body)
                self.came_late.add(body["metadata"]["name"])
                if not self.is_guarded(body["metadata"]["labels"][LABEL + "event-id"]):
                    self.unguarded.add(body["metadata"]["name"])

        assert self._nursery is not None
        self.creates_to_come.append(body["metadata"]["name"])
        self._nursery.start_soon(later)

    def delete(self, name: str, uid: str | None = None) -> None:
        """Carry out a delete: gone at once when it does not run, else after its process has ended."""
        pod = self.pods.get(name)
        if pod is None:
            return
        if uid is not None and pod["metadata"]["uid"] != uid:
            raise Conflict("the UID in the precondition does not match", status=409, reason="Conflict")
        if pod["status"]["phase"] == "Running":
            self._mark_deleted(name)
        else:
            self._let_go(name)

    def _mark_deleted(self, name: str) -> None:
        self._change(name, lambda now: now["metadata"].setdefault("deletionTimestamp", "2026-01-01T00:00:09Z"))

    def _let_go(self, name: str) -> None:
        """It is deleted and does not run: gone once its finalizer is."""
        pod = self.pods[name]
        seconds = self._finalizers.get(pod["metadata"]["uid"], 0.0)
        if not seconds:
            self._publish("DELETED", pod)
            return

        async def later() -> None:
            await trio.sleep(seconds)
            if name in self.pods and self.pods[name]["metadata"]["uid"] == pod["metadata"]["uid"]:
                self._publish("DELETED", self.pods[name])

        if "deletionTimestamp" not in pod["metadata"]:
            self._mark_deleted(name)
        assert self._nursery is not None
        self._nursery.start_soon(later)

    def remove(self, name: str) -> None:
        """Somebody deletes the pod by force, behind everybody's back."""
        self._publish("DELETED", self.pods[name])

    def evict(self, name: str) -> None:
        """The platform ends the pod, and says so."""

        def disrupt(pod: dict[str, Any]) -> None:
            pod["status"]["conditions"] = [
                {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
            ]

        self._change(name, disrupt)
        self.delete(name)

    def change(self, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
        """Somebody changes a pod."""
        self._change(name, change)

    def warn(self, name: str, reason: str, message: str) -> None:
        """The kubelet warns of a pod."""
        about = {"kind": "Pod", "name": name, "uid": self.pods[name]["metadata"]["uid"]}
        self.warnings.append({"involvedObject": about, "reason": reason, "message": message})
        self._warned.set()
        self._warned = trio.Event()

    def strip_labels(self, name: str, **left: str) -> None:
        """Somebody takes the labels away, or changes the instance: the pod lives, but leaves every selector with its
        previous content.
        """
        pod = self.pods[name]
        changed = {LABEL + label: value for label, value in left.items()}
        labels = {**pod["metadata"]["labels"], **changed} if left else {}
        self._publish("DELETED", pod)
        self._publish("ADDED", {**pod, "metadata": {**pod["metadata"], "labels": labels}})

    async def _live(self, name: str, uid: str) -> None:
        pod = self.pods[name]
        plan = self.plan(pod["metadata"]["labels"])
        if plan.finalizer_seconds:
            self._finalizers[uid] = plan.finalizer_seconds
        if plan.stuck:
            waiting = {"waiting": {"reason": plan.stuck, "message": plan.reason}}
            self._set_state(name, uid, waiting, "Pending")
            return
        await trio.sleep(plan.start_delay)
        if name in self.pods and "deletionTimestamp" in self.pods[name]["metadata"]:
            return  # no node starts what is on its way out
        if not self._set_state(name, uid, {"running": {"startedAt": "2026-01-01T00:00:01Z"}}, "Running"):
            return
        labels = pod["metadata"]["labels"]
        self.runs.append((labels[LABEL + "event-id"], int(labels[LABEL + "index"]), int(labels[LABEL + "attempt"])))
        code = plan.exit_code
        if await self._wait_deleted(name, uid, plan.duration):
            code = 137 if plan.ignores_term else 143
            await trio.sleep(30.0 if plan.ignores_term else 0.1)
        if name not in self.pods or self.pods[name]["metadata"]["uid"] != uid:
            return
        ended = {"terminated": {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}}
        self._set_state(name, uid, ended, "Running")
        await trio.sleep(self.phase_lags.get(labels[LABEL + "index"], self.phase_lag))
        self._set_state(name, uid, ended, "Failed" if code else "Succeeded")
        if name in self.pods and "deletionTimestamp" in self.pods[name]["metadata"]:
            self._let_go(name)

    async def _wait_deleted(self, name: str, uid: str, seconds: float) -> bool:
        with trio.move_on_after(seconds):
            while True:
                pod = self.pods.get(name)
                if pod is None or pod["metadata"]["uid"] != uid:
                    return False
                if "deletionTimestamp" in pod["metadata"]:
                    return True
                await self._of_pod.setdefault(name, trio.Event()).wait()
        return False

    def _set_state(self, name: str, uid: str, state: dict[str, Any], phase: str) -> bool:
        pod = self.pods.get(name)
        if pod is None or pod["metadata"]["uid"] != uid:
            return False

        def apply(now: dict[str, Any]) -> None:
            now["status"]["phase"] = phase
            now["status"]["containerStatuses"] = [{"name": "worker", "state": state}]

        self._change(name, apply)
        return True

    def _change(self, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
        pod = copied(self.pods[name])
        change(pod)
        self._publish("MODIFIED", pod)

    def _publish(self, kind: str, pod: dict[str, Any]) -> None:
        self.version += 1
        pod = {**pod, "metadata": {**pod["metadata"], "resourceVersion": str(self.version)}}
        if kind == "DELETED":
            del self.pods[pod["metadata"]["name"]]
        else:
            self.pods[pod["metadata"]["name"]] = pod
        self._history.append((self.version, kind, pod))
        if len(self._history) > 2 * self.history_kept:
            del self._history[: -self.history_kept]
        self.wake()
        if (waiting := self._of_pod.pop(pod["metadata"]["name"], None)) is not None:
            waiting.set()

    async def wait_change(self) -> None:
        """Return at the next change of any pod."""
        await self._changed.wait()

    async def wait_warning(self) -> None:
        """Return at the next warning of any pod."""
        await self._warned.wait()

    def after(self, version: int) -> list[tuple[int, str, dict[str, Any]]]:
        """What a watch from `version` has to tell by now. Raises `Expired`."""
        missing = self.version - version
        if missing > len(self._history) and self._history and self._history[0][0] > version + 1:
            raise Expired("too old resource version")
        return self._history[max(0, len(self._history) - missing) :] if missing > 0 else []

    def wake(self) -> None:
        """Let every watch look again."""
        self._changed.set()
        self._changed = trio.Event()


def long_world(**plan: object) -> World:
    """Workers that run for ten minutes unless they are stopped."""
    return World(lambda labels: Plan(duration=600, **plan))  # type: ignore[arg-type]  # fields of the plan


def copied(part: Any) -> Any:
    """A copy of JSON, some times faster than `copy.deepcopy`."""
    if isinstance(part, dict):
        return {name: copied(value) for name, value in part.items()}
    return [copied(value) for value in part] if isinstance(part, list) else part


def lost(verb: str) -> Unavailable:
    """The API is away."""
    return Unavailable(f"{verb}: connection refused", address="https://world")


def ambiguous(verb: str) -> Ambiguous:
    """The answer got lost."""
    return Ambiguous(f"{verb}: the connection was reset", address="https://world")
