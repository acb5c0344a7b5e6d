"""One look for all who follow pipelines: a single task asks the stream what they told, whoever follows them.

In: ids of pipelines, for as long as somebody follows them. Out: their news in order, from the first on.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import trio

from ottoscaler.errors import Unavailable
from ottoscaler.stream.pipelines import Pipelines, Told

PERIOD_SECONDS = 0.2
PERIOD_FOR_EACH = 0.0002
"""More for each pipeline that is followed."""
AWAY_SECONDS = 1.0
"""Between looks while Redis does not answer."""


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
    """The shared look. `run` must be running for `follow` to go on."""

    def __init__(self, stream: Pipelines) -> None:
        self._stream = stream
        self._followed: dict[str, _Followed] = {}
        self._arrived = trio.Event()

    def __len__(self) -> int:
        return len(self._followed)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look until cancelled; rests while nobody follows."""
        task_status.started()
        while True:
            known = {id_: len(one.texts) for id_, one in self._followed.items() if not one.is_over}
            if not known:
                self._arrived = trio.Event()
                await self._arrived.wait()
                continue
            try:
                told = await self._stream.read_news(known)
            except Unavailable:
                await trio.sleep(AWAY_SECONDS)
                continue
            for event_id, page in told.items():
                followed = self._followed.get(event_id)
                if followed and len(followed.texts) == known[event_id]:  # it may have been left and come back meanwhile
                    followed.hear(page)
            await trio.sleep(PERIOD_SECONDS + PERIOD_FOR_EACH * len(known))

    async def follow(self, event_id: str) -> AsyncGenerator[str]:
        """All news of a pipeline, and more as they come; returns after the last. Close it when it is left early."""
        followed = self._followed.setdefault(event_id, _Followed())
        followed.followers += 1
        self._arrived.set()
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
