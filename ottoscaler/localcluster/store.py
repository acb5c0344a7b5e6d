"""The cluster's state: objects, one revision counter over all of them, and the changes that led here.

Pure state, no I/O: every method is synchronous, so a caller that does not await between two calls sees both
as one step. Objects are JSON-shaped dicts, never mutated after publication: readers may keep them, writers
get a copy. Who reads changes (the kubelet, each watch) subscribes and gets them all, in order.
"""

from __future__ import annotations

import math
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from types import TracebackType
from typing import Any, Literal, Self

import msgspec
import trio

HISTORY_LENGTH = 10_000  # changes kept per resource: what a watch that comes back late can still be told

ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]


class NotFound(LookupError):
    """No such object: `resource` (plural) and `name` say which."""

    def __init__(self, resource: str, namespace: str, name: str) -> None:
        super().__init__(f'{resource} "{name}" not found in namespace "{namespace}"')
        self.resource, self.namespace, self.name = resource, namespace, name


class AlreadyExists(Exception):
    """An object of that `resource` and `name` is there already."""

    def __init__(self, resource: str, namespace: str, name: str) -> None:
        super().__init__(f'{resource} "{name}" already exists in namespace "{namespace}"')
        self.resource, self.namespace, self.name = resource, namespace, name


class Expired(Exception):
    """The history asked for is compacted away: `revision` was asked, `oldest` is the first that is left."""

    def __init__(self, revision: int, oldest: int) -> None:
        super().__init__(f"too old resource version: {revision} ({oldest})")
        self.revision, self.oldest = revision, oldest


class Published(dict[str, Any]):
    """An object as published: a plain dict that is not to be changed, with its JSON encoded at most once."""

    @cached_property
    def json(self) -> bytes:
        """The object as JSON, shared by every list and watch that sends it; kind and apiVersion are added there."""
        return msgspec.json.encode({key: value for key, value in self.items() if key not in ("kind", "apiVersion")})


@dataclass(frozen=True, slots=True)
class Change:
    """One step of the store: `object` is the new content (DELETED: the last one, at a new version)."""

    type: ChangeType
    object: Published
    previous: Published | None
    revision: int


# Named here, because inside Store `list` is a method.
Objects = list[Published]
Changes = list[Change]


class Subscription:
    """All changes of one resource from now on: enter it, then iterate. Unbounded: nothing is lost."""

    def __init__(self, subscribers: list[Subscription]) -> None:
        self._send, self._receive = trio.open_memory_channel[Change](math.inf)
        self._subscribers = subscribers

    def __enter__(self) -> Self:
        self._subscribers.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._subscribers.remove(self)
        self._send.close()

    def publish(self, change: Change) -> None:
        """Hand one change over (the store's side)."""
        self._send.send_nowait(change)

    def receive_nowait(self) -> Change:
        """The next change; raises trio.WouldBlock where there is none yet."""
        return self._receive.receive_nowait()

    async def receive(self) -> Change:
        """Wait for the next change."""
        return await self._receive.receive()

    def __aiter__(self) -> AsyncIterator[Change]:
        return self._receive.__aiter__()


def copy_json(value: Any) -> Any:
    """A deep copy of a JSON-shaped value, about ten times as fast as copy.deepcopy."""
    if isinstance(value, dict):
        return {key: copy_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copy_json(item) for item in value]
    return value


def format_time(moment: datetime) -> str:
    """A moment as Kubernetes writes it in metadata: RFC 3339, UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Shelf:
    """All objects of one resource, the changes kept, and who listens."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Published] = {}
        self.changes: deque[Change] = deque()
        self.subscribers: list[Subscription] = []
        self.compacted = 0  # changes up to this revision are gone


