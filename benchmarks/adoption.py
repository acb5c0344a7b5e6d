"""`kill -9` of the scaler while 10,000 workers run, and a new start: when it is ready, and when all are adopted.

The new process may take the events only when the dead one's lease has run out (`LEASE_SECONDS`, 3), and not in the
first lease of its own life: both are part of the time until all are adopted. No pod may be created a second time.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import trio

from benchmarks.arena import KEYS, Arena, open_arena, simulated
from benchmarks.figures import Figure, Result, Show
from benchmarks.meter import peak_memory_mib

LIMIT_SECONDS = 240.0
SETTLING_SECONDS = 3.0
"""Adopted is written down before the workers are followed: time for that, and to do something wrong."""
MB = 2**20 / 1e6


@dataclass(frozen=True, slots=True)
class Parameters:
    """How many events, each of how many workers."""

    events: int = 10
    workers_per_event: int = 1_000

    @property
    def pods(self) -> int:
        """All workers together."""
        return self.events * self.workers_per_event


FULL = Parameters()
QUICK = Parameters(events=5, workers_per_event=100)


async def run(show: Show, parameters: Parameters) -> Result:
    """Fill the cluster, kill, start again."""
    room = {"MAX_WORKERS": str(parameters.pods)}
    async with open_arena(simulated(seconds=3600), settings=room) as arena:
        started = time.monotonic()
        async with arena.open_serve() as serve:
            ready_empty = time.monotonic() - started
            event_ids = await arena.fill(show, parameters.events, parameters.workers_per_event)
            serve.process.kill()
            killed = time.monotonic()
            await serve.wait()
        show("killed; starting again")
        before = arena.records.requests["create"]
        meter, started = arena.meter(), time.monotonic()
        async with arena.open_serve() as serve:
            ready = time.monotonic()
            meter.add("serve", serve.process.pid)
            usage = meter.stop()
            show("ready; waiting until all are adopted")
            await _wait_adopted(arena, event_ids)
            adopted = time.monotonic()
            await trio.sleep(SETTLING_SECONDS)
            arena.records.read()
            again = arena.records.requests["create"] - before
            figures = [
                Figure("start to ready", ready - started, "s", 3),
                Figure("start to ready when there is nothing", ready_empty, "s"),
                Figure("start until all are adopted", adopted - started, "s"),
                Figure("kill until all are adopted", adopted - killed, "s"),
                Figure("pods created again", again, "pods", 0),
                Figure("peak memory of the new process", peak_memory_mib(serve.process.pid) * MB, "MB"),
            ]
    notes = [f"Until it was ready: {usage.words()}"]
    return Result(figures, asdict(parameters) | {"pods": parameters.pods}, notes)


async def _wait_adopted(arena: Arena, event_ids: list[str]) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        for event_id in event_ids:
            await _wait_field(arena, f"{KEYS.prefix}:progress:{event_id}", "adopted:2")


async def _wait_field(arena: Arena, key: str, field: str) -> None:
    """Look every 20 ms whether the hash has the field."""
    while not await arena.redis.command("HEXISTS", key, field):  # noqa: ASYNC110 - it is set in Redis, not here
        await trio.sleep(0.02)
