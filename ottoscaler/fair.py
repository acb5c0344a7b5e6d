"""A limit shared fairly: whoever waits under a key that has had least lately comes next.

Used twice: for the workers that may live at a time (key = event), and for the writes under way to the API (key =
event and verb), so that a huge event starves no small one and a storm of creates delays nobody's delete.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio


class FairStatistics(NamedTuple):
    """A snapshot: units in use, the limit, and how many tasks wait."""

    used: int
    limit: int
    waiting: int


class FairLimiter:
    """At most `limit` units at a time; waiting keys take turns, within one key it is first come, first served.

    The order of turns is the order of the keys in `_waiting`: a key that was served goes to the end.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._waiting: OrderedDict[str, deque[trio.Event]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<FairLimiter {self.used}/{self.limit} used, {self.statistics().waiting} waiting>"

    def statistics(self) -> FairStatistics:
        """How full it is now."""
        return FairStatistics(self.used, self.limit, sum(len(queue) for queue in self._waiting.values()))

    async def acquire(self, key: str) -> None:
        """Wait for a unit; a cancel while waiting takes none."""
        await trio.lowlevel.checkpoint()
        if self.used < self.limit and not self._waiting:
            self.used += 1
            return
        turn = trio.Event()
        self._waiting.setdefault(key, deque()).append(turn)
        try:
            await turn.wait()
        except trio.Cancelled:
            self._give_up(key, turn)
            raise

    def acquire_beyond(self) -> None:
        """Take a unit even beyond the limit: for what exists already and is only counted (adopted pods)."""
        self.used += 1

    def release(self) -> None:
        """Give a unit back; the next key in turn gets it."""
        self.used -= 1
        self._serve()

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncIterator[None]:
        """Hold one unit for the time of the block."""
        await self.acquire(key)
        try:
            yield
        finally:
            self.release()

    def _serve(self) -> None:
        while self.used < self.limit and self._waiting:
            key, queue = next(iter(self._waiting.items()))
            queue.popleft().set()
            self.used += 1
            if queue:
                self._waiting.move_to_end(key)
            else:
                del self._waiting[key]

    def _give_up(self, key: str, turn: trio.Event) -> None:
        if turn.is_set():  # served in the same instant as cancelled: pass it on
            self.release()
            return
        queue = self._waiting[key]
        queue.remove(turn)
        if not queue:
            del self._waiting[key]
