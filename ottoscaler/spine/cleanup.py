"""Deleting the pods of one event: each once its outcome is durable and it is no longer needed as a fence.

Small writes where it pays: pods wait a moment for the event to end, and the finished pods of a large event go as
collections.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import trio

from ottoscaler.events import Event
from ottoscaler.metrics import StageClock
from ottoscaler.outcomes import WorkerOutcome
from ottoscaler.spine.fences import Guard
from ottoscaler.spine.site import Site
from ottoscaler.spine.worker_logs import NO_LOGS, EventLogs
from ottoscaler.stream.base import Fence

COLLECTION_FROM = 10
"""With so many pods left at the end it pays to wait for their final phases and to delete them as one collection."""


class Cleanup:
    """The pods that one event leaves. `fences` are those that stay, due by our own clock. `recall` records again what
    Redis may have forgotten of the event in a crash.
    """

    def __init__(self, site: Site, guard: Guard, event: Event, recall: Callable[[], Awaitable[None]]) -> None:
        self.fences: dict[str, Fence] = {}
        self.logs: EventLogs = NO_LOGS
        self._site = site
        self._guard = guard
        self._event = event
        self._event_id = event.id
        self._left: dict[str, str] = {}
        self._clocks: dict[str, StageClock] = {}  # of what is in `_left`
        self._event_ended = trio.Event()
        self._recall = recall
        self._begun_since = site.ledger.stream.restarts

    def note_event_ended(self) -> None:
        """Every outcome is recorded: what waits to be deleted goes at once."""
        self._event_ended.set()
        self.logs.end_all()

    def keeps(self, name: str) -> bool:
        """Whether a pod of this name is a fence, or waits to be deleted."""
        return name in self.fences or name in self._left

    def fence_off(self, outcome: WorkerOutcome) -> bool:
        """Keep the name from a late create, where one may still come: the pod stays if there is one, the name is
        guarded.
        """
        now = self._site.now()
        if outcome.fence_until <= now:
            return False
        due = min(outcome.fence_until, now + self._site.patience.create_fence)  # an owner's clock was ahead of ours
        fence = self.fences[outcome.name] = Fence(outcome.name, outcome.uid, int(due * 1000))
        self._guard.watch(fence, self._event_id)
        return True

    def fences_left(self) -> tuple[Fence, ...]:
        """The fences for the close to hand over, each with how long it is still needed (ms)."""
        now, longest = int(self._site.now() * 1000), int(self._site.patience.create_fence * 1000)
        left = {fence: min(max(0, fence.due - now), longest) for fence in self.fences.values()}  # the clock may go back
        return tuple(Fence(fence.name, fence.uid, due) for fence, due in left.items())

    async def clean(self, outcome: WorkerOutcome, since: int | None = None) -> None:
        """Delete the pod of an attempt that has ended: with the others if the event ends soon, else by itself. `since`:
        the count of restarts before its end was recorded, None where an earlier owner did that.
        """
        if self.fence_off(outcome) or not outcome.uid:
            return
        self._left[outcome.name] = outcome.uid
        on_gap = self._site.traces.gaps(self._event, outcome.index, outcome.attempt)
        self._clocks[outcome.name] = StageClock("recorded", self._site.now(), on_gap)
        await self._wait_durable(since)
        await self.logs.wait_pod(outcome.name)
        with trio.move_on_after(self._site.patience.cleanup_delay):
            await self._event_ended.wait()
            return
        if await self._site.delete(self._event_id, outcome.name, outcome.uid):
            self._left.pop(outcome.name, None)
            self._note_deleted(outcome.name)

    async def clean_rest(self) -> None:
        """Delete all pods of the event that are left, fences aside; also those that an earlier owner left behind."""
        await self._wait_durable()
        await self.logs.wait_all()
        shown = self._pods_shown()
        unseen = {name: uid for name, uid in self._left.items() if name not in shown}
        if len(shown) >= COLLECTION_FROM and not self.fences:
            await self._collect()
        await self._delete_each(self._pods_shown() | unseen)
        for name in list(self._clocks):
            self._note_deleted(name)

    def _note_deleted(self, name: str) -> None:
        if clock := self._clocks.pop(name, None):
            clock.reach("deleted", self._site.now())

    async def _collect(self) -> None:
        """Delete together what has finished, and by itself what has not: a collection spares running pods."""
        await self._wait_phases()
        shown = self._pods_shown()
        running = {name: uid for name, uid in shown.items() if not self._site.fleet.records[name].is_final}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._delete_each, running)
            nursery.start_soon(self._site.delete_finished, self._event_id, len(shown) - len(running))
        with trio.move_on_after(self._site.patience.appearance):
            await self._wait_gone(list(shown))

    async def _delete_each(self, pods: Mapping[str, str]) -> None:
        async with trio.open_nursery() as nursery:
            for name, uid in pods.items():
                nursery.start_soon(self._site.delete, self._event_id, name, uid)

    async def _wait_durable(self, since: int | None = None) -> None:
        """Return when all that was recorded is on the disk of Redis; where it may have crashed before, once more."""
        ledger, since = self._site.ledger, self._begun_since if since is None else since
        await ledger.insist(ledger.stream.wait_durable)
        while since != ledger.stream.restarts:
            since = ledger.stream.restarts
            await self._recall()
            await ledger.insist(ledger.stream.wait_durable)

    def _pods_shown(self) -> dict[str, str]:
        """Name → uid of the pods of this event that the fleet shows, without fences and those on their way out."""
        records = self._site.fleet.pods_of_event(self._event_id)
        ours = [record for record in records if record.era == self._site.era]
        shown = {record.name: record.uid for record in ours if not record.gone and not record.deleting}
        return {name: uid for name, uid in shown.items() if name not in self.fences}

    async def _wait_phases(self) -> None:
        """A collection delete spares running pods, and the phase follows the container's end by about a second."""
        with trio.move_on_after(self._site.patience.phase_lag):
            for record in self._site.fleet.pods_of_event(self._event_id):
                with self._site.fleet.follow(record.name) as follow:
                    await follow.wait(lambda now: now is None or now.gone or now.is_final)

    async def _wait_gone(self, names: list[str]) -> None:
        for name in names:
            with self._site.fleet.follow(name) as follow:
                await follow.wait(lambda now: now is None or now.gone or now.deleting)
