"""The service as calls see it (`ottoscaler.rpc.door.Door`): each call goes to the module of its name.

`run` is the one task behind them, and must be running for calls to be answered.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

import trio

from ottoscaler.calls.departures import Departures
from ottoscaler.calls.execute_pipeline import ExecutePipeline
from ottoscaler.calls.following import Following
from ottoscaler.calls.scale import Scale
from ottoscaler.calls.worker_status import worker_status
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
from ottoscaler.spine.site import Site


class Calls:
    """What calls may ask of one process."""

    def __init__(self, site: Site, limits: Limits) -> None:
        self.following = Following(site.ledger)
        self._site = site
        self._scale = Scale(site, limits)
        self._departures = Departures(site.ledger)
        self._pipelines = ExecutePipeline(site, limits, self.following, self._departures)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look after the events and pipelines that calls wait for, until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.following.run)
            await nursery.start(self._departures.run)
            task_status.started()

    async def scale_up(self, call: ScaleUpCall) -> ScaleAnswer:
        """See `Scale.up`."""
        return await self._scale.up(call)

    async def scale_down(self, call: ScaleDownCall) -> ScaleAnswer:
        """See `Scale.down`."""
        return await self._scale.down(call)

    async def worker_status(self, question: StatusQuestion) -> StatusAnswer:
        """See `worker_status`."""
        return await worker_status(self._site, question)

    def execute_pipeline(self, call: PipelineCall, is_abandoned: Callable[[], bool]) -> AsyncGenerator[PipelineNews]:
        """See `ExecutePipeline.run`."""
        return self._pipelines.run(call, is_abandoned)
