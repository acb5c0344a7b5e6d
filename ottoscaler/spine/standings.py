"""How the events stand that calls and pipelines of this process wait for.

In: ids, for as long as somebody waits. Out: how they stand, as soon as that is something new to who waits. An event is
looked at at once when somebody begins to wait for it, and for a call also when this very process has written something
down about it; a pipeline, which tells all that it hears, hears enough now and then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial

import trio

from ottoscaler.spine.ledger import Ledger
from ottoscaler.spine.shared_look import SharedLook
from ottoscaler.stream.requests import Standing


class _Waiter:
    """One wait: what it knows, and what it has been told since."""

    __slots__ = ("found", "is_eager", "known", "told")

    def __init__(self, known: Mapping[str, Standing | None], *, is_eager: bool) -> None:
        self.known = known
        self.is_eager = is_eager
        self.found: dict[str, Standing] = {}
        self.told = trio.Event()

    def tell(self, event_id: str, standing: Standing) -> bool:
        """Take note of how an event stands; end the wait where that is new, and say whether it is."""
        if is_new := standing != self.known[event_id]:
            self.found[event_id] = standing
            self.told.set()
        return is_new


class Standings:
    """All who wait. `run` must be running for the waits to return."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiters: dict[str, list[_Waiter]] = {}
        self._shared = SharedLook(lambda: self._waiters, self._look)
        ledger.listeners.append(self.notice)

    def __len__(self) -> int:
        return len(self._waiters)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look until cancelled."""
        await self._shared.run(task_status=task_status)

    async def _look(self, wanted: list[str]) -> bool:
        """Ask, and tell who waits; whether that was news to any."""
        found = await self._ledger.insist(partial(self._ledger.stream.look, wanted))
        told = 0
        for event_id, standing in found.items():
            told += sum(waiter.tell(event_id, standing) for waiter in self._waiters.get(event_id, ()))
        return told > 0

    def notice(self, event_ids: Collection[str]) -> None:
        """Something was written about these events: look at those that somebody waits for eagerly."""
        eager = [id_ for id_ in event_ids if any(waiter.is_eager for waiter in self._waiters.get(id_, ()))]
        if eager:
            self._shared.call_for(eager)

    async def wait(self, event_id: str, is_enough: Callable[[Standing], bool]) -> Standing:
        """Return how an event stands once that is enough."""
        standing: Standing | None = None
        while standing is None or not is_enough(standing):
            standing = (await self.wait_change({event_id: standing}, is_eager=True))[event_id]
        return standing

    async def wait_change(self, known: Mapping[str, Standing | None], *, is_eager: bool = False) -> dict[str, Standing]:
        """Return what stands otherwise than is known; None = nothing is known."""
        waiter = _Waiter(known, is_eager=is_eager)
        unknown, is_first = [id_ for id_, standing in known.items() if standing is None], not self._waiters
        for event_id in known:
            self._waiters.setdefault(event_id, []).append(waiter)
        if unknown or is_first:
            self._shared.call_for(unknown)
        try:
            await waiter.told.wait()
            return waiter.found
        finally:
            for event_id in known:
                self._waiters[event_id].remove(waiter)
                if not self._waiters[event_id]:
                    del self._waiters[event_id]
