"""What waits in the stream in memory: a part of `MemoryStream`, and its script as a plain function."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import TypeVar

import msgspec

from ottoscaler.stream.backlog import Backlog, EventFacts, HasBacklog, Holder, Overview
from ottoscaler.stream.entry_id import parse_id
from ottoscaler.stream.memory_state import MemoryServer
from ottoscaler.stream.progress import is_newer

T = TypeVar("T")
TYPES = {"work": "scale_up", "pipelines": "pipeline"}
LETTER = (b"event_id", b"cause", b"reason", b"failed_at")


class MemoryBacklog(HasBacklog):
    """The part of a stream in memory."""

    _server: MemoryServer

    async def _call(self, name: str, script: Callable[[], T]) -> T:
        raise NotImplementedError  # MemoryStream has it

    async def backlog(self) -> Backlog:
        """What waits."""
        return await self._call("backlog", lambda: _backlog(self._server))

    async def overview(self, letters: int) -> Overview:
        """All that is going on."""
        return await self._call("overview", lambda: _overview(self._server, letters))


def _backlog(server: MemoryServer) -> Backlog:
    group = server.events.groups.get(server.keys.group)
    if group is None:
        return Backlog(len(server.events), None, None)
    unread = [entry_id for entry_id, _ in server.events.after(group.last, len(server.events))]
    waiting = [parse_id(event_id)[0] for event_id in chain(unread, *server.offered.values())]
    oldest = (server.now() - min(waiting)) / 1000 if waiting else 0.0
    return Backlog(len(server.events), len(waiting), max(0.0, oldest))


def _overview(server: MemoryServer, letters: int) -> Overview:
    now = server.now()
    last = server.dead_letters.before("", letters)
    return Overview(
        holders=tuple(
            Holder(session, (until - now) / 1000, len(server.held.get(session, ())), server.outages.get(session, ""))
            for session, until in sorted(server.sessions.items(), key=lambda item: (item[1], item[0]))
        ),
        events=tuple(_facts(server, event_id) for event_id in server.live_ids()),
        dead_letters=len(server.dead_letters),
        last_letters=tuple(
            (id_, {name.decode(): value.decode() for name, value in pairs if name in LETTER}) for id_, pairs in last
        ),
    )


def _facts(server: MemoryServer, event_id: str) -> EventFacts:
    fields = server.progress[event_id]
    type_ = "" if is_newer(fields) else TYPES.get(fields["lane"]) or dict(msgspec.json.decode(fields["entry"]))["type"]
    return EventFacts(
        event_id=event_id,
        type=type_,
        owner=fields["owner"],
        task_id=fields["task_id"],
        planned=int(fields["planned"]),
        created=int(fields.get("created", 0)),
        ended=int(fields.get("ended", 0)),
        trouble=fields.get("trouble", ""),
        request_id=server.requested.get(event_id, ""),
    )
