"""One look for all who follow pipelines: a single task asks the stream what they told, whoever follows them.

In: ids of pipelines, for as long as somebody follows them. Out: their news in order, from the first on. All of them are
looked at every so often, for any replica may work on them; one at once when somebody begins to follow it, and when this
very process has written something down about it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from math import inf

import trio

from ottoscaler.errors import Unavailable
from ottoscaler.spine.ledger import Ledger
from ottoscaler.stream.pipelines import Told

PERIOD_SECONDS = 0.2
PERIOD_FOR_EACH = 0.0002
"""More for each pipeline that is followed."""
REST_SECONDS = 0.02
"""Between two looks at least."""
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

    def __init__(self, ledger: Ledger) -> None:
        self._stream = ledger.stream
        self._followed: dict[str, _Followed] = {}
        self._noticed: set[str] = set()
        self._called = trio.Event()
        ledger.listeners.append(self.notice)

    def __len__(self) -> int:
        return len(self._followed)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look until cancelled; rests while nobody follows."""
        task_status.started()
        due = trio.current_time()
        while True:
            with trio.move_on_at(due if self._open() else inf):
                await self._called.wait()
            is_due = trio.current_time() >= due
            known = {id_: len(one.texts) for id_, one in self._open().items() if is_due or id_ in self._noticed}
            self._noticed, self._called = set(), trio.Event()
            if is_due:
                due = trio.current_time() + PERIOD_SECONDS + PERIOD_FOR_EACH * len(known)
            pause = REST_SECONDS + PERIOD_FOR_EACH * len(known)
            try:
                await self._look(known)
            except Unavailable:
                pause = AWAY_SECONDS
            await trio.sleep(pause)

    async def _look(self, known: dict[str, int]) -> None:
        if not known:
            return
        for event_id, page in (await self._stream.read_news(known)).items():
            followed = self._followed.get(event_id)
            if followed and len(followed.texts) == known[event_id]:  # it may have been left and come back meanwhile
                followed.hear(page)

    def _open(self) -> dict[str, _Followed]:
        return {id_: one for id_, one in self._followed.items() if not one.is_over}

    def notice(self, event_ids: Collection[str]) -> None:
        """Something was written about these events: look at those that somebody follows."""
        if noticed := self._followed.keys() & event_ids:
            self._noticed |= noticed
            self._called.set()

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
