"""Runs that play the same again: Trio shuffles what it runs next, here from a seed (as hypothesis makes it do)."""

import math
import random

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

    def start_clock(self) -> None:
        """Nothing to start."""

    def current_time(self) -> float:
        """Seconds since the start."""
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Asked by Trio when nothing can run before `deadline`: it is now."""
        if deadline == math.inf:  # Trio's own queue may still have something
            return math.inf
        self._now = max(self._now, deadline)
        return 0.0
