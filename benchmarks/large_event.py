"""One event of 10,000 workers, by the default settings (1,000 of them at a time): time to its result, and memory."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import trio

from benchmarks.arena import Arena, open_arena, simulated
from benchmarks.figures import Figure, Result, Show
from benchmarks.meter import peak_memory_mib

LIMIT_SECONDS = 240.0
MB = 2**20 / 1e6


@dataclass(frozen=True, slots=True)
class Parameters:
    """How many workers, and how long each runs."""

    workers: int = 10_000
    worker_seconds: float = 0.5


FULL = Parameters()
QUICK = Parameters(workers=1_000)


async def run(show: Show, parameters: Parameters) -> Result:
    """Send it and wait. The aims are those of 10,000 workers; the time's is in proportion to their number."""
    async with open_arena(simulated(seconds=parameters.worker_seconds)) as arena, arena.open_serve() as serve:
        meter = arena.meter(serve)
        _, begun = await arena.send(parameters.workers)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_tell, arena, show, parameters.workers)
            (result,) = await arena.wait_results(1, LIMIT_SECONDS)
            nursery.cancel_scope.cancel(reason="the result is there")
        took = time.monotonic() - begun
        usage = meter.stop()
        arena.records.read()
        writes = sum(arena.records.requests[verb] for verb in ("create", "delete", "deletecollection"))
        figures = [
            Figure("time to the result", took, "s", 60 * parameters.workers / 10_000),
            Figure("peak memory", peak_memory_mib(serve.process.pid) * MB, "MB", 300),
            Figure("workers that succeeded", float(result["succeeded"]), "", parameters.workers, more_is_better=True),
            Figure("pods created and deleted", parameters.workers / took, "pods/s"),
            Figure("writes per pod", writes / parameters.workers, "requests"),
            Figure("CPU per pod", usage.cpu["serve"] * 1000 / parameters.workers, "ms"),
            Figure("CPU per pod of the stand-in API", usage.cpu["cluster"] * 1000 / parameters.workers, "ms"),
        ]
    return Result(figures, asdict(parameters), [usage.words()])


async def _tell(arena: Arena, show: Show, workers: int) -> None:
    while True:
        await trio.sleep(2)
        arena.records.read()
        show(f"{len(arena.records.created)} of {workers} pods created")
