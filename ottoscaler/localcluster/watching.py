"""Watches: what was there, what changed since, what changes now, bookmarks in between, and every recorded edge.

`translate` decides what one change means to one watch, `Watch.run` sends it. Events that are ready together are sent
together. Faults reach an open watch through its `OpenWatch`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
import trio

from .exchange import Request, Response, Send, object_bytes
from .faults import Faults, OpenWatch
from .listing import parse_count, parse_version, request_selector
from .refusals import Cause, expired, invalid
from .resources import Resource
from .selectors import Selector
from .store import Change, Expired, Objects, Published, Store, Subscription

BOOKMARK_SECONDS = 60.0
_LAST_BOOKMARKS = (2.0, 0.8)  # seconds before a watch's timeout
_TIMEOUT_SECONDS = (1800, 3600)  # of a watch that names none: somewhere between

Encode = Callable[[str, Published], bytes]  # (event type, object) to a whole line


def translate(change: Change, selector: Selector, namespace: str | None) -> tuple[str, Published] | None:
    """What a change means to a watch: an event type and object, or None.

    An object that leaves the selection is DELETED with its previous content at the new version, one that enters ADDED.
    """
    if namespace is not None and change.object["metadata"].get("namespace", "") != namespace:
        return None
    was = change.previous is not None and selector.matches(change.previous)
    if change.type == "DELETED":
        return ("DELETED", change.object) if was else None
    if selector.matches(change.object):
        return ("MODIFIED" if was else "ADDED"), change.object
    if not was or change.previous is None:
        return None
    version = {"resourceVersion": change.object["metadata"]["resourceVersion"]}
    return "DELETED", Published({**change.previous, "metadata": {**change.previous["metadata"], **version}})


def encode_event(resource: Resource) -> Encode:
    """The plain encoding of events: whole objects."""

    def encode(event: str, obj: Published) -> bytes:
        return b'{"type":"%s","object":%s}\n' % (event.encode(), object_bytes(resource, obj))

    return encode


@dataclass(frozen=True, slots=True)
class Watch:
    """One watch, as asked for. `since` is the version to go on from; None: begin with what is there."""

    store: Store
    resource: Resource
    namespace: str | None
    selector: Selector
    since: int | None
    has_bookmarks: bool
    marks_initial_end: bool
    timeout: float
    encode: Encode
    bookmark_seconds: float = BOOKMARK_SECONDS

    async def run(self, send: Send, opened: OpenWatch) -> None:
        """Send events until the timeout."""
        with self.store.subscribe(self.resource.plural) as changes:
            first, revision = self._initial_events()
            if first:
                await opened.send(send, first)
            if revision is None:
                return  # an ERROR event ends the watch
            await self._follow(send, opened, changes, revision)

    def _initial_events(self) -> tuple[bytes, int | None]:
        """The first events, and the version from which to go on; None after an ERROR."""
        if self.since is None:
            objects = self._selected()
            lines = b"".join(self.encode("ADDED", obj) for obj in objects)
            if self.marks_initial_end:
                lines += self._bookmark(self.store.revision, is_initial_end=True)
            return lines, self.store.revision
        try:
            past = self.store.changes_since(self.resource.plural, self.since)
        except Expired as error:
            return b'{"type":"ERROR","object":%s}\n' % msgspec.json.encode(expired(str(error)).status()), None
        return self._encode_all(past), self.since

    def _selected(self) -> Objects:
        return [o for o in self.store.list(self.resource.plural, self.namespace) if self.selector.matches(o)]

    def _encode_all(self, changes: list[Change]) -> bytes:
        events = (translate(change, self.selector, self.namespace) for change in changes)
        return b"".join(self.encode(*event) for event in events if event is not None)

    async def _follow(self, send: Send, opened: OpenWatch, changes: Subscription, revision: int) -> None:
        """Pass on what changes, with a bookmark at each due time; only waiting is ever cut, never a send."""
        start = trio.current_time()
        for due in (*self._bookmark_times(start), start + self.timeout):
            while True:
                ready: list[Change] = []
                with trio.move_on_at(due):
                    ready.append(await changes.receive())
                is_due = not ready
                ready += _drain(changes)
                lines = self._encode_all([change for change in ready if change.revision > revision])
                if is_due and due < start + self.timeout and self.store.revision >= revision:
                    lines += self._bookmark(self.store.revision)
                if lines:
                    await opened.send(send, lines)
                if is_due:
                    break

    def _bookmark_times(self, start: float) -> Iterator[float]:
        """When bookmarks are due: now and then, and twice shortly before the end, as the real server sends them."""
        if not self.has_bookmarks:
            return
        is_long = self.timeout > _LAST_BOOKMARKS[0]  # a watch of 2 s was recorded without any
        last = [start + self.timeout - before for before in _LAST_BOOKMARKS] if is_long else []
        moment = start + self.bookmark_seconds
        while is_long and moment < last[0]:
            yield moment
            moment += self.bookmark_seconds
        yield from last

    def _bookmark(self, revision: int, *, is_initial_end: bool = False) -> bytes:
        metadata: dict[str, object] = {"resourceVersion": str(revision)}
        if is_initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        empty: dict[str, object] = {"metadata": metadata}
        if self.resource.plural == "pods":
            empty |= {"spec": {"containers": None}, "status": {}}
        return self.encode("BOOKMARK", Published(empty))


def _drain(changes: Subscription) -> list[Change]:
    """All changes that are there already."""
    ready: list[Change] = []
    while True:
        try:
            ready.append(changes.receive_nowait())
        except trio.WouldBlock:
            return ready


def open_watch(
    store: Store, faults: Faults, resource: Resource, namespace: str | None, request: Request, encode: Encode
) -> Response:
    """The answer to a watch request; raises ApiError for what cannot be watched."""
    starts_with_list = _check_options(request)
    version = parse_version(request.query.get("resourceVersion", ""))
    timeout = parse_count("timeoutSeconds", request.query.get("timeoutSeconds", "")) or random.randint(
        *_TIMEOUT_SECONDS
    )
    has_bookmarks = request.has_flag("allowWatchBookmarks")
    watch = Watch(
        store,
        resource,
        namespace,
        request_selector(resource, request),
        None if starts_with_list or not version else version,
        has_bookmarks,
        starts_with_list and has_bookmarks,
        timeout,
        encode,
    )

    async def stream(send: Send) -> None:
        with faults.open_watch(request.path) as opened:
            await watch.run(send, opened)

    return Response(stream=stream)


def _check_options(request: Request) -> bool:
    """Whether the watch begins with a streamed list; raises ApiError 422 for options that do not go together."""
    starts_with_list = request.has_flag("sendInitialEvents")
    match = request.query.get("resourceVersionMatch", "")
    why = ""
    if starts_with_list and match != "NotOlderThan":
        why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
    elif match and "sendInitialEvents" not in request.query:
        why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
    if why:
        options = Resource("listoptions", "ListOptions", "meta.k8s.io")
        raise invalid(options, "", [Cause("FieldValueForbidden", f"Forbidden: {why}", "resourceVersionMatch")])
    return starts_with_list
