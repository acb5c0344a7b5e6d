"""Work that can wait lets all other go first: a loud log takes what the quiet ones leave of the loop.

Trio has one queue and no priorities. A line of a quiet worker passes four tasks on its way, and would wait in front of
each while a loud one's thousand lines are cut, encoded or counted. So what is done for many lines at a time is done in
small pieces, and before each of them the loop has to be out of other work.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import trio

CALM_LOOKS = 3
"""Nobody else had something to do at so many looks, one after the other: tasks of one turn of the loop run in any
order, so that one look alone may come too early.
"""
MOST_LOOKS = 12
"""After so many, each a turn of the loop, it is our turn in any case: others may always be busy."""
FEW_BYTES = 4 << 10
"""A piece of a log up to this size is taken in at once, what is larger"""
SLICE_BYTES = 16 << 10
"""in turns of so much, about 0.4 ms."""


class Turns:
    """Admits one at a time, in order of arrival, when nothing else is to be done."""

    def __init__(self) -> None:
        self._lock = trio.Lock()

    async def wait(self) -> None:
        """Return when it is the caller's turn; what it does until its next `await` is its turn."""
        async with self._lock:
            calm = 0
            for _ in range(MOST_LOOKS):
                await trio.lowlevel.checkpoint()
                calm = 0 if trio.lowlevel.current_statistics().tasks_runnable else calm + 1
                if calm == CALM_LOOKS:
                    break


async def in_turns(pieces: AsyncGenerator[bytes, None], turns: Turns) -> AsyncGenerator[bytes, None]:
    """The same bytes, where they are many each slice in its turn. Close it with `aclosing`."""
    async with aclosing(pieces):
        async for piece in pieces:
            if len(piece) <= FEW_BYTES:
                yield piece
                continue
            for at in range(0, len(piece), SLICE_BYTES):
                await turns.wait()
                yield piece[at : at + SLICE_BYTES]
