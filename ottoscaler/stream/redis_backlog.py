"""What waits in the stream, asked of Redis: a part of `RedisStream`."""

from __future__ import annotations

from ottoscaler.stream.backlog import Backlog, HasBacklog
from ottoscaler.stream.link import Link
from ottoscaler.stream.scripts import Scripts


class RedisBacklog(HasBacklog):
    """The part of a stream in Redis. The lag that Redis gives is lost by one XDEL of an unread entry, so up to 1,000
    entries are counted where it is unknown.
    """

    _scripts: Scripts
    _aside: Link

    async def backlog(self) -> Backlog:
        """What waits."""
        entries, waiting, oldest = await self._scripts.call(self._aside, "backlog")
        return Backlog(entries, None if waiting < 0 else waiting, None if oldest < 0 else oldest / 1000)
