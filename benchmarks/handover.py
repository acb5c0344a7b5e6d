"""SIGTERM to one of two replicas that has no time to drain: how long nobody owns its event.

From the moment in which the leaving replica offers the event (its owner is empty then) until the other one owns it. The
same event goes from hand to hand, and a new replica is started after each that left.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from signal import SIGTERM

import trio

from benchmarks.arena import open_arena, simulated
from benchmarks.crew import Crew, Passing, open_crew
from benchmarks.figures import Figure, Result, Show, percentile

LIMIT_SECONDS = 20.0
AIM_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Parameters:
    """How often."""

    rounds: int = 36
    workers: int = 3


FULL = Parameters()
QUICK = Parameters(rounds=5)


async def run(show: Show, parameters: Parameters) -> Result:
    """Hand over again and again."""
    passings, exits = [], []
    async with open_arena(simulated(seconds=3600)) as arena, open_crew(arena, 2) as crew:
        event_id, _ = await arena.send(parameters.workers)
        await crew.wait_followed(event_id)
        await trio.sleep(1)
        meter = arena.meter()
        for number in range(1, parameters.rounds + 1):
            show(f"round {number} of {parameters.rounds}")
            passing, exit_seconds = await _leave(crew, event_id)
            passings.append(passing)
            exits.append(exit_seconds)
        usage = meter.stop()
        arena.records.read()
        again = arena.records.requests["create"] - parameters.workers
    figures = [*_figures(passings, exits), Figure("pods created again", again, "pods", 0)]
    return Result(
        figures,
        asdict(parameters),
        [f"{usage.words()} The replicas count as others.", "Of fewer than 100 rounds, p99 is the slowest."],
    )


async def _leave(crew: Crew, event_id: str) -> tuple[Passing, float]:
    """One hand-over, and the seconds from the signal to the end of the process; then there are two replicas again."""
    ended: list[float] = []

    async def wait_exit(leaving: str) -> None:
        await programs[leaving].wait()
        ended.append(time.monotonic())

    programs = dict(crew.programs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_exit, await crew.owner(event_id))
        passing = await crew.end_owner(event_id, SIGTERM, LIMIT_SECONDS)
    await crew.start()
    return passing, ended[0] - passing.signalled


def _figures(passings: list[Passing], exits: list[float]) -> list[Figure]:
    without_owner = [passing.owned - passing.offered for passing in passings]
    until_owned = [passing.owned - passing.signalled for passing in passings]
    until_adopted = [passing.adopted - passing.signalled for passing in passings]
    return [
        Figure("offer to a new owner, p50", percentile(without_owner, 50), "s"),
        Figure("offer to a new owner, p99", percentile(without_owner, 99), "s", AIM_SECONDS),
        Figure("SIGTERM to a new owner, p50", percentile(until_owned, 50), "s"),
        Figure("SIGTERM to a new owner, p99", percentile(until_owned, 99), "s"),
        Figure("SIGTERM until that goes on, p99", percentile(until_adopted, 99), "s"),
        Figure("SIGTERM to exit, p50", percentile(exits, 50), "s"),
    ]
