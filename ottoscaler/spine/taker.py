"""The taking loop: what other processes left, changed or offered reaches this one here, by one script call a quarter
second, and half as often while there is no event at all.

It brings events that were handed over or whose owner died, notices that somebody changed the progress of an event
of ours, entries that a dead process had read and never registered, and finished pods whose time as a fence is over.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress

import trio

from ottoscaler.errors import Unavailable
from ottoscaler.metrics import LEASES_CLAIMED
from ottoscaler.spine.handler import Handler
from ottoscaler.spine.poller import Poller
from ottoscaler.spine.roster import Roster
from ottoscaler.spine.site import Site
from ottoscaler.stream.base import Fence, Tending
from ottoscaler.stream.progress import Progress
from ottoscaler.stream.session import Session

PERIOD_SECONDS = 0.25
IDLE_SECONDS = 0.5
"""Between two looks while no process has an event: looking is most of what idling costs."""


class Taker:
    """The loop; every replica runs one, at a jittered interval, and there is no leader."""

    def __init__(
        self,
        site: Site,
        roster: Roster,
        session: Session,
        poller: Poller,
        handler: Handler,
        events: trio.MemorySendChannel[Progress],
        *,
        lease_seconds: float,
    ) -> None:
        self._site = site
        self._roster = roster
        self._session = session
        self._poller = poller
        self._handler = handler
        self._events = events
        self._lease_seconds = lease_seconds
        self._audit_at = 0.0
        self._is_idle = False
        self._dropping: set[str] = set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look until cancelled. What Redis does not answer is asked again at the next turn."""
        await self._site.ledger.insist(self._catch_up)
        task_status.started()
        async with trio.open_nursery() as nursery:
            while True:
                with suppress(Unavailable):  # asked again, Redis gives again what was in an answer that got lost
                    await self._look(nursery)
                await trio.sleep((IDLE_SECONDS if self._is_idle else PERIOD_SECONDS) * random.uniform(0.8, 1.2))

    async def _look(self, nursery: trio.Nursery) -> None:
        """Ask once; the poller waits meanwhile, for the answer may fill all the room there is."""
        expire = self._session.may_expire_others()
        audit = expire and trio.current_time() >= self._audit_at
        if audit:
            self._audit_at = trio.current_time() + self._lease_seconds
            await self._find_lost()
        async with self._roster.giving_out:
            rooms = self._roster.rooms().values()
            tending = await self._site.ledger.stream.tend(*rooms, expire=expire, audit=audit)
            self._enter(tending.taken)
        await self._heed(tending, nursery)

    def _enter(self, taken: Sequence[Progress]) -> None:
        for progress in taken:
            LEASES_CLAIMED.inc()
            self._roster.enter(progress.event_id, progress.lane, progress.epoch)
            self._events.send_nowait(progress)

    async def _heed(self, tending: Tending, nursery: trio.Nursery) -> None:
        self._poller.offered = tending.offered
        self._is_idle = tending.is_idle
        for event_id in tending.notices:
            self._handler.notice(event_id)
        fences = tuple(fence for fence in tending.fences if fence.name not in self._dropping)
        if fences:
            nursery.start_soon(self._drop_fences, fences)
        if tending.strays:
            await self._poller.admit(tending.strays)

    async def _catch_up(self) -> None:
        """What a crash of this loop had dropped: notices, and events."""
        for event_id in self._roster.ids():
            self._handler.notice(event_id)
        await self._find_lost()

    async def _find_lost(self) -> None:
        """Go on with events that are ours in Redis and unknown here: a crash had dropped them."""
        stream = self._site.ledger.stream
        for event_id in await stream.held() - self._roster.ids():
            progress = await stream.read_progress(event_id)
            if progress is not None and event_id not in self._poller and event_id not in self._roster:
                self._roster.enter(event_id, progress.lane, progress.epoch)
                self._events.send_nowait(progress)

    async def _drop_fences(self, fences: tuple[Fence, ...]) -> None:
        """Delete finished pods that are needed no more; one whose delete is cut off comes back in 10 s."""
        names = {fence.name for fence in fences}
        self._dropping |= names  # lent again while the API is away, they must not be deleted twice at a time
        try:
            async with trio.open_nursery() as deletes:  # bounded by the throttle of all writes
                for fence in fences:
                    deletes.start_soon(self._free_name, fence)
            await self._site.ledger.insist(lambda: self._site.ledger.stream.drop_fences(fences))
        finally:
            self._dropping -= names

    async def _free_name(self, fence: Fence) -> None:
        """Delete the pod that stands under the name of an attempt that ended, if it is ours. One that the fleet does
        not show, because there is none or somebody took its labels away, is read.
        """
        record = self._site.fleet.records.get(fence.name)
        if record is not None:
            uid, is_ours = record.uid, record.era == self._site.era
        elif pod := await self._site.read_pod("fences", fence.name):
            uid, is_ours = pod["metadata"]["uid"], not self._site.stranger(pod)
        else:
            return
        if is_ours or uid == fence.uid:
            await self._site.delete("fences", fence.name, uid)
