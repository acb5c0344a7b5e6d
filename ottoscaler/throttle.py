"""The one limiter in front of this process's writes to the API: few at a time, fair, and slower when asked to be.

How many may be under way is found as TCP finds it: one more per round of successes, half of it when the API says that
it has too many (429, or any answer with Retry-After), and a pause for as long as it asked. `Pace` is that rule alone,
without a clock or a wait; `Throttle` asks it.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio

from ottoscaler.errors import Answered, Unavailable
from ottoscaler.fair import FairLimiter
from ottoscaler.metrics import API_THROTTLED

TOO_MANY = 429
FIRST_PAUSE = 0.25
LONGEST_OWN_PAUSE = 8.0
"""Seconds: where the API refuses without saying for how long, pauses double from the first to the longest."""
LONGEST_PAUSE = 60.0
"""One odd Retry-After of hours must not stop all writes of a process; the request itself honours it in full."""


class Pace:
    """How many requests may be under way, and from when on. All times in seconds of one clock."""

    def __init__(self, most: int) -> None:
        self.paused_until = 0.0
        self._most = most
        self._allowed = float(most)
        self._slowed_at = -1.0
        self._own_pause = FIRST_PAUSE

    @property
    def limit(self) -> int:
        """How many may be under way; never less than one."""
        return int(self._allowed)

    def slow_down(self, begun: float, now: float, retry_after: float | None) -> None:
        """A request that was begun at `begun` was refused for now.

        Several that were under way together are one sign, not several: only the first of them halves the limit.
        """
        if begun > self._slowed_at:
            self._allowed = max(1.0, self._allowed / 2)
            self._slowed_at = now
            pause, self._own_pause = self._own_pause, min(LONGEST_OWN_PAUSE, self._own_pause * 2)
        else:
            pause = 0.0
        self.paused_until = max(self.paused_until, now + min(LONGEST_PAUSE, retry_after or pause))

    def recover(self, begun: float) -> None:
        """A request that was begun at `begun` was served: one more may be under way after each round of these."""
        if begun > self._slowed_at:
            self._allowed = min(float(self._most), self._allowed + 1 / self._allowed)
            self._own_pause = FIRST_PAUSE


class Failing(NamedTuple):
    """Since when the API has put off all writes of a verb, or not answered them, and when and how it did so last (clock
    of trio; infinity: it answers).
    """

    since: float = math.inf
    last: float = -math.inf
    reason: str = ""


class Throttle(FairLimiter):
    """`async with throttle.hold(verb, event_id)` around each write; what leaves the block tells how it went.

    At most `limit` writes are under way. Creates and deletes take turns, and within each verb the events do: a storm
    of either delays nobody else's by more than the requests under way.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._pace = Pace(limit)
        self._failing: dict[str, Failing] = {}
        self._answered_at: dict[str, float] = {}

    @property
    def paused_until(self) -> float:
        """Clock of trio; in the past when writes flow."""
        return self._pace.paused_until

    def failing(self, verb: str) -> Failing:
        """Whether the API has stopped to serve this verb."""
        return self._failing.get(verb, Failing())

    @asynccontextmanager
    async def hold(self, *keys: str) -> AsyncIterator[None]:
        """Hold a place among the writes for one request; it begins once no pause is on."""
        async with super().hold(*keys):
            while self._pace.paused_until > trio.current_time():  # noqa: ASYNC110 - a pause may have been prolonged
                await trio.sleep_until(self._pace.paused_until)
            begun = trio.current_time()
            try:
                yield
            except Unavailable as error:
                self._note_failure(keys[0], begun, error)
                if error.status == TOO_MANY or error.retry_after is not None:
                    API_THROTTLED.inc()
                    self._pace.slow_down(begun, trio.current_time(), error.retry_after)
                raise
            except Answered:
                self._note_answer(keys[0], begun)
                raise
            else:
                self._note_answer(keys[0], begun)
            finally:
                self.limit = self._pace.limit

    def _note_answer(self, verb: str, begun: float) -> None:
        self._pace.recover(begun)
        self._failing.pop(verb, None)
        self._answered_at[verb] = trio.current_time()

    def _note_failure(self, verb: str, begun: float, error: Unavailable) -> None:
        since = max(begun, self._answered_at.get(verb, begun))
        self._failing[verb] = Failing(min(since, self.failing(verb).since), trio.current_time(), str(error))
