"""A limit shared fairly: whoever waits under a key that has had least lately comes next.

Used twice: for the workers that may live at a time (key = event), and for the writes under way to the API (keys =
verb, then event; see `throttle.py`), so that a huge event starves no small one and a storm of creates delays nobody's
delete.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio


class FairStatistics(NamedTuple):
    """A snapshot: units in use, the limit, and how many tasks wait."""

    used: int
    limit: int
    waiting: int


class _Turns:
    """Who waits: branches by key, which take turns, and at the end of a path the waiting tasks in order of arrival.

    The order of turns is that of `_branches`: a branch that was served goes to the end. Every step costs the same
    however many wait, so that a cancel of 10,000 waiting tasks is over at once.
    """

    def __init__(self) -> None:
        self._branches: OrderedDict[str, _Turns] = OrderedDict()
        self._tasks: OrderedDict[trio.Event, None] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._branches or self._tasks)

    def add(self, path: tuple[str, ...], task: trio.Event) -> None:
        """Queue up at the end of the path."""
        if path:
            self._branches.setdefault(path[0], _Turns()).add(path[1:], task)
        else:
            self._tasks[task] = None

    def pop(self) -> trio.Event:
        """Take out who comes next."""
        if not self._branches:
            return self._tasks.popitem(last=False)[0]
        key, branch = next(iter(self._branches.items()))
        task = branch.pop()
        if branch:
            self._branches.move_to_end(key)
        else:
            del self._branches[key]
        return task

    def discard(self, path: tuple[str, ...], task: trio.Event) -> None:
        """Take out one that waits no more."""
        if not path:
            del self._tasks[task]
            return
        branch = self._branches[path[0]]
        branch.discard(path[1:], task)
        if not branch:
            del self._branches[path[0]]


class FairLimiter:
    """At most `limit` units at a time; waiting keys take turns, within one key it is first come, first served.

    With several keys (`hold("delete", event_id)`) the first ones take turns, and within each the second ones. All
    users of one limiter give the same number of keys.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.wanted = trio.Event()
        """Set when somebody has to wait; whoever can raise the limit replaces it."""
        self._turns = _Turns()
        self._waiting = 0
        self._idle = trio.Event()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.used}/{self.limit} used, {self._waiting} waiting>"

    def statistics(self) -> FairStatistics:
        """How full it is now."""
        return FairStatistics(self.used, self.limit, self._waiting)

    async def acquire(self, *keys: str) -> None:
        """Wait for a unit; a cancel while waiting takes none."""
        await trio.lowlevel.checkpoint()
        if self.used < self.limit and not self._waiting:
            self.used += 1
            return
        turn = trio.Event()
        self._turns.add(keys, turn)
        self._waiting += 1
        self.wanted.set()
        try:
            await turn.wait()
        except trio.Cancelled:
            self._give_up(keys, turn)
            raise

    def acquire_beyond(self) -> None:
        """Take a unit even beyond the limit: for what exists already and is only counted (adopted pods)."""
        self.used += 1

    def resize(self, limit: int) -> None:
        """Another limit from now on; units beyond a lower one are not taken away."""
        self.limit = limit
        self._serve()

    def release(self) -> None:
        """Give a unit back; the next key in turn gets it."""
        self.used -= 1
        self._serve()
        if not self.used:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Return when nobody holds a unit."""
        await trio.lowlevel.checkpoint()
        while self.used:
            self._idle = trio.Event()
            await self._idle.wait()

    @asynccontextmanager
    async def hold(self, *keys: str) -> AsyncIterator[None]:
        """Hold one unit for the time of the block."""
        await self.acquire(*keys)
        try:
            yield
        finally:
            self.release()

    def _serve(self) -> None:
        while self.used < self.limit and self._waiting:
            self._turns.pop().set()
            self._waiting -= 1
            self.used += 1

    def _give_up(self, keys: tuple[str, ...], turn: trio.Event) -> None:
        if turn.is_set():  # served in the same instant as cancelled: pass it on
            self.release()
            return
        self._turns.discard(keys, turn)
        self._waiting -= 1
