"""One look for all who wait: a single task asks the stream how every awaited event stands, whoever waits for it.

Owned by the calls. In: ids of events, for as long as somebody waits for them. Out: their standing, as values that
waiters wait on. A thousand waiting calls cost as many requests to Redis as one does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import trio
from trio_util import AsyncValue

from ottoscaler.errors import Unavailable
from ottoscaler.stream.requests import Requests, Standing

PERIOD_SECONDS = 0.1
PERIOD_FOR_EACH = 0.0001
"""More for each awaited event: a look at a thousand keeps Redis busy for 5 ms."""
AWAY_SECONDS = 1.0
"""Between looks while Redis does not answer."""


class _Awaited:
    """One event, and how many wait for it."""

    def __init__(self) -> None:
        self.value: AsyncValue[Standing] = AsyncValue(Standing("waiting"))
        self.waiters = 0


class Watching:
    """The shared look. `run` must be running for `wait` to return."""

    def __init__(self, stream: Requests) -> None:
        self._stream = stream
        self._awaited: dict[str, _Awaited] = {}
        self._arrived = trio.Event()

    def __len__(self) -> int:
        return len(self._awaited)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look until cancelled; rests while nobody waits."""
        task_status.started()
        while True:
            await self._arrived.wait()
            if not self._awaited:
                self._arrived = trio.Event()
                continue
            try:
                found = await self._stream.look(list(self._awaited))
            except Unavailable:
                await trio.sleep(AWAY_SECONDS)
                continue
            self._tell(found)
            await trio.sleep(PERIOD_SECONDS + PERIOD_FOR_EACH * len(found))

    def _tell(self, found: dict[str, Standing]) -> None:
        for event_id, standing in found.items():
            if awaited := self._awaited.get(event_id):
                awaited.value.value = standing

    async def wait(self, event_id: str, is_enough: Callable[[Standing], bool]) -> Standing:
        """Return how the event stands once that is enough. A cancel ends the waiting and nothing else."""
        awaited = self._awaited.setdefault(event_id, _Awaited())
        awaited.waiters += 1
        self._arrived.set()
        try:
            return cast("Standing", await awaited.value.wait_value(is_enough))
        finally:
            awaited.waiters -= 1
            if not awaited.waiters:
                del self._awaited[event_id]
