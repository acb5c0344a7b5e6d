"""A pipeline of many stages takes long to judge: others run meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable

import trio
import trio.testing

from ottoscaler.calls.pipeline_entry import pipeline_pairs
from ottoscaler.events import Event, Limits
from ottoscaler.rpc.door import PipelineCall, StageCall
from ottoscaler.stream.base import Entry
from tests.calls.house import open_house

CALL = PipelineCall(pipeline_id="p", stages=tuple(StageCall(stage_id=f"s{at}", worker_count=1) for at in range(200)))


class Turns:
    """Counts what is judged between two turns of somebody else: `most` at a time."""

    def __init__(self) -> None:
        self.judged = self.most = 0
        self.limits = Limits(policy=self._judge)

    def _judge(self, event: Event) -> None:
        self.judged += 1
        self.most = max(self.most, self.judged)

    async def while_it_takes(self, work: Awaitable[object]) -> None:
        """Take a turn whenever there is one, until the work is done."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._take)
            await work
            nursery.cancel_scope.cancel(reason="the work is done")

    async def _take(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            self.judged = 0


async def test_others_run_while_a_call_s_stages_are_judged() -> None:
    """Between any two of them everybody has a turn."""
    turns = Turns()
    await turns.while_it_takes(pipeline_pairs(CALL, turns.limits, 0.0))
    assert 1 <= turns.most <= 5  # of 201, in whichever order Trio runs the two


async def test_others_run_while_an_entry_s_stages_are_judged(autojump_clock: trio.testing.MockClock) -> None:
    """The same for who reads the stream: not one of the 200 is judged in one go with another."""
    async with open_house() as house:
        one, turns = await house.open(), Turns()
        poller = one.scaler.rings._poller
        poller._limits = turns.limits
        pairs = await pipeline_pairs(CALL, Limits(), 0.0)
        entry = Entry("1-1", tuple((name.encode(), value.encode()) for name, value in pairs), 1)
        await turns.while_it_takes(poller.admit([entry]))
        assert 1 <= turns.most <= 5  # of 201, in whichever order Trio runs the two
