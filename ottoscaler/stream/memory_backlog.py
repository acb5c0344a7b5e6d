"""What waits in the stream in memory: a part of `MemoryStream`, and its script as a plain function."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import TypeVar

from ottoscaler.stream.backlog import Backlog, HasBacklog
from ottoscaler.stream.entry_id import parse_id
from ottoscaler.stream.memory_state import MemoryServer

T = TypeVar("T")


class MemoryBacklog(HasBacklog):
    """The part of a stream in memory."""

    _server: MemoryServer

    async def _call(self, name: str, script: Callable[[], T]) -> T:
        raise NotImplementedError  # MemoryStream has it

    async def backlog(self) -> Backlog:
        """What waits."""
        return await self._call("backlog", lambda: _backlog(self._server))


def _backlog(server: MemoryServer) -> Backlog:
    group = server.events.groups.get(server.keys.group)
    if group is None:
        return Backlog(len(server.events), None, None)
    unread = [entry_id for entry_id, _ in server.events.after(group.last, len(server.events))]
    waiting = [parse_id(event_id)[0] for event_id in chain(unread, *server.offered.values())]
    oldest = (server.now() - min(waiting)) / 1000 if waiting else 0.0
    return Backlog(len(server.events), len(waiting), max(0.0, oldest))
