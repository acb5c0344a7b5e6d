"""A house for tests of calls: one world, one stream, and whole scalers on them that answer calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from ottoscaler.calls.door import Calls
from ottoscaler.events import Limits
from ottoscaler.rpc.door import ScaleAnswer, ScaleDownCall, ScaleUpCall, StatusAnswer, StatusQuestion
from ottoscaler.stream.memory import MemoryServer
from tests.spine.scaler import Scaler
from tests.spine.world import World


class Replica:
    """One scaler and its calls. `kill` ends both as a `kill -9` does."""

    def __init__(self, house: House, name: str, limits: Limits, **settings: str) -> None:
        self.scaler = Scaler(house.world, house.server, name, **settings)
        self.calls: Calls
        self._limits = limits
        self._life = trio.CancelScope()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """From the start to the kill."""
        with self._life:
            async with trio.open_nursery() as nursery:

                def open_calls(scaler: Scaler) -> None:
                    self.calls = Calls(scaler.rings._site, self._limits)
                    nursery.start_soon(self.calls.run)
                    task_status.started()

                await self.scaler.run(open_calls)
                nursery.cancel_scope.cancel(reason="the scaler has drained")

    def kill(self) -> None:
        """End everything of it, at once."""
        self._life.cancel(reason="killed")

    async def up(self, number: int = 3, **words: object) -> ScaleAnswer:
        """ScaleUp."""
        return await self.calls.scale_up(ScaleUpCall(worker_count=number, **words))  # type: ignore[arg-type]  # tests

    async def down(self, target: int = 0, **words: object) -> ScaleAnswer:
        """ScaleDown."""
        return await self.calls.scale_down(ScaleDownCall(target=target, **words))  # type: ignore[arg-type]  # tests

    async def status(self, **words: object) -> StatusAnswer:
        """GetWorkerStatus."""
        return await self.calls.worker_status(StatusQuestion(**words))  # type: ignore[arg-type]  # tests


class House:
    """The world and the stream that all replicas share."""

    def __init__(self, world: World, nursery: trio.Nursery) -> None:
        self.world = world
        self.server = MemoryServer()
        self._nursery = nursery

    async def open(self, name: str = "one", limits: Limits | None = None, **settings: str) -> Replica:
        """Start a replica; it answers calls when this returns."""
        replica = Replica(self, name, limits or Limits(), **settings)
        await self._nursery.start(replica.run)
        return replica

    @property
    def workers_run(self) -> int:
        """How many workers ever ran."""
        return len(self.world.runs)


@asynccontextmanager
async def open_house(world: World | None = None) -> AsyncIterator[House]:
    """A house without a replica."""
    async with trio.open_nursery() as nursery:
        world = world or World()
        await nursery.start(world.run)
        yield House(world, nursery)
        nursery.cancel_scope.cancel(reason="the test is over")