class Store:
    """Objects by resource (plural: "pods", "events" …), namespace ("" where cluster wide) and name.

    `now` gives the wall clock, for `creationTimestamp`.
    """

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.revision = 1
        self.now = now
        self._shelves: dict[str, _Shelf] = {}

    def create(self, resource: str, obj: dict[str, Any]) -> Published:
        """Keep a copy of `obj` with uid, creationTimestamp and resourceVersion set; publish ADDED."""
        metadata = {**obj["metadata"]}
        key = (metadata.get("namespace", ""), metadata["name"])
        if key in self._shelf(resource).objects:
            raise AlreadyExists(resource, *key)
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = format_time(self.now())
        return self._publish(resource, "ADDED", key, copy_json({**obj, "metadata": metadata}), None)

    def get(self, resource: str, namespace: str, name: str) -> Published:
        """The object as last published; raises NotFound."""
        try:
            return self._shelf(resource).objects[namespace, name]
        except KeyError:
            raise NotFound(resource, namespace, name) from None

    def list(self, resource: str, namespace: str | None = None) -> Objects:
        """All objects, of one namespace or of all, sorted by namespace and name."""
        objects = self._shelf(resource).objects
        return [objects[key] for key in sorted(objects) if namespace is None or key[0] == namespace]

    def list_at(self, resource: str, revision: int) -> Objects:
        """All objects as they were at an earlier revision, same order; raises Expired."""
        objects = dict(self._shelf(resource).objects)
        for change in reversed(self.changes_since(resource, revision)):
            metadata = change.object["metadata"]
            key = (metadata.get("namespace", ""), metadata["name"])
            if change.previous is None:
                del objects[key]
            else:
                objects[key] = change.previous
        return [objects[key] for key in sorted(objects)]

    def update(self, resource: str, namespace: str, name: str, change: Callable[[dict[str, Any]], None]) -> Published:
        """Let `change` edit a copy; publish MODIFIED if anything differs. Raises NotFound."""
        before = self.get(resource, namespace, name)
        after = copy_json(before)
        change(after)
        if after == before:
            return before
        for field, value in after.items():
            if field in before and value == before[field]:
                after[field] = before[field]  # versions share what did not change: less memory
        return self._publish(resource, "MODIFIED", (namespace, name), after, before)

    def remove(self, resource: str, namespace: str, name: str) -> Published:
        """Forget the object; publish DELETED with its last content at a new version. Raises NotFound."""
        before = self.get(resource, namespace, name)
        return self._publish(resource, "DELETED", (namespace, name), dict(before), before)

    def subscribe(self, resource: str) -> Subscription:
        """A context manager and async iterable of the Changes from its entry on."""
        return Subscription(self._shelf(resource).subscribers)

    def changes_since(self, resource: str, revision: int) -> Changes:
        """The changes after `revision`, in order; raises Expired where some of them are compacted away."""
        shelf = self._shelf(resource)
        if revision < shelf.compacted:
            raise Expired(revision, shelf.compacted)
        recent: Changes = []
        for change in reversed(shelf.changes):
            if change.revision <= revision:
                break
            recent.append(change)
        recent.reverse()
        return recent

    def compact(self, revision: int) -> None:
        """Forget all changes up to `revision`: watches from before it get 410."""
        for shelf in self._shelves.values():
            while shelf.changes and shelf.changes[0].revision <= revision:
                shelf.changes.popleft()
            shelf.compacted = max(shelf.compacted, revision)

    def _shelf(self, resource: str) -> _Shelf:
        return self._shelves.setdefault(resource, _Shelf())

    def _publish(
        self,
        resource: str,
        change_type: ChangeType,
        key: tuple[str, str],
        obj: dict[str, Any],
        previous: Published | None,
    ) -> Published:
        """Give `obj` the next revision, keep or forget it, and tell everybody."""
        self.revision += 1
        obj["metadata"] = {**obj["metadata"], "resourceVersion": str(self.revision)}
        published = Published(obj)
        shelf = self._shelf(resource)
        if change_type == "DELETED":
            del shelf.objects[key]
        else:
            shelf.objects[key] = published
        change = Change(change_type, published, previous, self.revision)
        shelf.changes.append(change)
        if len(shelf.changes) > HISTORY_LENGTH:
            shelf.compacted = shelf.changes.popleft().revision
        for subscriber in tuple(shelf.subscribers):
            subscriber.publish(change)
        return published
