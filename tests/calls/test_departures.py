"""ExecutePipeline with on_disconnect=cancel: which pipeline ends when a client goes, and that it does."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.backoff import Backoff
from ottoscaler.calls.departures import Departed, Departures
from ottoscaler.rpc.door import PipelineCall, RequestMismatch
from ottoscaler.spine.ledger import Ledger
from ottoscaler.stream.memory import MemoryStream
from tests.calls.house import Replica, open_house
from tests.calls.test_execute_pipeline import BUILD, call, ends, follow
from tests.spine.world import Plan, World


async def leave(replica: Replica, asked: PipelineCall, after: float) -> None:
    """Call, and go away."""
    with trio.move_on_after(after):
        await follow(replica, asked, lambda: True)


TIED = call(ends_with_call=True)


def long_world() -> World:
    """Workers that go on until they are stopped."""
    return World(lambda labels: Plan(duration=1000))


async def test_a_pipeline_that_is_tied_to_its_call_ends_with_it(autojump_clock: MockClock) -> None:
    """Its running stage is stopped, the rest never begins; whoever joined it and leaves, or leaves after the end, adds
    nothing.
    """
    async with open_house(long_world()) as house:
        one = await house.open()
        async with trio.open_nursery() as both:
            both.start_soon(leave, one, TIED, 5)
            both.start_soon(leave, one, TIED, 5)
        assert ends(await follow(one, call())) == {"build": "cancelled", "deploy": "cancelled"}
        await leave(one, TIED, 0.001)
        await trio.sleep(60)
        results = [dict(fields)[b"type"] for fields in house.server.results.entries.values()]
        assert Counter(results) == {b"scale_up": 1, b"pipeline": 1, b"cancel": 1}
        assert house.world.pods == {}


async def test_a_call_that_has_not_got_the_pipeline_does_not_end_it(autojump_clock: MockClock) -> None:
    """Whoever names a pipeline that runs, and asks for other content, or leaves before the call knows of it, ends
    nothing.
    """
    async with open_house(World(lambda labels: Plan(duration=10))) as house:
        one = await house.open()
        await leave(one, call(), 3)
        await leave(one, TIED, 0)
        for wait in (0, 0.001, 1):
            with suppress(RequestMismatch):
                await leave(one, call(BUILD, ends_with_call=True), wait)
        assert ends(await follow(one, call())) == {"build": "completed", "deploy": "completed"}


@pytest.mark.parametrize("has_answer", [True, False])
async def test_a_client_that_leaves_while_redis_is_away_still_ends_its_pipeline(
    autojump_clock: MockClock, has_answer: bool
) -> None:
    """However long Redis says nothing, and also where the call had no answer yet that its pipeline stands there."""
    async with open_house(long_world()) as house:
        one = await house.open()
        if not has_answer:
            house.server.lose_answer_of.add("request")
        async with trio.open_nursery() as both:
            both.start_soon(leave, one, TIED, 5 if has_answer else 0.05)
            await trio.sleep(4 if has_answer else 0.02)
            house.server.weather = "silent"
            await trio.sleep(20)
            house.server.weather = "fine"
        assert ends(await follow(one, call())) == {"build": "cancelled", "deploy": "cancelled"}


async def test_a_wish_that_is_lost_is_in_the_log(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Where Redis says nothing until this process ends, the pipeline goes on, and the log says so."""
    async with open_house() as house:
        departures = Departures(Ledger(MemoryStream(house.server, "gone"), Backoff(0.1, 1.0)))
        async with trio.open_nursery() as nursery:
            await nursery.start(departures.run)
            house.server.weather = "silent"
            departures.note(Departed("p", "token", "1-0"))
            await trio.sleep(5)
            began = trio.current_time()
            nursery.cancel_scope.cancel(reason="the process ends")
        assert trio.current_time() - began == pytest.approx(0.5)
        departures.note(Departed("q", "token"))
    lost = [vars(record)["facts"]["pipeline_id"] for record in caplog.records if "wanted its end" in record.message]
    assert lost == ["p", "q"]
