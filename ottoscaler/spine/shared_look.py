"""When to look at what others wait for: one task asks for all of them, however many they are and whoever waits.

In: which events are awaited, and how to ask for some of them. All are looked at every so often, for any replica may
work on them, and less often while nothing is new; some at once, when somebody calls for them; none while nobody waits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from math import inf

import trio

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


class SharedLook:
    """`awaited` gives the ids that somebody waits for, `look` asks for some of them and says whether anybody learned
    anything; it may take as long as Redis is away.
    """

    def __init__(self, awaited: Callable[[], Collection[str]], look: Callable[[list[str]], Awaitable[bool]]) -> None:
        self._awaited = awaited
        self._look = look
        self._wanted: set[str] = set()
        self._called = trio.Event()

    def call_for(self, event_ids: Collection[str]) -> None:
        """Look at these at once; without any: somebody waits again."""
        self._wanted.update(event_ids)
        self._called.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look until cancelled."""
        task_status.started()
        due = rested = trio.current_time()
        period = PERIOD_SECONDS
        while True:
            with trio.move_on_at(due if self._awaited() else inf):
                await self._called.wait()
            if trio.current_time() < rested:
                await trio.sleep_until(rested)
            is_due, awaited = trio.current_time() >= due, self._awaited()
            wanted = [event_id for event_id in awaited if is_due or event_id in self._wanted]
            self._wanted, self._called = set(), trio.Event()
            is_news = bool(wanted) and await self._look(wanted)
            if is_news or is_due:
                period = PERIOD_SECONDS if is_news else min(period * SLOWING, SLOWEST_SECONDS)
                latest = trio.current_time() + period + PERIOD_FOR_EACH * len(awaited)
                due = latest if is_due else min(due, latest)
            rested = trio.current_time() + REST_SECONDS + PERIOD_FOR_EACH * len(wanted)
