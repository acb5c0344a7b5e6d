"""One look for all events that calls and pipelines of this process wait for, however many they are.

In: ids, for as long as somebody waits. Out: how they stand, as soon as that is something new to who waits. All of them
are looked at every so often, for any replica may work on them, and less often while nothing is new. One is looked at at
once when somebody begins to wait for it, and for a call also when this very process has written something down about
it; a pipeline, which tells all that it hears, hears enough now and then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial

import trio

from ottoscaler.spine.ledger import Ledger
from ottoscaler.stream.requests import Standing

PERIOD_SECONDS = 0.1
SLOWEST_SECONDS = 0.5
SLOWING = 1.2
"""Each look that finds nothing new makes the period longer, up to the slowest: what has taken long is told late by a
sixth of that at most, and a pipeline that runs for hours costs two looks a second.
"""
PERIOD_FOR_EACH = 0.0001
"""More for each awaited event: a look at a thousand keeps Redis busy for 5 ms."""
REST_SECONDS = 0.02
"""Between two looks at least: a large event is written about all the time."""


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
    """The shared look. `run` must be running for the waits to return. A thousand waiters cost as many requests to Redis
    as one does.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiters: dict[str, list[_Waiter]] = {}
        self._noticed: set[str] = set()
        self._called = trio.Event()
        ledger.listeners.append(self.notice)

    def __len__(self) -> int:
        return len(self._waiters)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look until cancelled; rests while nobody waits."""
        task_status.started()
        due = rested = trio.current_time()
        period = PERIOD_SECONDS
        while True:
            with trio.move_on_at(due if self._waiters else float("inf")):
                await self._called.wait()
            if trio.current_time() < rested:
                await trio.sleep_until(rested)
            is_due = trio.current_time() >= due
            wanted = list(self._waiters if is_due else self._noticed & self._waiters.keys())
            self._noticed, self._called = set(), trio.Event()
            is_news = bool(wanted) and await self._look(wanted)
            if is_news or is_due:
                period = PERIOD_SECONDS if is_news else min(period * SLOWING, SLOWEST_SECONDS)
                latest = trio.current_time() + period + PERIOD_FOR_EACH * len(self._waiters)
                due = latest if is_due else min(due, latest)
            rested = trio.current_time() + REST_SECONDS + PERIOD_FOR_EACH * len(wanted)

    async def _look(self, wanted: list[str]) -> bool:
        """Ask, and tell who waits; whether that was news to any."""
        found = await self._ledger.insist(partial(self._ledger.stream.look, wanted))
        told = 0
        for event_id, standing in found.items():
            told += sum(waiter.tell(event_id, standing) for waiter in self._waiters.get(event_id, ()))
        return told > 0

    def notice(self, event_ids: Collection[str]) -> None:
        """Something was written about these events: look at those that somebody waits for eagerly."""
        self._call_for([id_ for id_ in event_ids if any(waiter.is_eager for waiter in self._waiters.get(id_, ()))])

    def _call_for(self, event_ids: Collection[str]) -> None:
        if event_ids:
            self._noticed.update(event_ids)
            self._called.set()

    async def wait(self, event_id: str, is_enough: Callable[[Standing], bool]) -> Standing:
        """Return how an event stands once that is enough."""
        standing: Standing | None = None
        while standing is None or not is_enough(standing):
            standing = (await self.wait_change({event_id: standing}, is_eager=True))[event_id]
        return standing

    async def wait_change(self, known: Mapping[str, Standing | None], *, is_eager: bool = False) -> dict[str, Standing]:
        """Return what stands otherwise than is known; None = nothing is known."""
        waiter = _Waiter(known, is_eager=is_eager)
        if not self._waiters:
            self._called.set()  # it rests
        for event_id in known:
            self._waiters.setdefault(event_id, []).append(waiter)
        self._call_for([event_id for event_id, standing in known.items() if standing is None])
        try:
            await waiter.told.wait()
            return waiter.found
        finally:
            for event_id in known:
                self._waiters[event_id].remove(waiter)
                if not self._waiters[event_id]:
                    del self._waiters[event_id]
