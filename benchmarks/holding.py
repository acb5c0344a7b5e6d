"""What a replica costs that holds 1,000 events whose workers just run: CPU, memory, and how often it asks Redis.

Beside it the same replica before it had any event. Commands are counted by the server, those inside scripts too.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

import trio

from benchmarks.arena import KEYS, Arena, open_arena, simulated
from benchmarks.figures import Figure, Result, Show
from benchmarks.meter import memory_mib
from ottoscaler.cli.programs import Program

MB = 2**20 / 1e6
SETTLING_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Parameters:
    """How many events, of one worker each, and how long it is watched, without them and with them."""

    events: int = 1_000
    seconds: float = 60.0


FULL = Parameters()
QUICK = Parameters(events=200, seconds=5.0)


async def run(show: Show, parameters: Parameters) -> Result:
    """Leave it alone without events, then with them."""
    async with open_arena(simulated(seconds=3600)) as arena, arena.open_serve() as serve:
        await trio.sleep(1)
        show(f"without events for {parameters.seconds:.0f} s")
        without, _ = await _watch(arena, serve, parameters.seconds, "without events")
        await arena.fill(show, parameters.events, 1)
        await trio.sleep(SETTLING_SECONDS)
        show(f"holding {parameters.events} for {parameters.seconds:.0f} s")
        holding, words = await _watch(arena, serve, parameters.seconds, f"holding {parameters.events}")
        held = await arena.redis.command("ZCARD", KEYS.live)
    figures = [*holding, *without, Figure("events held at the end", held, "", parameters.events, more_is_better=True)]
    return Result(figures, asdict(parameters), [words])


async def _watch(arena: Arena, serve: Program, seconds: float, when: str) -> tuple[list[Figure], str]:
    """What it used of everything in so many seconds in which nothing happens."""
    arena.records.read()
    requests, commands, scripts = arena.records.requests.total(), *await _counted(arena)
    meter = arena.meter(serve)
    await trio.sleep(seconds)
    usage = meter.stop()
    now, now_scripts = await _counted(arena)
    arena.records.read()
    return [
        Figure(f"CPU of one core, {when}", usage.share("serve") * 100, "%"),
        Figure(f"memory, {when}", memory_mib(serve.process.pid) * MB, "MB"),
        Figure(f"commands to Redis, {when}", (now - commands - 1) / usage.seconds, "1/s"),
        Figure(f"scripts among them, {when}", (now_scripts - scripts) / usage.seconds, "1/s"),
        Figure(f"requests to the API, {when}", (arena.records.requests.total() - requests) / usage.seconds, "1/s"),
    ], usage.words()


async def _counted(arena: Arena) -> tuple[int, int]:
    """Commands so far, this one's predecessors, and calls of scripts."""
    info = (await arena.redis.command("INFO", "everything")).decode()
    commands = re.search(r"^total_commands_processed:(\d+)", info, re.MULTILINE)
    scripts = re.search(r"^cmdstat_evalsha:calls=(\d+)", info, re.MULTILINE)
    return int(commands[1]) if commands else 0, int(scripts[1]) if scripts else 0
