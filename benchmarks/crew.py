"""Several replicas side by side: who owns an event, and the moments in which it changes hands."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from signal import Signals

import trio

from benchmarks.arena import KEYS, Arena
from ottoscaler.cli.programs import Program

LOOK_SECONDS = 0.004
"""How often the owner is looked at: moments are that exact."""


@dataclass(frozen=True, slots=True)
class Passing:
    """When (CLOCK_MONOTONIC, s) an owner got its signal, and its event was nobody's, was owned by another replica, and
    was gone on with there; `leaving` is the former owner.
    """

    signalled: float
    offered: float
    owned: float
    adopted: float
    leaving: Program


@dataclass(slots=True)
class Crew:
    """Running replicas, by the name that their sessions begin with. All of them end with the block that opened it."""

    arena: Arena
    programs: dict[str, Program] = field(default_factory=dict)
    _exits: AsyncExitStack = field(default_factory=AsyncExitStack)
    _started: int = 0

    async def start(self, **settings: str) -> None:
        """Start another replica, with further settings (by variable); returns when it is ready."""
        self._started += 1
        name = f"replica{self._started}"
        self.programs[name] = await self._exits.enter_async_context(
            self.arena.open_serve(REDIS_CONSUMER=name, **settings)
        )

    async def owner(self, event_id: str) -> str:
        """The name of the replica that owns an event; empty where none does."""
        return _replica(await self.arena.redis.command("HGET", KEYS.progress(event_id), "owner"))

    async def wait_followed(self, event_id: str, limit_seconds: float = 20.0) -> None:
        """Return when the API has accepted a pod of the event; raises trio.TooSlowError."""
        with trio.fail_after(limit_seconds):
            while not await self.arena.redis.command("HEXISTS", KEYS.progress(event_id), "started"):  # noqa: ASYNC110 - it is set in Redis, not here
                await trio.sleep(LOOK_SECONDS)

    async def end_owner(self, event_id: str, signal: Signals, limit_seconds: float) -> Passing:
        """Send the owner of an event a signal that ends it, and look until another replica has gone on with the event.

        Raises trio.TooSlowError.
        """
        progress = KEYS.progress(event_id)
        former, epoch = await self.owner(event_id), int(await self.arena.redis.command("HGET", progress, "epoch"))
        leaving = self.programs.pop(former)
        signalled, offered, owned = time.monotonic(), 0.0, 0.0
        leaving.process.send_signal(signal)
        with trio.fail_after(limit_seconds):
            while True:
                session, adopted = await self.arena.redis.command("HMGET", progress, "owner", f"adopted:{epoch + 1}")
                now, owner = time.monotonic(), _replica(session)
                offered = offered or (now if owner != former else 0.0)
                owned = owned or (now if owner not in ("", former) else 0.0)
                if owned and adopted:
                    return Passing(signalled, offered, owned, now, leaving)
                await trio.sleep(LOOK_SECONDS)


def _replica(session: bytes | None) -> str:
    """The name in a session's name, which ends with a random part."""
    return (session or b"").decode().rpartition("-")[0]


@asynccontextmanager
async def open_crew(arena: Arena, replicas: int) -> AsyncIterator[Crew]:
    """So many replicas, all of them ready."""
    async with AsyncExitStack() as exits:
        crew = Crew(arena, _exits=exits)
        for _ in range(replicas):
            await crew.start()
        yield crew
