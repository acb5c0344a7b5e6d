"""The service as calls see it (`ottoscaler.rpc.door.Door`): each call goes to the module of its name.

`run` is the one task behind them, and must be running for calls to be answered.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable

import trio

from ottoscaler.calls.scale import Scale
from ottoscaler.calls.watching import Watching
from ottoscaler.calls.worker_status import worker_status
from ottoscaler.errors import Unavailable
from ottoscaler.events import Limits
from ottoscaler.rpc.door import (
    PipelineCall,
    PipelineNews,
    ScaleAnswer,
    ScaleDownCall,
    ScaleUpCall,
    StatusAnswer,
    StatusQuestion,
)
from ottoscaler.site import Site


class Calls:
    """What calls may ask of one process."""

    def __init__(self, site: Site, limits: Limits) -> None:
        self.watching = Watching(site.ledger.stream)
        self._site = site
        self._scale = Scale(site, limits, self.watching)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look after the events that calls wait for, until cancelled."""
        await self.watching.run(task_status=task_status)

    async def scale_up(self, call: ScaleUpCall) -> ScaleAnswer:
        """See `Scale.up`."""
        return await self._scale.up(call)

    async def scale_down(self, call: ScaleDownCall) -> ScaleAnswer:
        """See `Scale.down`."""
        return await self._scale.down(call)

    async def worker_status(self, question: StatusQuestion) -> StatusAnswer:
        """See `worker_status`."""
        return await worker_status(self._site, question)

    async def execute_pipeline(self, call: PipelineCall) -> AsyncGenerator[PipelineNews]:
        """Pipelines have no room in the house so far: every one is refused for now."""
        for news in _refuse(call):
            yield news

    async def cancel_pipeline(self, pipeline_id: str, reason: str) -> None:
        """There is none to end."""


def _refuse(call: PipelineCall) -> Iterable[PipelineNews]:
    raise Unavailable(f"pipeline {call.pipeline_id} cannot be run: this process serves no pipelines")
