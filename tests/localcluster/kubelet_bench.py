"""A kubelet over a store for tests, and its pods' changes told in lines that compare with recorded ones."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trio
import trio.testing

from ottoscaler.localcluster.kubelet import Kubelet
from ottoscaler.localcluster.node import NodeSettings
from ottoscaler.localcluster.store import Change, Store, Subscription

Json = dict[str, Any]
RECORDED: dict[str, Json] = json.loads((Path(__file__).parent.parent / "recordings" / "status-pods.json").read_text())
SIMULATE = {"ottoscaler.local/simulate": "true"}


class Bench:
    """A store with a running kubelet, and everything that was published of its pods."""

    def __init__(self, store: Store, kubelet: Kubelet) -> None:
        self.store, self.kubelet = store, kubelet
        self.changes: list[Change] = []
        self._changed = trio.lowlevel.ParkingLot()

    async def collect(self, changes: Subscription) -> None:
        """Keep every change, and wake whoever waits for one."""
        async for change in changes:
            self.changes.append(change)
            self._changed.unpark_all()

    def create(self, name: str, *, annotations: Json | None = None, **spec: Any) -> Json:
        """Create a pod as the API would, its container `worker` simulated unless `containers` is given."""
        if "containers" not in spec:
            annotations = SIMULATE | (annotations or {})
            spec["containers"] = [{"name": "worker", "image": "busybox:latest"}]
        metadata = {"name": name, "namespace": "otto", "generation": 1, "annotations": annotations or {}}
        defaults = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler"}
        status = {"phase": "Pending", "qosClass": "BestEffort"}
        pod = {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": defaults | spec, "status": status}
        return self.store.create("pods", pod)

    def delete(self, name: str, grace: int = 30) -> None:
        """What the API does at a DELETE of a running pod."""

        def change(pod: Json) -> None:
            pod["metadata"]["generation"] += 1
            pod["metadata"]["deletionTimestamp"] = "2026-11-20T20:41:05Z"
            pod["metadata"]["deletionGracePeriodSeconds"] = grace

        self.store.update("pods", "otto", name, change)

    def get(self, name: str) -> Json:
        """The pod as it is now."""
        return self.store.get("pods", "otto", name)

    async def wait_phase(self, name: str, *phases: str) -> Json:
        """Wait until the pod is in one of these phases."""
        while (pod := self._seen(name))["status"].get("phase") not in phases:
            await self._changed.park()
        return pod

    async def wait_waiting(self, name: str, reason: str) -> Json:
        """Wait until a container of the pod waits for this reason."""
        while True:
            status: Json = self._seen(name)["status"]
            for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
                if container["state"].get("waiting", {}).get("reason") == reason:
                    return status
            await self._changed.park()

    async def wait_told(self, name: str, *words: str) -> None:
        """Wait until one change of the pod tells all these words (see `tell`)."""
        while not any(all(word in line for word in words) for line in self.story(name)):
            await self._changed.park()

    async def wait_gone(self, name: str) -> None:
        """Wait until the pod's DELETED is among the changes."""
        while not any(c.type == "DELETED" and c.object["metadata"]["name"] == name for c in self.changes):
            await self._changed.park()

    def _seen(self, name: str) -> Json:
        """The pod as of the last change that was collected, so that `changes` holds what a test waited for."""
        return next((c.object for c in reversed(self.changes) if c.object["metadata"]["name"] == name), {"status": {}})

    def events(self, name: str) -> list[Json]:
        """The events about one pod."""
        return [event for event in self.store.list("events") if event["involvedObject"]["name"] == name]

    def story(self, name: str) -> list[str]:
        """One word group per change of a pod: what a watcher would tell of it."""
        return [tell(c.type, c.object) for c in self.changes if c.object["metadata"]["name"] == name]


def tell(kind: str, pod: Json) -> str:
    """A change in a line: type, deletion, node, phase, conditions and containers, without times."""
    return describe(
        kind,
        pod["metadata"].get("deletionGracePeriodSeconds"),
        pod["spec"].get("nodeName") is not None,
        pod["status"],
    )


def describe(kind: str, grace: int | None, bound: bool, status: Json) -> str:
    """See `tell`."""
    words = [kind, "bound" if bound else "unbound", status.get("phase", ""), status.get("reason", "")]
    words += [] if grace is None else [f"grace={grace}"]
    for condition in status.get("conditions", []):
        words.append(f"{condition['type']}={condition['status']}/{condition.get('reason', '')}")
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        ((state, details),) = container["state"].items()
        words.append(f"{container['name']}:{state}/{details.get('reason', '')}/{details.get('exitCode', '')}")
    return " ".join(words)


def recorded_story(name: str) -> list[str]:
    """The recorded changes of a pod, told in the same way; a change that tells nothing new is left out."""
    case = RECORDED[name]
    story = [describe("ADDED", None, "nodeName" in case["created"]["spec"], case["created"]["status"])]
    for change in case["changes"]:
        grace = change.get("deletionGracePeriodSeconds")
        line = describe(change["type"], grace, change["nodeName"] is not None, change["status"])
        if line != story[-1]:
            story.append(line)
    return story


@asynccontextmanager
async def open_bench(data_dir: Path, **settings: Any) -> AsyncIterator[Bench]:
    """A kubelet in a nursery of its own; ends with everything of it ended."""
    begin = trio.current_time()
    epoch = datetime(2026, 11, 20, 20, 40, 55, tzinfo=UTC)
    store = Store(now=lambda: epoch + timedelta(seconds=trio.current_time() - begin))
    bench = Bench(store, Kubelet(store, data_dir=data_dir, settings=NodeSettings(**settings)))
    with store.subscribe("pods") as changes:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.collect, changes)
            await nursery.start(bench.kubelet.run)
            yield bench
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
