"""Log marks in the in-memory twin: a part of `MemoryStream`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from ottoscaler.stream.marks import Marking, Marks, mark_field
from ottoscaler.stream.memory_state import MemoryServer

T = TypeVar("T")


class MemoryMarks(Marks):
    """What a stream in memory offers about log marks."""

    _server: MemoryServer

    async def _call(self, name: str, script: Callable[[], T]) -> T:
        raise NotImplementedError  # MemoryStream has it

    async def write_marks(self, markings: Sequence[Marking]) -> list[bool]:
        """Write marks."""
        return await self._call("write_marks", lambda: [_write(self._server, marking) for marking in markings])


def _write(server: MemoryServer, marking: Marking) -> bool:
    claim = marking.claim
    if not server.is_held(claim.event_id, claim.session, claim.epoch):
        return False
    server.progress[claim.event_id] |= {mark_field(index, attempt): text for index, attempt, text in marking.marks}
    return True
