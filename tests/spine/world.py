"""A Kubernetes API in memory, under any clock: pods that live and end as planned, one watch, and faults on demand.

Objects are never changed in place: each change publishes a new one, so that all who were told of a pod share one copy.

`World` is the cluster: it outlives the scalers that a test starts and kills. `WorldKube` is one scaler's client of
it, with the methods that the spine uses of `ottoscaler.kube.client.Kube`. What each worker did is kept in
`World.runs`, the judge of "never twice".
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import trio

from ottoscaler.errors import Ambiguous, Conflict, Expired, NotFound, Unavailable
from ottoscaler.kube.client import WatchEvent

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
        self.creates_to_come: list[str] = []
        """Such creates that are not carried out yet."""
        self.is_guarded: Callable[[str], bool] = lambda event_id: True
        """Whether somebody could delete at once what comes late for an event."""
        self.unguarded: set[str] = set()
        """Pods that came late while nobody could."""
        self.version = 100
        self.history_kept = 100_000
        """Changes that a watch can still be told; one from before them is answered 410."""
        self.warnings: list[dict[str, Any]] = []
        self._history: list[tuple[int, str, dict[str, Any]]] = []
        self._changed = trio.Event()
        self._warned = trio.Event()
        self._of_pod: dict[str, trio.Event] = {}
        """Who waits for a change of one pod, by its name."""
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

    def create_later(self, body: Mapping[str, Any], seconds: float) -> None:
        """Carry out a create when its client is long gone."""

        async def later() -> None:
            await trio.sleep(seconds)
            self.creates_to_come.remove(body["metadata"]["name"])
            with suppress(Conflict):
                self.create(body)
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
            self._change(name, lambda now: now["metadata"].setdefault("deletionTimestamp", "2026-01-01T00:00:09Z"))
        else:
            self._publish("DELETED", pod)

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

    def strip_labels(self, name: str) -> None:
        """Somebody takes the labels away: the pod lives, but leaves every selector with its previous content."""
        pod = self.pods[name]
        self._publish("DELETED", pod)
        self._publish("ADDED", {**pod, "metadata": {**pod["metadata"], "labels": {}}})

    async def _live(self, name: str, uid: str) -> None:
        pod = self.pods[name]
        plan = self.plan(pod["metadata"]["labels"])
        if plan.stuck:
            waiting = {"waiting": {"reason": plan.stuck, "message": plan.reason}}
            self._set_state(name, uid, waiting, "Pending")
            return
        await trio.sleep(plan.start_delay)
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
            self._publish("DELETED", self.pods[name])

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


class WorldKube:
    """One scaler's client. Faults: `fail` is asked before each request and may raise; `late` creates are carried out
    later.
    """

    address = "https://world"

    def __init__(self, world: World, may_write: Callable[[], None] = lambda: None, latency: float = 0.01) -> None:
        self._world = world
        self._may_write = may_write
        self._latency = latency
        self.fail: Callable[[str, str], Exception | None] = lambda verb, name: None
        self._cuts = 0

    def cut_watch(self) -> None:
        """Reset the connection of the watch that is open now."""
        self._cuts += 1
        self._world.wake()

    async def _write(self, verb: str, name: str) -> None:
        self._may_write()
        self._world.writes.append((verb, name))
        await trio.sleep(self._latency / 2)
        if error := self.fail(verb, name):
            raise error

    async def create_pod(self, namespace: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """As `Kube.create_pod`."""
        await self._write("create", body["metadata"]["name"])
        if self._world.late_creates:
            self._world.create_later(body, self._world.late_creates.pop())
            raise Ambiguous("create: timed out", address=self.address)
        pod = self._world.create(body)
        await trio.sleep(self._latency / 2)
        if error := self.fail("created", body["metadata"]["name"]):
            raise error
        return pod

    async def delete_pod(
        self, namespace: str, name: str, *, uid: str | None = None, resource_version: str | int | None = None, **_: Any
    ) -> None:
        """As `Kube.delete_pod`."""
        await self._write("delete", name)
        pod = self._world.pods.get(name)
        if pod and resource_version and str(resource_version) != pod["metadata"]["resourceVersion"]:
            raise Conflict("the object has been modified", status=409, reason="Conflict")
        self._world.delete(name, uid)
        await trio.sleep(self._latency / 2)

    async def delete_finished_pods(self, namespace: str, selector: str, *, limit: int = 500) -> None:
        """As `Kube.delete_finished_pods`."""
        await self._write("deletecollection", selector)
        wanted = _labels_of(selector)
        for pod in list(self._world.pods.values()):
            if wanted <= pod["metadata"]["labels"].items() and pod["status"]["phase"] in (
                "Succeeded",
                "Failed",
            ):
                self._world.delete(pod["metadata"]["name"])

    async def get_pod(self, namespace: str, name: str) -> dict[str, Any]:
        """As `Kube.get_pod`."""
        self._world.reads.append(name)
        await trio.sleep(self._latency)
        if name not in self._world.pods:
            raise NotFound(f'pods "{name}" not found', status=404, reason="NotFound")
        return self._world.pods[name]

    async def list_pods(self, namespace: str, selector: str) -> tuple[list[dict[str, Any]], int]:
        """As `Kube.list_pods`."""
        await trio.sleep(self._latency)
        if error := self.fail("list", selector):
            raise error
        wanted = _labels_of(selector)
        pods = [pod for pod in self._world.pods.values() if wanted <= pod["metadata"].get("labels", {}).items()]
        return pods, self._world.version

    async def watch_pods(
        self, namespace: str, selector: str, resource_version: int, timeout_seconds: int = 30
    ) -> AsyncIterator[WatchEvent]:
        """As `Kube.watch_pods`; a bookmark ends each quiet watch."""
        if error := self.fail("watch", selector):
            raise error
        if resource_version > self._world.version:
            raise Expired("from the future")
        version, deadline, cuts = resource_version, trio.current_time() + timeout_seconds, self._cuts
        wanted = _labels_of(selector)
        while True:
            if self._cuts != cuts:
                raise lost("watch")
            for version, kind, pod in self._world.after(version):  # noqa: B007, B020 - goes on from the last one
                if wanted <= pod["metadata"].get("labels", {}).items():
                    yield WatchEvent(kind, pod)
            if version < self._world.version:
                continue
            with trio.move_on_at(deadline) as limit:
                await self._world.wait_change()
            if limit.cancelled_caught:
                break
        yield WatchEvent("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})

    async def list_warnings(self, namespace: str) -> tuple[list[dict[str, Any]], int]:
        """As `Kube.list_warnings`; versions count the warnings."""
        await trio.sleep(self._latency)
        if error := self.fail("list", "warnings"):
            raise error
        return list(self._world.warnings), len(self._world.warnings) + 1

    async def watch_warnings(
        self, namespace: str, resource_version: int, timeout_seconds: int = 30
    ) -> AsyncIterator[WatchEvent]:
        """As `Kube.watch_warnings`."""
        if error := self.fail("watch", "warnings"):
            raise error
        told, deadline = resource_version - 1, trio.current_time() + timeout_seconds
        while trio.current_time() < deadline:
            for event in self._world.warnings[told:]:
                yield WatchEvent("ADDED", event)
            told = len(self._world.warnings)
            with trio.move_on_at(deadline):
                await self._world.wait_warning()
        yield WatchEvent("BOOKMARK", {"metadata": {"resourceVersion": str(told + 1)}})


def long_world(**plan: object) -> World:
    """Workers that run for ten minutes unless they are stopped."""
    return World(lambda labels: Plan(duration=600, **plan))  # type: ignore[arg-type]  # fields of the plan


def copied(part: Any) -> Any:
    """A copy of JSON, some times faster than `copy.deepcopy`."""
    if isinstance(part, dict):
        return {name: copied(value) for name, value in part.items()}
    return [copied(value) for value in part] if isinstance(part, list) else part


def _labels_of(selector: str) -> Set[tuple[str, str]]:
    return dict(part.split("=") for part in selector.split(",")).items()


def lost(verb: str) -> Unavailable:
    """The API is away."""
    return Unavailable(f"{verb}: connection refused", address="https://world")


def ambiguous(verb: str) -> Ambiguous:
    """The answer got lost."""
    return Ambiguous(f"{verb}: the connection was reset", address="https://world")
