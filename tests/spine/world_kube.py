"""One scaler's client of a `World`: the methods that the spine uses of `ottoscaler.kube.client.Kube`, and faults."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Set
from typing import Any

import trio

from ottoscaler.errors import Ambiguous, Conflict, Expired, NotFound
from ottoscaler.kube.client import WatchEvent
from tests.spine.world import World, lost


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
        self.list_delay = 0.0
        """Seconds between what a list is read from and its arrival."""
        self.silent_until = 0.0
        """Until then (clock of trio) a watch of pods tells nothing, and does not end."""

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
        if self._world.strangers and body["metadata"]["name"] not in self._world.pods:
            self._world.put_stranger(body["metadata"]["name"], self._world.strangers.pop())
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
        await trio.sleep(self._latency / 2)
        if error := self.fail("get", name):
            raise error
        pod = self._world.pods.get(name)
        await trio.sleep(self._latency / 2)
        if pod is None:
            raise NotFound(f'pods "{name}" not found', status=404, reason="NotFound")
        return pod

    async def list_pods(self, namespace: str, selector: str) -> tuple[list[dict[str, Any]], int]:
        """As `Kube.list_pods`."""
        await trio.sleep(self._latency)
        if error := self.fail("list", selector):
            raise error
        wanted = _labels_of(selector)
        pods = [pod for pod in self._world.pods.values() if wanted <= pod["metadata"].get("labels", {}).items()]
        version = self._world.version
        if self.list_delay:
            await trio.sleep(self.list_delay)
        return pods, version

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
            if self.silent_until > trio.current_time():
                await trio.sleep_until(self.silent_until)
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


def _labels_of(selector: str) -> Set[tuple[str, str]]:
    return dict(part.split("=") for part in selector.split(",")).items()
