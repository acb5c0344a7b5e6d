"""The start of a whole scaler, when what it found at first is gone a moment later."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from ottoscaler.stream.base import Era
from ottoscaler.stream.memory import MemoryServer
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
