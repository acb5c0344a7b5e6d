"""The bound over all replicas: worker slots are reserved in Redis before they are used, and declared anew all the
time.

Each replica declares how many slots it uses and wants; a script says how many it may use of what the others leave.
Nothing can leak: what is declared is a number that replaces the last one, taken from what is really in use, and a
session that is gone counts no more. What may begin here is at every instant covered by what stands in Redis: a
question lowers the limit to what is in use, before it is sent, and while Redis does not answer nothing begins.

The total can be exceeded by what nobody asks about: the pods of replicas that died, or had to be taken for dead. Their
slots are given away when their session has expired, and whoever adopts the pods counts them beyond the bound; nothing
begins in their place until the sum is below the total again. And a question that was given up, but is carried out by
Redis after the next one, lowers for a second what the replica has declared.
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
        """Reserve until cancelled."""
        self._slots.resize(0)
        task_status.started()
        while True:
            self._slots.wanted = trio.Event()
            await self._ask()
            if self._slots.statistics().waiting:
                await trio.sleep(CROWDED_SECONDS)
                continue
            with trio.move_on_after(PERIOD_SECONDS):
                await self._slots.wanted.wait()

    async def _ask(self) -> None:
        """Declare anew. Redis may give to others what is not declared, long before its answer is here."""
        used, limit, waiting = self._slots.statistics()
        self._slots.resize(min(limit, used))
        try:
            self._slots.resize(await self._stream.reserve(used, min(self._most, used + waiting), self._total))
        except Unavailable:
            self._slots.resize(0)
