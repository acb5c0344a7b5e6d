"""How many pods three replicas create a second, and how many one: where they share no limit, three times as many.

Each replica has few requests at a time under way, so an API that takes long to answer, but answers everybody, limits
the replica and nothing else: no CPU has much to do. Events of one size come one after the other, enough to keep all
replicas busy, and whoever waits first gets the next; the workers outlive the measurement. The rate is that of the
POSTs' arrivals, from the first to the last, so that an uneven share costs what it costs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass

import trio

from benchmarks.arena import open_arena, simulated
from benchmarks.crew import Crew, open_crew
from benchmarks.figures import Figure, Result, Show, median_figures

LIMIT_SECONDS = 120.0
GAP_SECONDS = 0.01
"""Between two events, so that the replica that got one waits for the next again, behind the others."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """How many, and how many events each gets; `api_latency` in seconds."""

    rounds: int = 3
    replicas: int = 3
    events_per_replica: int = 10
    workers_per_event: int = 20
    api_latency: float = 0.25


FULL = Parameters()
QUICK = Parameters(rounds=1, events_per_replica=5)


async def run(show: Show, parameters: Parameters) -> Result:
    """Measure one, then all; the medians over all rounds."""
    rounds, notes = [], []
    for number in range(1, parameters.rounds + 1):
        async with open_arena(simulated(seconds=3600), latency=parameters.api_latency) as arena:
            async with open_crew(arena, 1) as crew:
                show(f"round {number} of {parameters.rounds}: one replica")
                one, words = await _create(crew, parameters)
                notes.append(words)
                for _ in range(parameters.replicas - 1):
                    await crew.start()
                show(f"round {number} of {parameters.rounds}: {parameters.replicas} replicas")
                several, words = await _create(crew, parameters)
                notes.append(words)
        rounds.append(_figures(one, several, parameters.replicas))
    return Result(median_figures(rounds), asdict(parameters), notes)


def _figures(one: float, several: float, replicas: int) -> list[Figure]:
    least = 2.5 if replicas == 3 else None
    return [
        Figure("pods created by one replica", one, "pods/s"),
        Figure(f"pods created by {replicas}", several, "pods/s"),
        Figure(f"{replicas} replicas, times one", several / one, "x", least, more_is_better=True),
    ]


async def _create(crew: Crew, parameters: Parameters) -> tuple[float, str]:
    """Pods a second over all replicas that run, and what there is to know."""
    arena, replicas = crew.arena, len(crew.programs)
    before = len(arena.records.running)
    meter = arena.meter(*crew.programs.values())
    event_ids = []
    for _ in range(replicas * parameters.events_per_replica):
        event_ids.append((await arena.send(parameters.workers_per_event))[0])
        await trio.sleep(GAP_SECONDS)
    await arena.records.wait_running(before + len(event_ids) * parameters.workers_per_event, LIMIT_SECONDS)
    usage = meter.stop()
    ours = set(event_ids)
    arrived = [moment for name, moment in arena.records.created.items() if name.split("-", 3)[3] in ours]
    shares = Counter([await crew.owner(event_id) for event_id in event_ids])
    share = ", ".join(str(shares[name]) for name in crew.programs)
    rate = (len(arrived) - 1) / (max(arrived) - min(arrived))
    return rate, f"{replicas} at work, {share} events. {usage.words()}"
