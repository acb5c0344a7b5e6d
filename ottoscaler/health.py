"""What the probes ask: does this process turn (live), should work be sent its way (ready), has it begun (startup).

Decided from what is known at this instant, without a question to anybody: so a Redis or an API that hangs delays no
answer. Live never depends on either: a restart mends neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, NoReturn

import trio

from ottoscaler.drain import Drain
from ottoscaler.gauges import Vitals
from ottoscaler.metrics import LOOP_LAG

BEAT_SECONDS = 1.0
LAG_SECONDS = 5.0
"""A loop that is so late is as good as blocked."""
POLLER_SECONDS = 30.0
"""Every call of the poller to Redis ends within its limit, a few seconds: one that begins none for so long hangs."""


class Check(NamedTuple):
    """One thing that was looked at, and what is wrong with it; empty where all is well."""

    name: str
    problem: str = ""


class Health:
    """The health of this process over all its lives; `run` keeps its pulse."""

    def __init__(self, drain: Drain) -> None:
        self.vitals: Vitals | None = None
        self._drain = drain
        self._has_begun = False
        self._beat_at = trio.current_time()
        self._lag = 0.0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        """Measure how late the loop is, until cancelled."""
        task_status.started()
        while True:
            due = trio.current_time() + BEAT_SECONDS
            await trio.sleep_until(due)
            self._beat_at = trio.current_time()
            self._lag = self._beat_at - due
            LOOP_LAG.observe(self._lag)

    @contextmanager
    def follow(self, vitals: Vitals) -> Iterator[None]:
        """Look at this life of the service while the block runs."""
        self.vitals = vitals
        try:
            yield
        finally:
            self._has_begun |= vitals.is_ready
            self.vitals = None

    def live(self) -> list[Check]:
        """Whether a restart would help."""
        return [
            Check("loop", self._judge_loop()),
            Check("parts", self._judge_parts()),
            Check("poller", self._judge_poller()),
        ]

    def ready(self) -> list[Check]:
        """Whether it does its work: Redis and the API were reachable lately, and no drain has begun."""
        return [
            *self.startup(),
            Check("drain", f"draining ({self._drain.reason})" if self._drain.requested.is_set() else ""),
            Check("redis", self._judge(lambda vitals: "" if vitals.session.is_valid() else "the lease has run out")),
            Check("api", self._judge(lambda vitals: vitals.watch.trouble())),
        ]

    def startup(self) -> list[Check]:
        """Whether it was ever ready."""
        has_begun = self._has_begun or (self.vitals is not None and self.vitals.is_ready)
        return [Check("start", "" if has_begun else "not ready yet: Redis and the API are being reached")]

    def _judge(self, judge: Callable[[Vitals], str]) -> str:
        return "not reached yet" if self.vitals is None else judge(self.vitals)

    def _judge_loop(self) -> str:
        late = max(self._lag, trio.current_time() - self._beat_at - BEAT_SECONDS)
        return f"{late:.1f} s late, expected less than {LAG_SECONDS:g} s" if late >= LAG_SECONDS else ""

    def _judge_parts(self) -> str:
        """A drain ends parts in their turn, and is limited by itself."""
        if self.vitals is None or self._drain.requested.is_set():
            return ""
        dead = sorted(self.vitals.supervisor.ended)
        return f"{', '.join(dead)} ended, expected to run for ever" if dead else ""

    def _judge_poller(self) -> str:
        if self.vitals is None or not self.vitals.is_ready or self._drain.requested.is_set():
            return ""
        silent = trio.current_time() - self.vitals.poller.turned_at
        return f"silent for {silent:.0f} s, expected at most {POLLER_SECONDS:g} s" if silent > POLLER_SECONDS else ""
