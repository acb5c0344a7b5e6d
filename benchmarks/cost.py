"""What a pod costs: requests to the API, counted where they arrive, and CPU of the scaler, from its event to its end.

Twice, for the size of an event matters: the finished pods of a large one are deleted as collections, those of a small
one each by itself, so that there it cannot be less than two writes a pod.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass

import trio

from benchmarks.arena import Arena, open_arena, simulated
from benchmarks.figures import Figure, Result, Show, median_figures
from ottoscaler.cli.programs import Program

WRITES = ("create", "delete", "deletecollection", "patch", "update")
LIMIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Parameters:
    """A round is as many events as given of each size: `large_events` of `large_workers`, and so on."""

    rounds: int = 3
    large_events: int = 2
    large_workers: int = 100
    small_events: int = 40
    small_workers: int = 3
    worker_seconds: float = 0.2


FULL = Parameters()
QUICK = Parameters(rounds=1)


async def run(show: Show, parameters: Parameters) -> Result:
    """Count; the medians over all rounds."""
    rounds = []
    async with open_arena(simulated(seconds=parameters.worker_seconds)) as arena, arena.open_serve() as serve:
        await _count(arena, serve, 1, 1)  # what is imported late, and the first connections
        for number in range(1, parameters.rounds + 1):
            show(f"round {number} of {parameters.rounds}")
            large = await _count(arena, serve, parameters.large_events, parameters.large_workers)
            small = await _count(arena, serve, parameters.small_events, parameters.small_workers)
            rounds.append([*_figures(large, parameters.large_workers, 1.1), *_figures(small, parameters.small_workers)])
    return Result(median_figures(rounds), asdict(parameters))


async def _count(arena: Arena, serve: Program, events: int, workers: int) -> dict[str, float]:
    """Requests by verb and CPU (`cpu`, ms), per pod, of so many events that are sent one after the other."""
    arena.records.read()
    before = arena.records.requests.copy()
    meter = arena.meter(serve)
    for _ in range(events):
        await arena.send(workers)
        await trio.sleep(0.02)
    await arena.wait_results(events, LIMIT_SECONDS)
    usage = meter.stop()
    await trio.sleep(0.2)  # until the last requests are noted
    arena.records.read()
    pods = events * workers
    requests: Counter[str] = arena.records.requests - before
    return {verb: count / pods for verb, count in requests.items()} | {"cpu": usage.cpu["serve"] * 1000 / pods}


def _figures(counted: dict[str, float], workers: int, most_writes: float | None = None) -> list[Figure]:
    of = f"per pod, events of {workers}"
    return [
        Figure(f"writes {of}", sum(counted.get(verb, 0) for verb in WRITES), "requests", most_writes),
        Figure(f"GETs {of}", counted.get("get", 0), "requests", 0),
        Figure(f"lists and watches {of}", counted.get("list", 0) + counted.get("watch", 0), "requests"),
        Figure(f"CPU {of}", counted["cpu"], "ms"),
    ]
