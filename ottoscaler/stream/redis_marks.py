"""Log marks in Redis: a part of `RedisStream`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ottoscaler.stream.marks import Marking, Marks, mark_field

PAGE = 500  # marks handled by one script call


class RedisMarks(Marks):
    """What a stream in Redis offers about log marks."""

    async def _call(self, name: str, **arguments: Any) -> Any:
        raise NotImplementedError  # RedisStream has it

    async def write_marks(self, markings: Sequence[Marking]) -> list[bool]:
        """Write marks."""
        are_ours = [True] * len(markings)
        rows = [
            (at, (one.claim.event_id, one.claim.session, str(one.claim.epoch)), mark_field(index, attempt), text)
            for at, one in enumerate(markings)
            for index, attempt, text in one.marks
        ]
        for start in range(0, len(rows), PAGE):
            page = rows[start : start + PAGE]
            raw = await self._call("mark", marks=[row[1:] for row in page])
            for (at, *_), is_ours in zip(page, raw, strict=True):
                are_ours[at] = are_ours[at] and bool(is_ours)
        return are_ours
