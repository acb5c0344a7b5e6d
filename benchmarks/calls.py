"""How many calls a second the gRPC door answers, of one kind at a time, from clients that call again at once.

GetWorkerStatus is asked for a task without workers, and for one of many that have ended. ScaleUp asks for one worker;
it is answered by a look at all awaited events every 0.1 s, so that each client makes about ten a second. A repeated
ScaleUp is one whose request id is known.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import trio

from benchmarks.arena import Arena, open_arena, simulated
from benchmarks.calling import Caller, open_door, timed
from benchmarks.figures import Figure, Result, Show, percentile
from ottoscaler.cli.programs import Program

DONE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Parameters:
    """How long each kind is called, by how many clients, and of how many workers it is told."""

    seconds: float = 15.0
    clients: int = 16
    workers: int = 500
    worker_seconds: float = 0.2


FULL = Parameters()
QUICK = Parameters(seconds=2.0, clients=8, workers=50)


async def run(show: Show, parameters: Parameters) -> Result:
    """One kind after the other."""
    figures, notes = [], []
    async with (
        open_arena(simulated(seconds=parameters.worker_seconds)) as arena,
        open_door(arena) as (serve, caller),
    ):
        await caller.scale_up(parameters.workers, wait="completed")
        await caller.scale_up(1, request_id="one")
        kinds: dict[str, Callable[[], Awaitable[Any]]] = {
            "GetWorkerStatus of no worker": partial(caller.status, "none"),
            f"GetWorkerStatus of {parameters.workers} workers": partial(caller.status, "benchmark"),
            "ScaleUp, repeated": partial(caller.scale_up, 1, request_id="one"),
            "ScaleUp": partial(caller.scale_up, 1),
        }
        for kind, call in kinds.items():
            show(kind)
            measured, words = await _call(arena, serve, caller, call, kind, parameters)
            figures += measured
            notes.append(f"{kind}: {words}")
    return Result(figures, asdict(parameters), notes)


async def _call(
    arena: Arena, serve: Program, caller: Caller, call: Callable[[], Awaitable[Any]], kind: str, parameters: Parameters
) -> tuple[list[Figure], str]:
    """Closed loops of all clients for so long."""
    took: list[float] = []

    async def client() -> None:
        while trio.current_time() < end:
            await timed(call, took)

    meter, begun = arena.meter(serve), trio.current_time()
    end = begun + parameters.seconds
    with trio.fail_after(DONE_SECONDS + parameters.seconds):
        async with trio.open_nursery() as nursery:
            for _ in range(parameters.clients):
                nursery.start_soon(client)
    usage, seconds = meter.stop(), trio.current_time() - begun
    return [
        Figure(kind, len(took) / seconds, "calls/s", more_is_better=True),
        Figure(f"{kind}, p50", percentile(took, 50), "ms"),
        Figure(f"{kind}, p99", percentile(took, 99), "ms"),
        Figure(f"{kind}, CPU of the scaler", usage.cpu["serve"] * 1000 / len(took), "ms/call"),
    ], usage.words()
