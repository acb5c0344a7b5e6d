"""A scripted API of pods behind one watch: it tells the truth in order, and on demand everything else.

What it does to a watch is what servers, proxies and networks do: it repeats, delivers late and out of order, falls
silent, breaks off, forgets history (410), goes away, and comes back restored from an old backup. `pods` is the truth.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

import trio

from ottoscaler.errors import Expired, OttoscalerError, Unavailable
from ottoscaler.kube.client import WatchEvent
from ottoscaler.pods import EVENT_LABEL, INSTANCE_LABEL

Pod = dict[str, Any]
FAR_BACK = 10**7
"""Versions that a restore goes back: a backup is minutes old, so its versions are not passed again within seconds."""
LATENCY = 0.01


class _Watch:
    """One open watch: what it has still to deliver, in order; an error breaks it off."""

    def __init__(self) -> None:
        self.queue: deque[WatchEvent | OttoscalerError] = deque()
        self.wake = trio.Event()
        self.is_silent = False
        self.told: deque[WatchEvent] = deque(maxlen=40)


class FuzzedApi:
    """The pods of one namespace. `pods` is what a list of the selector shows, `hidden` lost their label."""

    def __init__(self) -> None:
        self.pods: dict[str, Pod] = {}
        self.hidden: dict[str, Pod] = {}
        self.version = 10**12
        self.trouble: OttoscalerError | None = None
        self.ends_at_once = False
        self.expires_in_stream = False
        self.lists = self.watches = self.delivered = 0
        self._compacted = 0
        self._versions: list[int] = []
        self._history: list[WatchEvent] = []
        self._watch = _Watch()
        self._uids = 0

    # -- changes

    def add(self, name: str, event_id: str) -> None:
        """A new pod under a free name."""
        self._uids += 1
        self._put("ADDED", _pod(name, f"uid-{self._uids}", event_id, "Pending", self._next()))

    def modify(self, name: str, phase: str, event_id: str | None = None) -> None:
        """Another phase, or another event's label."""
        metadata = self.pods[name]["metadata"]
        event_id = event_id or metadata["labels"][EVENT_LABEL]
        self._put("MODIFIED", _pod(name, metadata["uid"], event_id, phase, self._next()))

    def delete(self, name: str) -> None:
        """The pod is gone; the event shows its last content at the version of the deletion."""
        last = self.pods.pop(name)
        self._note("DELETED", _at(last, self._next()))

    def hide(self, name: str, *, at_its_own_version: bool) -> None:
        """Its label is taken away: a deletion with the previous content, at the old version or the new one."""
        last = self.pods.pop(name)
        version = self._next()
        self.hidden[name] = _at(last, version)
        self._note("DELETED", last if at_its_own_version else _at(last, version))

    def unhide(self, name: str) -> None:
        """The label is back: for the watch this is a pod that was added."""
        self._put("ADDED", _at(self.hidden.pop(name), self._next()))

    def touch_hidden(self, name: str, *, delete: bool) -> None:
        """Something happens to a pod that no list of the selector shows."""
        version = self._next()
        if delete:
            del self.hidden[name]
        else:
            self.hidden[name] = _at(self.hidden[name], version)

    # -- what the watch does

    def bookmark(self) -> None:
        """Say the version."""
        self._tell(WatchEvent("BOOKMARK", {"metadata": {"resourceVersion": str(self.version)}}))

    def repeat(self, events: list[WatchEvent]) -> None:
        """Say once more, in this order, what is no news."""
        for event in events:
            self._tell(event)

    def recent(self, count: int) -> list[WatchEvent]:
        """The last events that the open watch has told, oldest first."""
        return list(self._watch.told)[-count:]

    def hold_back(self) -> int:
        """From here on events wait until `let_go` puts them in another order; returns how many were told before."""
        return len(self._watch.queue)

    def let_go(self, held: int, order: list[int]) -> None:
        """Deliver the events told since `hold_back` in another order."""
        queue = self._watch.queue
        late = [queue.pop() for _ in range(len(queue) - held)][::-1]
        queue.extend(late[at] for at in order if at < len(late))

    def cut(self, error: OttoscalerError) -> None:
        """Break the open watch off, after what it has still to say."""
        self._watch.queue.append(error)
        self._watch.wake.set()

    def lose(self) -> None:
        """Break the open watch off; what it had still to say never arrives."""
        self._watch.queue.clear()
        self.cut(Unavailable("the watch broke off"))

    def silence(self) -> None:
        """The open watch says nothing more and never ends."""
        self._watch.is_silent = True

    def compact(self) -> None:
        """Forget the history."""
        self._compacted = self.version
        self._history.clear()
        self._versions.clear()

    def restore(self, lost: list[str], versions_back: int) -> None:
        """Come back as an old backup: lower versions, some pods unknown; open watches fall silent."""
        self.compact()
        self.version -= versions_back
        self._compacted = 0
        for name in lost:
            self.pods.pop(name, None)
            self.hidden.pop(name, None)
        for pods in (self.pods, self.hidden):
            for name, pod in pods.items():
                pods[name] = _at(pod, int(pod["metadata"]["resourceVersion"]) - versions_back)
        self.silence()

    # -- as the API

    async def list_pods(self, namespace: str, selector: str) -> tuple[list[Pod], int]:
        """The pods as they were when the server read them; the answer takes a while."""
        self.lists += 1
        self._answer()
        listed, version = list(self.pods.values()), self.version
        await trio.sleep(LATENCY)
        return listed, version

    async def watch_pods(
        self, namespace: str, selector: str, resource_version: int, timeout_seconds: int = 30
    ) -> AsyncGenerator[WatchEvent, None]:
        """History after a version, then news; one from the future is silent for ever."""
        self.watches += 1
        await trio.sleep(LATENCY)
        self._answer()
        watch = self._watch = _Watch()
        if resource_version < self._compacted:
            watch.queue.append(Expired("too old resource version"))
            if not self.expires_in_stream:
                raise Expired("too old resource version")
        watch.is_silent = resource_version > self.version
        watch.queue.extend(self._history[bisect_right(self._versions, resource_version) :])
        ends = trio.current_time() + (0.0 if self.ends_at_once else timeout_seconds)
        while True:
            while watch.queue and (not watch.is_silent or isinstance(watch.queue[0], OttoscalerError)):
                said = watch.queue.popleft()
                if isinstance(said, OttoscalerError):
                    raise said
                self.delivered += 1
                watch.told.append(said)
                yield said
            with trio.move_on_at(math.inf if watch.is_silent else ends) as limit:
                await watch.wake.wait()
                watch.wake = trio.Event()
            if limit.cancelled_caught:
                return

    def _answer(self) -> None:
        if self.trouble is not None:
            raise self.trouble

    def _next(self) -> int:
        self.version += 1
        return self.version

    def _put(self, kind: str, pod: Pod) -> None:
        self.pods[pod["metadata"]["name"]] = pod
        self._note(kind, pod)

    def _note(self, kind: str, pod: Pod) -> None:
        event = WatchEvent(kind, pod)
        self._history.append(event)
        self._versions.append(self.version)
        self._tell(event)

    def _tell(self, event: WatchEvent) -> None:
        if not self._watch.is_silent:
            self._watch.queue.append(event)
            self._watch.wake.set()


def _pod(name: str, uid: str, event_id: str, phase: str, version: int) -> Pod:
    labels = {INSTANCE_LABEL: "i", EVENT_LABEL: event_id}
    metadata = {"name": name, "uid": uid, "resourceVersion": str(version), "labels": labels}
    return {"metadata": metadata, "status": {"phase": phase}}


def _at(pod: Pod, version: int) -> Pod:
    return {**pod, "metadata": {**pod["metadata"], "resourceVersion": str(version)}}
