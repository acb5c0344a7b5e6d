"""Guarding names against late creates.

A create that was never answered may be carried out later. While the finished pod of that attempt keeps its name,
the API refuses it. Where the pod had to go (it was stopped, could not start, or somebody deleted it), the name is
free: so it is followed for the fence's time, and a pod that appears under it is deleted at once, before a node has
started it.
"""

from __future__ import annotations

import operator
from functools import partial

import trio

from ottoscaler.log import log
from ottoscaler.spine.site import Site
from ottoscaler.stream.base import Fence


class Guard:
    """Follows the names of fences until they are due: those that this process makes, and those listed in Redis.

    Every replica guards every listed fence, so that none is left alone when its maker goes. `period` (s) is how
    often the list is read.
    """

    def __init__(self, site: Site, period: float) -> None:
        self._site = site
        self._period = period
        self._fences: dict[str, tuple[Fence, str]] = {}
        self._nursery: trio.Nursery | None = None

    def __contains__(self, name: object) -> bool:
        """Whether this name is guarded."""
        return name in self._fences

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Guard until cancelled; what was known before a crash is guarded again."""
        async with trio.open_nursery() as self._nursery:
            for fence, event_id in self._fences.values():
                self._nursery.start_soon(self._guard, fence, event_id)
            task_status.started()
            while True:
                for fence in await self._site.ledger.insist(self._site.ledger.stream.list_fences):
                    self.watch(fence, "closed")
                await trio.sleep(self._period)

    def watch(self, fence: Fence, event_id: str) -> None:
        """Guard one name from now on."""
        if fence.name in self._fences:
            return
        self._fences[fence.name] = (fence, event_id)
        if self._nursery is not None:
            self._nursery.start_soon(self._guard, fence, event_id)

    async def _guard(self, fence: Fence, event_id: str) -> None:
        left = fence.due / 1000 - self._site.now()  # by the clock of Redis where it is from the list
        seconds = min(max(self._period, left), self._site.patience.create_fence)
        with trio.move_on_after(seconds), self._site.fleet.follow(fence.name) as follow:
            while True:
                late = await follow.wait(
                    lambda record: (
                        record is not None
                        and not record.gone
                        and not record.deleting
                        and record.uid != fence.uid
                        and record.era == self._site.era
                    )
                )
                if late is not None:
                    log.warning(
                        "late create undone", event_id=event_id, worker=fence.name, reason="its attempt had ended"
                    )
                    await self._site.delete(event_id, fence.name, late.uid)
                    await follow.wait(partial(operator.is_not, late))
        del self._fences[fence.name]
