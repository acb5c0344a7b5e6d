"""Runs that play the same again: Trio shuffles what it runs next, here from a seed (as hypothesis makes it do)."""

import heapq
import itertools
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager

import trio


def schedule_from(seed: int) -> None:
    """Let the next `trio.run` schedule its tasks by this seed, and whatever asks for chance draw it from there."""
    random.seed(seed)
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # Trio's own switch for tests
    trio._core._run._r.seed(seed)


class LeapingClock(trio.abc.Clock):
    """Virtual time that leaps to the next deadline as soon as no task can run: `MockClock(autojump_threshold=0)`
    without an idle turn of Trio's loop for each leap. For runs without threads, sockets and `wait_all_tasks_blocked`.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._sleepers: list[tuple[float, int, trio.lowlevel.Task]] = []
        self._asleep: dict[int, trio.lowlevel.Task] = {}
        self._numbers = itertools.count()

    def start_clock(self) -> None:
        """Nothing to start."""

    def current_time(self) -> float:
        """Seconds since the start."""
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Asked by Trio when nothing can run before `deadline`: it is now."""
        if self._sleepers and self._sleepers[0][0] <= deadline:
            deadline = self._sleepers[0][0]
        if deadline == math.inf:  # Trio's own queue may still have something
            return math.inf
        self._now = max(self._now, deadline)
        while self._sleepers and self._sleepers[0][0] <= self._now:
            _, number, task = heapq.heappop(self._sleepers)
            if self._asleep.pop(number, None) is not None:
                trio.lowlevel.reschedule(task)
        return 0.0

    async def sleep(self, seconds: float) -> None:
        """`trio.sleep` at a third of its cost: nothing is cancelled at its end."""
        await self.sleep_until(self._now + seconds)

    async def sleep_until(self, deadline: float) -> None:
        """`trio.sleep_until`, likewise."""
        if deadline <= self._now:
            await trio.lowlevel.checkpoint()
            return
        number, task = next(self._numbers), trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            del self._asleep[number]
            return trio.lowlevel.Abort.SUCCEEDED

        self._asleep[number] = task
        heapq.heappush(self._sleepers, (deadline, number, task))
        await trio.lowlevel.wait_task_rescheduled(abort)

    @contextmanager
    def sleeping_here(self) -> Iterator[None]:
        """Who calls `trio.sleep` and `trio.sleep_until` in this block sleeps by this clock."""
        former = trio.sleep, trio.sleep_until
        trio.sleep, trio.sleep_until = self.sleep, self.sleep_until
        try:
            yield
        finally:
            trio.sleep, trio.sleep_until = former
