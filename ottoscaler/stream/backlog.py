"""What waits in the stream, for people to see. Asked seldom, on a connection of its own, and never needed for work."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backlog:
    """`entries` of the stream; events that `waiting` for an owner: not delivered yet, or offered; how old the oldest
    of these is (s, 0 where none waits). None where Redis does not know: a group that is gone, or a number that it has
    lost and that is too large to count.
    """

    entries: int
    waiting: int | None
    oldest_age: float | None


class HasBacklog(ABC):
    """What a stream offers to people who look at it."""

    @abstractmethod
    async def backlog(self) -> Backlog:
        """What waits. Raises `Unavailable`."""
