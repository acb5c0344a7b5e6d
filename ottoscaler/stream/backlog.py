"""What waits and what runs, for people to see. Asked seldom, on a connection of its own, and never needed for work."""

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


@dataclass(frozen=True, slots=True)
class Holder:
    """A session: in how many seconds its lease ends (below 0: it has ended), how many events it holds, and what it said
    last of outages (as `ottoscaler.outages` writes it; empty: none).
    """

    session: str
    lease_seconds: float
    held: int
    outages: str = ""


@dataclass(frozen=True, slots=True)
class EventFacts:
    """A live event. `type` is empty where a newer version wrote it, `owner` where nobody holds it; `planned`, `created`
    and `ended` count its workers (of a pipeline its stages), `trouble` is JSON on what keeps one of them waiting.
    """

    event_id: str
    type: str
    owner: str
    task_id: str
    planned: int
    created: int
    ended: int
    trouble: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Overview:
    """All sessions, all live events, how many dead letters there are, and id and fields of the last, newest first."""

    holders: tuple[Holder, ...]
    events: tuple[EventFacts, ...]
    dead_letters: int
    last_letters: tuple[tuple[str, dict[str, str]], ...]


class HasBacklog(ABC):
    """What a stream offers to people who look at it."""

    @abstractmethod
    async def backlog(self) -> Backlog:
        """What waits. Raises `Unavailable`."""

    @abstractmethod
    async def overview(self, letters: int) -> Overview:
        """All that is going on, with the last `letters` dead letters (event, cause, reason, time). Each page of events
        is of one instant, the whole is not. Raises `Unavailable`.
        """
