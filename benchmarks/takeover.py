"""`kill -9` of the replica that owns an event: how long until another one owns it, and goes on with it.

Two replicas, so that one is left, which is the hardest case: more of them look more often. The same event goes from
hand to hand, and a new replica is started for each that was killed. Kills come at random moments between two renewals
of the lease; a replica takes nothing from others in the first lease of its own life, so each kill waits until that is
over for the one that is left.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from signal import SIGKILL

import trio

from benchmarks.arena import open_arena, simulated
from benchmarks.crew import Crew, Passing, open_crew
from benchmarks.figures import Figure, Result, Show, percentile

ADDED_SECONDS = 0.5
"""The aim: the lease, which cannot be less, and so much more."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """How many kills, and the lease (seconds; 3 is the default of the setting)."""

    kills: int = 36
    lease_seconds: float = 3.0
    workers: int = 3


FULL = Parameters()
QUICK = Parameters(kills=5)


async def run(show: Show, parameters: Parameters) -> Result:
    """Kill again and again."""
    passings: list[Passing] = []
    settings = {"LEASE_SECONDS": f"{parameters.lease_seconds:g}"}
    async with open_arena(simulated(seconds=3600), settings=settings) as arena, open_crew(arena, 2) as crew:
        event_id, _ = await arena.send(parameters.workers)
        await crew.wait_followed(event_id)
        await trio.sleep(parameters.lease_seconds)
        meter = arena.meter()
        for number in range(1, parameters.kills + 1):
            show(f"kill {number} of {parameters.kills}")
            passings.append(await _kill(crew, event_id, parameters.lease_seconds))
        usage = meter.stop()
        arena.records.read()
        again = arena.records.requests["create"] - parameters.workers
    figures = [*_figures(passings, parameters.lease_seconds), Figure("pods created again", again, "pods", 0)]
    return Result(
        figures,
        asdict(parameters),
        [f"{usage.words()} The replicas count as others.", "Of fewer than 100 kills, p99 is the slowest."],
    )


async def _kill(crew: Crew, event_id: str, lease_seconds: float) -> Passing:
    """Kill the owner, see the event taken over, and have two replicas again, the new one past half its first lease."""
    await trio.sleep(random.uniform(0, lease_seconds / 3))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_replace, crew, lease_seconds)
        return await crew.end_owner(event_id, SIGKILL, lease_seconds + 20)


async def _replace(crew: Crew, lease_seconds: float) -> None:
    """The next owner dies two thirds of a lease after its last renewal at the earliest: by then the new one is calm."""
    await crew.start()
    await trio.sleep(lease_seconds / 2)


def _figures(passings: list[Passing], lease_seconds: float) -> list[Figure]:
    owned = [passing.owned - passing.signalled for passing in passings]
    adopted = [passing.adopted - passing.signalled for passing in passings]
    return [
        Figure("kill to a new owner, p50", percentile(owned, 50), "s"),
        Figure("kill to a new owner, p99", percentile(owned, 99), "s", lease_seconds + ADDED_SECONDS),
        Figure("kill until that goes on, p50", percentile(adopted, 50), "s"),
        Figure("kill until that goes on, p99", percentile(adopted, 99), "s"),
    ]
