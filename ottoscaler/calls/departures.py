"""Pipelines whose callers tied them to their call and have left: each is cancelled, however long Redis is away.

In: what a call knew of its pipeline when its client went. Out: a cancel on the stream, or a line in the log that the
wish was lost. A wish stands in this process only: a kill between the client's going and Redis' answer loses it.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import NamedTuple

import trio

from ottoscaler.log import log
from ottoscaler.spine.ledger import Ledger
from ottoscaler.stages import request_id_of

REASON = "its client went away"
LAST_SECONDS = 0.5
"""So long it goes on when everything ends: below what a drain leaves to a process behind its deadline."""
MOST_WAITING = 10_000


class Departed(NamedTuple):
    """`event_id` is that of the call's own pipeline; empty where the client left before Redis had answered, and then
    only a pipeline that was added under the call's `token` is its own.
    """

    pipeline_id: str
    token: str
    event_id: str = ""


class Departures:
    """`note` may be called at any time; `run` must be running for anything to come of it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: deque[Departed] = deque()
        self._arrived = trio.Event()
        self._is_over = False

    def note(self, departed: Departed) -> None:
        """A client has left that wanted its pipeline to end with its call."""
        if self._is_over or len(self._waiting) == MOST_WAITING:
            _log_lost(departed)
            return
        self._waiting.append(departed)
        self._arrived.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Cancel what is noted until cancelled, and then for a moment more."""
        self._is_over = False
        task_status.started()
        try:
            while True:
                await self._arrived.wait()
                await self._cancel_all()
                self._arrived = trio.Event()
        except trio.Cancelled:
            with trio.move_on_after(LAST_SECONDS, shield=True):
                await self._cancel_all()
            self._is_over = True
            for departed in self._waiting:
                _log_lost(departed)
            self._waiting.clear()
            raise

    async def _cancel_all(self) -> None:
        while self._waiting:
            await self._cancel(self._waiting[0])
            self._waiting.popleft()

    async def _cancel(self, departed: Departed) -> None:
        """Ask for the end of its pipeline, if it has begun one, and that has not ended."""
        insist, stream = self._ledger.insist, self._ledger.stream
        event_id = departed.event_id or await self._added_by(departed)
        if not event_id or (await insist(partial(stream.look, [event_id])))[event_id].where in ("ended", "nowhere"):
            return
        pairs = (("type", "cancel"), ("event_id", event_id), ("reason", REASON))
        await insist(partial(stream.add_event, pairs, f"cancel:{event_id}"))
        log.info("pipeline is to be cancelled", event_id=event_id, pipeline_id=departed.pipeline_id, reason=REASON)

    async def _added_by(self, departed: Departed) -> str:
        name = request_id_of(departed.pipeline_id)
        request = await self._ledger.insist(partial(self._ledger.stream.read_request, name))
        return request.event_id if request and request.token == departed.token else ""


def _log_lost(departed: Departed) -> None:
    log.error(
        "pipeline goes on, though its call wanted its end",
        event_id=departed.event_id or None,
        pipeline_id=departed.pipeline_id,
        reason=f"{REASON}, and Redis has not answered since",
    )
