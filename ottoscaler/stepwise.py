"""Work that takes long without waiting for anything, a step at a time: between two of them others have their turn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import trio

T = TypeVar("T")


async def last_of(steps: Iterator[T]) -> T:
    """The last of what comes, one at least; others run before each but the first."""
    last = next(steps)
    for last in steps:  # noqa: B007 - what came last is what counts
        await trio.lowlevel.checkpoint()
    return last
