"""Work that can wait lets all other go first: a loud log takes what the quiet ones leave of the loop.

Trio has one queue and no priorities. A line of a quiet worker passes four tasks on its way, and would wait in front of
each while a loud one's thousand lines are cut, encoded or counted. So what is done for many lines at a time is done in
small pieces, and before each of them the loop has to be out of other work.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import trio

CALM_LOOKS = 3
"""Nobody else had something to do at so many looks, one after the other: tasks of one turn of the loop run in any
order, so that one look alone may come too early.
"""
MOST_LOOKS = 16
"""After so many, each a turn of the loop, it is our turn in any case: others may always be busy."""
FEW_BYTES = 4 << 10
"""A piece of a log up to this size is taken in at once, what is larger"""
SLICE_BYTES = 16 << 10
"""in turns of so much, about 0.4 ms."""


class Turns:
    """Admits one at a time, when nothing else is to be done. Those who send alternate with those who read, however many
    these are.
    """

    def __init__(self) -> None:
        self._next, self._next_reader = trio.Lock(), trio.Lock()

    async def wait(self) -> None:
        """Return when it is the caller's turn; what it does until its next `await` is its turn."""
        async with _holding(self._next):
            calm = 0
            for _ in range(MOST_LOOKS):
                await trio.lowlevel.checkpoint()
                calm = 0 if trio.lowlevel.current_statistics().tasks_runnable else calm + 1
                if calm == CALM_LOOKS:
                    break

    async def read(self, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """The same bytes of a log, where they are many each slice in its turn. Close it with `aclosing`."""
        async with aclosing(pieces):
            async for piece in pieces:
                if len(piece) <= FEW_BYTES:
                    yield piece
                    continue
                for at in range(0, len(piece), SLICE_BYTES):
                    async with _holding(self._next_reader):
                        await self.wait()
                    yield piece[at : at + SLICE_BYTES]


@asynccontextmanager
async def _holding(lock: trio.Lock) -> AsyncIterator[None]:
    """Hold a lock; one that is free is taken without a checkpoint."""
    try:
        lock.acquire_nowait()
    except trio.WouldBlock:
        await lock.acquire()
    try:
        yield
    finally:
        lock.release()
