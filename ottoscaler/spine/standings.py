"""One look for all events that calls and pipelines of this process wait for, however many they are.

In: ids, for as long as somebody waits. Out: how they stand, as soon as that is something new.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

import trio

from ottoscaler.spine.ledger import Ledger
from ottoscaler.stream.requests import Standing

PERIOD_SECONDS = 0.1
PERIOD_FOR_EACH = 0.0001
"""More for each awaited event: a look at a thousand keeps Redis busy for 5 ms."""


class Standings:
    """The shared look. `run` must be running for the waits to return. A thousand waiters cost as many requests to Redis
    as one does.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._awaited: Counter[str] = Counter()
        self._found: dict[str, Standing] = {}
        self._arrived = trio.Event()
        self._changed = trio.Event()

    def __len__(self) -> int:
        return len(self._awaited)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look until cancelled; rests while nobody waits."""
        task_status.started()
        while True:
            if not self._awaited:
                self._arrived = trio.Event()
                await self._arrived.wait()
            wanted = list(self._awaited)
            found = await self._ledger.insist(partial(self._ledger.stream.look, wanted))
            former = self._found
            self._found = {event_id: found[event_id] for event_id in wanted if event_id in self._awaited}
            if any(former.get(event_id) != standing for event_id, standing in self._found.items()):
                self._changed.set()
                self._changed = trio.Event()
            await trio.sleep(PERIOD_SECONDS + PERIOD_FOR_EACH * len(wanted))

    async def wait(self, event_id: str, is_enough: Callable[[Standing], bool]) -> Standing:
        """Return how an event stands once that is enough."""
        standing: Standing | None = None
        while standing is None or not is_enough(standing):
            standing = (await self.wait_change({event_id: standing}))[event_id]
        return standing

    async def wait_change(self, known: Mapping[str, Standing | None]) -> dict[str, Standing]:
        """Return what stands otherwise than is known; None = nothing is known."""
        self._awaited.update(list(known))
        self._arrived.set()
        try:
            while True:
                found = {id_: self._found[id_] for id_ in known if self._found.get(id_, known[id_]) != known[id_]}
                if found:
                    return found
                await self._changed.wait()
        finally:
            self._awaited.subtract(list(known))
            self._awaited += Counter()  # drops what nobody waits for
