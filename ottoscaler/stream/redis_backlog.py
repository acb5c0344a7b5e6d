"""What waits in the stream, asked of Redis: a part of `RedisStream`."""

from __future__ import annotations

from typing import Any

from ottoscaler.stream.answers import text, texts
from ottoscaler.stream.backlog import Backlog, EventFacts, HasBacklog, Holder, Overview
from ottoscaler.stream.entry_id import parse_id
from ottoscaler.stream.keys import Keys
from ottoscaler.stream.link import Link
from ottoscaler.stream.scripts import Scripts

PAGE = 500  # live events looked at in one call


class RedisBacklog(HasBacklog):
    """The part of a stream in Redis. The lag that Redis gives is lost by one XDEL of an unread entry, so up to 1,000
    entries are counted where it is unknown.
    """

    _scripts: Scripts
    _aside: Link
    _keys: Keys

    async def backlog(self) -> Backlog:
        """What waits."""
        entries, waiting, oldest = await self._scripts.call(self._aside, "backlog")
        return Backlog(entries, None if waiting < 0 else waiting, None if oldest < 0 else oldest / 1000)

    async def overview(self, letters: int) -> Overview:
        """All that is going on."""
        raw = await self._aside.command("ZRANGEBYSCORE", self._keys.live, "-inf", "+inf")
        ids = sorted(map(text, raw), key=parse_id)
        pages = [ids[start : start + PAGE] for start in range(0, len(ids), PAGE)] or [[]]
        events: list[EventFacts] = []
        for page in pages:
            answer = await self._scripts.call(self._aside, "overview", ids=page, letters=letters)
            events += map(_facts, answer[3])
        holders, number, last, _ = answer
        return Overview(
            holders=tuple(Holder(text(name), left / 1000, held, text(away)) for name, left, held, away in holders),
            events=tuple(events),
            dead_letters=number,
            last_letters=tuple((text(id_), texts(flat)) for id_, *flat in last),
        )


def _facts(raw: list[Any]) -> EventFacts:
    id_, type_, owner, task_id, planned, created, ended, trouble, request_id = map(text, raw)
    counts = int(planned), int(created), int(ended)
    return EventFacts(id_, type_, owner, task_id, *counts, trouble, request_id)
