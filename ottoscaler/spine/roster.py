"""The events this process works on, and how many more it has room for. Plain state, changed in sync code only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import trio

from ottoscaler.stream.base import Lane

if TYPE_CHECKING:
    from ottoscaler.spine.handler import Work

CONTROL_ROOM = 200
"""Scale-downs and cancels at a time: each costs a few calls and a task; they never wait for a scaling. What they stop
counts as what it is: it is taken without regard to this room, which may be full of those that wait for it."""
PIPELINE_ROOM = 1000
"""Pipelines at a time: each costs a task, and they take no room from the stages that they wait for."""


class RosterStatistics(NamedTuple):
    """A snapshot: events assigned or running, those only waiting for deletes, scale-downs and cancels, pipelines."""

    working: int
    settling: int
    control: int
    pipelines: int = 0


class Roster:
    """Who is being worked on. An event enters when it is registered or taken, and leaves when its task has ended.

    Scalings count against `max_events` while a worker of theirs has not ended; those that only wait for deletes
    have a limit of their own, equally large, so that an API that is away holds up intake only when both are full.

    `giving_out` is held by who gives room to events: from looking how much there is until they have entered.
    """

    def __init__(self, max_events: int) -> None:
        self._max_events = max_events
        self._lanes: dict[str, str] = {}
        self._epochs: dict[str, int] = {}
        self._works: dict[str, Work] = {}
        self._settling: set[str] = set()
        self.giving_out = trio.Lock()

    def __contains__(self, event_id: object) -> bool:
        return event_id in self._lanes

    def __iter__(self) -> Iterator[Work]:
        return iter(list(self._works.values()))

    def rooms(self) -> dict[Lane, int]:
        """How many more events of each lane may come, in the order of `LANES`."""
        figures = self.statistics()
        return {
            "work": 0 if figures.settling >= self._max_events else max(0, self._max_events - figures.working),
            "control": max(0, CONTROL_ROOM - figures.control),
            "pipelines": max(0, PIPELINE_ROOM - figures.pipelines),
        }

    def statistics(self) -> RosterStatistics:
        """How many there are of each kind."""
        lanes, settling = list(self._lanes.values()), len(self._settling)
        return RosterStatistics(
            lanes.count("work") - settling, settling, lanes.count("control"), lanes.count("pipelines")
        )

    def enter(self, event_id: str, lane: str, epoch: int = 0) -> None:
        """An event is ours from now on, whether or not its work has begun; `epoch` is 0 until Redis has told it."""
        self._lanes[event_id] = lane
        self._epochs[event_id] = max(epoch, self._epochs.get(event_id, 0))

    def begin(self, work: Work) -> None:
        """Its task runs."""
        self._works[work.claim.event_id] = work

    def settle(self, event_id: str) -> None:
        """All its workers have ended: it gives its scaling free."""
        self._settling.add(event_id)

    def leave(self, event_id: str, epoch: int = 0) -> None:
        """Nothing is left here of the work under this epoch; an event that was taken again meanwhile stays."""
        self._works.pop(event_id, None)
        self._settling.discard(event_id)
        if epoch >= self._epochs.get(event_id, 0):
            self._lanes.pop(event_id, None)
            self._epochs.pop(event_id, None)

    def work_of(self, event_id: str) -> Work | None:
        """The running work of an event, if it has begun here."""
        return self._works.get(event_id)

    def ids(self) -> frozenset[str]:
        """All events that this process believes to hold."""
        return frozenset(self._lanes)
