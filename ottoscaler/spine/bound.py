"""The bound over all replicas: worker slots are reserved in Redis before they are used, and declared anew all the
time.

Each replica declares how many slots it uses and wants; a script grants what the others leave. Nothing can leak:
what is declared is a number that replaces the last one, taken from what is really in use, and a session that is
gone counts no more. The total can be exceeded by the pods of replicas that died, from the end of their lease until
others have adopted them (they are counted on, beyond the bound).
"""

from __future__ import annotations

import trio

from ottoscaler.errors import Unavailable
from ottoscaler.fair import FairLimiter
from ottoscaler.stream.base import Stream

PERIOD_SECONDS = 1.0
CROWDED_SECONDS = 0.2
"""How often a replica asks again whose workers wait."""


class Bound:
    """Keeps the limit of this replica's worker slots within `total` of all, and within `most` of its own."""

    def __init__(self, stream: Stream, slots: FairLimiter, most: int, total: int) -> None:
        self._stream = stream
        self._slots = slots
        self._most = most
        self._total = total

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Reserve until cancelled. While Redis is silent the last grant stands."""
        self._slots.resize(0)
        task_status.started()
        while True:
            self._slots.wanted = trio.Event()
            figures = self._slots.statistics()
            want = min(self._most, figures.used + figures.waiting)
            try:
                self._slots.resize(await self._stream.reserve(figures.used, want, self._total))
            except Unavailable:
                await trio.sleep(PERIOD_SECONDS)
                continue
            if self._slots.statistics().waiting:
                await trio.sleep(CROWDED_SECONDS)
                continue
            with trio.move_on_after(PERIOD_SECONDS):
                await self._slots.wanted.wait()
