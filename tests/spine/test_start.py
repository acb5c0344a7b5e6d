"""The start of a whole scaler: what it finds that is too old, or gone a moment later."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from ottoscaler.stream.base import Era
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from tests.spine.scaler import Scaler
from tests.spine.world import World


async def test_a_redis_emptied_during_the_start_is_begun_with_anew(autojump_clock: MockClock) -> None:
    """A life whose era is gone before its session stands ends within seconds, so that the next one serves."""
    server = MemoryServer(started_at=1_760_000_000.0)
    async with trio.open_nursery() as nursery:
        world = World()
        await nursery.start(world.run)
        scaler = Scaler(world, server, "one")
        open_group = scaler.stream.open_group

        async def open_and_lose(start: str, namespace: str) -> Era:
            era = await open_group(start, namespace)
            server.flush()
            return era

        vars(scaler.stream).update(open_group=open_and_lose)
        with trio.fail_after(10):
            await scaler.run()
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_what_is_too_old_at_the_first_start_is_refused(autojump_clock: MockClock) -> None:
    """With EVENT_MAX_AGE_SECONDS at 60, an entry of an hour before the group's first start is a dead letter; one of
    half a minute is worked on, and so is one that waited for an hour since.
    """
    world, server = World(), MemoryServer(started_at=1_760_000_000.0)
    producer = MemoryStream(server, "producer")

    async def add(token: str) -> str:
        return await producer.add_event([("type", "scale_up"), ("pod_count", "1")], token)

    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        old = await add("old")
        await trio.sleep(3600)
        young = await add("young")
        await trio.sleep(30)
        await producer.open_group("0", "otto")
        waiting = await add("waiting")
        await trio.sleep(3600)
        nursery.start_soon(Scaler(world, server, "one", event_max_age_seconds="60").run)
        await trio.sleep(60)
        (letter,) = await producer.read_entries("dlq", "0", 9, 0.0)
        results = await producer.read_entries("results", "0", 9, 0.0)
        nursery.cancel_scope.cancel(reason="the test is over")
    assert (letter[1]["event_id"], letter[1]["cause"]) == (old, "TooOld")
    assert "3630 s old at the first start" in letter[1]["reason"]
    assert {fields["event_id"] for _, fields in results} == {young, waiting}
