"""What the scaler needs while nothing happens."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import trio

from benchmarks.arena import open_arena, simulated
from benchmarks.figures import Figure, Result, Show
from benchmarks.meter import memory_mib, peak_memory_mib

MB = 2**20 / 1e6


@dataclass(frozen=True, slots=True)
class Parameters:
    """How long nothing happens."""

    seconds: float = 60.0


FULL = Parameters()
QUICK = Parameters(seconds=5.0)


async def run(show: Show, parameters: Parameters) -> Result:
    """Start it, leave it alone, and look."""
    async with open_arena(simulated(seconds=1)) as arena, arena.open_serve() as serve:
        await trio.sleep(1)
        meter = arena.meter(serve)
        left = parameters.seconds
        while left > 0:
            show(f"idle for {left:.0f} s more")
            await trio.sleep(min(5.0, left))
            left -= 5.0
        usage = meter.stop()
        pid = serve.process.pid
        figures = [
            Figure("memory (resident)", memory_mib(pid) * MB, "MB", 60),
            Figure("most memory since the start", peak_memory_mib(pid) * MB, "MB"),
            Figure("CPU of one core", usage.share("serve") * 100, "%"),
        ]
    return Result(figures, asdict(parameters))
