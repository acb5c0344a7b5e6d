"""What pipelines tell: their news in order, from the first on, for all who follow them.

In: ids of pipelines, for as long as somebody follows them. Out: their news. One is looked at at once when somebody
begins to follow it, and when this very process has written something down about it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection

import trio

from ottoscaler.spine.ledger import Ledger
from ottoscaler.spine.shared_look import SharedLook
from ottoscaler.stream.pipelines import Told


class _Followed:
    """One pipeline: all that it told so far, and how many follow it."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.is_over = False
        self.changed = trio.Event()
        self.followers = 0

    def hear(self, told: Told) -> None:
        """Let the followers know of more, or of the end."""
        self.texts += told.texts
        self.is_over = told.is_over
        if told.texts or told.is_over:
            self.changed.set()
            self.changed = trio.Event()


class Following:
    """All who follow. `run` must be running for `follow` to go on."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._followed: dict[str, _Followed] = {}
        self._shared = SharedLook(self._open, self._look)
        ledger.listeners.append(self.notice)

    def __len__(self) -> int:
        return len(self._followed)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look until cancelled."""
        await self._shared.run(task_status=task_status)

    def _open(self) -> list[str]:
        return [id_ for id_, one in self._followed.items() if not one.is_over]

    async def _look(self, wanted: list[str]) -> bool:
        known = {id_: len(self._followed[id_].texts) for id_ in wanted}
        told = await self._ledger.insist(lambda: self._ledger.stream.read_news(known))
        for event_id, page in told.items():
            followed = self._followed.get(event_id)
            if followed and len(followed.texts) == known[event_id]:  # it may have been left and come back meanwhile
                followed.hear(page)
        return any(page.texts or page.is_over for page in told.values())

    def notice(self, event_ids: Collection[str]) -> None:
        """Something was written about these events: look at those that somebody follows."""
        if noticed := self._followed.keys() & event_ids:
            self._shared.call_for(noticed)

    async def follow(self, event_id: str) -> AsyncGenerator[str]:
        """All news of a pipeline, and more as they come; returns after the last. Close it when it is left early."""
        followed = self._followed.setdefault(event_id, _Followed())
        followed.followers += 1
        self.notice((event_id,))
        position = 0
        try:
            while True:
                while position < len(followed.texts):
                    position += 1
                    yield followed.texts[position - 1]
                if followed.is_over:
                    return
                await followed.changed.wait()
        finally:
            followed.followers -= 1
            if not followed.followers:
                del self._followed[event_id]
