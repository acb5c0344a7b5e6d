"""SIGTERM to a replica that follows 10,000 pods and has no time to drain: how long until all is handed over and it is
gone.

Twice: as few large events and as many small ones, for each event is a task and a row in the hand-over. What was not
handed over is not lost, but waits for the lease to run out.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass

import trio

from benchmarks.arena import KEYS, Arena, open_arena, simulated
from benchmarks.figures import Figure, Result, Show
from ottoscaler.cli.programs import Program

LIMIT_SECONDS = 30.0
AIM_SECONDS = 5.0
LOOK_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Parameters:
    """How many pods, and in how many events (at most 1,000, the default of MAX_EVENTS)."""

    pods: int = 10_000
    few_events: int = 10
    many_events: int = 1_000


FULL = Parameters()
QUICK = Parameters(pods=500, few_events=5, many_events=100)


async def run(show: Show, parameters: Parameters) -> Result:
    """Fill the cluster and end, once with few events and once with many."""
    few = await _leave(show, parameters.few_events, parameters.pods // parameters.few_events)
    many = await _leave(show, parameters.many_events, parameters.pods // parameters.many_events)
    return Result([*few, *many], asdict(parameters))


async def _leave(show: Show, events: int, workers_per_event: int) -> list[Figure]:
    room = {"MAX_WORKERS": str(events * workers_per_event)}
    async with open_arena(simulated(seconds=3600), settings=room) as arena, arena.open_serve() as serve:
        await arena.fill(show, events, workers_per_event)
        show("SIGTERM")
        began = time.monotonic()
        serve.process.terminate()
        all_offered = await _wait_exit(arena, serve, events) - began
        took = time.monotonic() - began
        offered = await _offered(arena)
        code = await serve.wait()
    of = f"{events} events"
    return [
        Figure(f"{of}: SIGTERM to exit", took, "s", AIM_SECONDS),
        Figure(f"{of}: SIGTERM until all are handed over", all_offered, "s"),
        Figure(f"{of}: not handed over", events - offered, "events", 0),
        Figure(f"{of}: exit code", code, "", 0),
    ]


async def _wait_exit(arena: Arena, serve: Program, events: int) -> float:
    """Return once it has ended: when (CLOCK_MONOTONIC, s) all events were seen to be offered; NaN: never."""
    all_offered = math.nan
    with trio.fail_after(LIMIT_SECONDS):
        while serve.process.poll() is None:
            if math.isnan(all_offered) and await _offered(arena) == events:
                all_offered = time.monotonic()
            await trio.sleep(LOOK_SECONDS)
    if math.isnan(all_offered) and await _offered(arena) == events:
        return time.monotonic()
    return all_offered


async def _offered(arena: Arena) -> int:
    """How many events wait for another replica."""
    return int(await arena.redis.command("ZCARD", KEYS.offered("work")))
