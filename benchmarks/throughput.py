"""How many pods one replica creates a second against an API that takes 10 ms longer to answer anything.

One event whose workers outlive the measurement, so that creating is all there is to do. The rate is that of the POSTs'
arrivals, from the first to the last.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from benchmarks.arena import Arena, open_arena, simulated
from benchmarks.figures import Figure, Result, Show, median_figures
from ottoscaler.cli.programs import Program


@dataclass(frozen=True, slots=True)
class Parameters:
    """How many pods a round creates; `api_latency` in seconds."""

    rounds: int = 3
    pods: int = 500
    api_latency: float = 0.01


FULL = Parameters()
QUICK = Parameters(rounds=1, pods=300)


async def run(show: Show, parameters: Parameters) -> Result:
    """Measure; the median over all rounds."""
    rounds, notes = [], []
    lasting = simulated(seconds=3600)
    room = {"MAX_WORKERS": str(parameters.rounds * parameters.pods)}
    async with open_arena(lasting, latency=parameters.api_latency, settings=room) as arena, arena.open_serve() as serve:
        for number in range(1, parameters.rounds + 1):
            show(f"round {number} of {parameters.rounds}")
            rate, words = await _round(arena, serve, parameters.pods, number)
            rounds.append([Figure("pods created by one replica", rate, "pods/s", 200, more_is_better=True)])
            notes.append(words)
    return Result(median_figures(rounds), asdict(parameters), notes)


async def _round(arena: Arena, serve: Program, pods: int, number: int) -> tuple[float, str]:
    meter = arena.meter(serve)
    event_id, _ = await arena.send(pods)
    await arena.records.wait_running(number * pods, 120)
    usage = meter.stop()
    arrived = [moment for name, moment in arena.records.created.items() if name.endswith(event_id)]
    return (len(arrived) - 1) / (max(arrived) - min(arrived)), usage.words()
