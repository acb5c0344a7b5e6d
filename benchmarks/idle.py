"""What the scaler needs while nothing happens: one without the gRPC door and one with it, side by side."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import trio

from benchmarks.arena import open_arena, simulated
from benchmarks.figures import Figure, Result, Show
from benchmarks.meter import memory_mib, peak_memory_mib
from ottoscaler.cli.playground import find_free_port

MB = 2**20 / 1e6


@dataclass(frozen=True, slots=True)
class Parameters:
    """How long nothing happens."""

    seconds: float = 600.0


FULL = Parameters()
QUICK = Parameters(seconds=5.0)


async def run(show: Show, parameters: Parameters) -> Result:
    """Start both, leave them alone, and look."""
    port = {"GRPC_HOST": "127.0.0.1", "GRPC_PORT": str(find_free_port())}
    async with (
        open_arena(simulated(seconds=1)) as arena,
        arena.open_serve(GRPC_ENABLED="false") as plain,
        arena.open_serve(GRPC_ENABLED="true", **port) as door,
    ):
        await trio.sleep(1)
        meter = arena.meter(plain, door)
        left = parameters.seconds
        while left > 0:
            show(f"idle for {left:.0f} s more")
            await trio.sleep(min(5.0, left))
            left -= 5.0
        usage = meter.stop()
        figures = []
        for words, name, program, most in (("without", "serve", plain, 60), ("with", "serve 2", door, 75)):
            pid, which = program.process.pid, f"{words} the gRPC door"
            figures += [
                Figure(f"memory (resident), {which}", memory_mib(pid) * MB, "MB", most),
                Figure(f"most memory since the start, {which}", peak_memory_mib(pid) * MB, "MB"),
                Figure(f"CPU of one core, {which}", usage.share(name) * 100, "%", 0.5),
            ]
    return Result(figures, asdict(parameters), [usage.words()])
