"""How long ScaleUp takes, beside an event that is added without a call, at the same time and of the same size.

Both come at fixed times, in turn. "Accepted" is when the last POST of the event arrived at the API; a call is answered
after that, when the scaler has written it down and the next look at all awaited events has seen it.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from functools import partial

import trio

from benchmarks.arena import Arena, open_arena, simulated
from benchmarks.calling import Caller, open_door, timed
from benchmarks.figures import Figure, Result, Show, median_figures, percentile
from benchmarks.records import Records
from ottoscaler.cli.programs import Program


@dataclass(frozen=True, slots=True)
class Parameters:
    """How much is asked for; a round is `seconds` long, with so many calls and as many events a second."""

    rounds: int = 3
    seconds: float = 20.0
    each_per_second: float = 5.0
    workers: int = 3
    worker_seconds: float = 0.5


FULL = Parameters()
QUICK = Parameters(rounds=1, seconds=4.0)


@dataclass(slots=True)
class Asked:
    """When (CLOCK_MONOTONIC, s) each was begun, with the names of its pods; what calls took until their answer, ms."""

    calls: list[tuple[float, list[str]]] = field(default_factory=list)
    events: list[tuple[float, list[str]]] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)


async def run(show: Show, parameters: Parameters) -> Result:
    """Measure; the medians over all rounds."""
    rounds, notes = [], []
    async with (
        open_arena(simulated(seconds=parameters.worker_seconds)) as arena,
        open_door(arena) as (serve, caller),
    ):
        for _ in range(3):
            await caller.scale_up(parameters.workers)
        await arena.wait_results(3, 20)
        for number in range(1, parameters.rounds + 1):
            show(f"round {number} of {parameters.rounds}")
            asked, words = await _round(arena, serve, caller, parameters)
            rounds.append(figures_of(arena.records, asked))
            notes.append(words)
    return Result(median_figures(rounds), asdict(parameters), notes)


async def _round(arena: Arena, serve: Program, caller: Caller, parameters: Parameters) -> tuple[Asked, str]:
    asked, meter = Asked(), arena.meter(serve)

    async def call() -> None:
        begun = time.monotonic()
        answer = await timed(partial(caller.scale_up, parameters.workers), asked.answered)
        asked.calls.append((begun, list(answer.worker_pod_names)))

    start, number = trio.current_time(), round(parameters.seconds * parameters.each_per_second)
    async with trio.open_nursery() as nursery:
        for turn in range(number):
            await trio.sleep_until(start + turn / parameters.each_per_second)
            nursery.start_soon(call)
            await trio.sleep_until(start + (turn + 0.5) / parameters.each_per_second)
            event_id, begun = await arena.send(parameters.workers)
            names = [f"otto-agent-{index}-{event_id}" for index in range(1, parameters.workers + 1)]
            asked.events.append((begun, names))
    words = meter.stop().words()
    await arena.wait_results(2 * number, 60)
    await trio.sleep(0.2)  # until the last POSTs are noted
    arena.records.read()
    return asked, words


def figures_of(records: Records, asked: Asked) -> list[Figure]:
    """All figures of a round."""
    calls, events = _accepted(records, asked.calls), _accepted(records, asked.events)
    return [
        Figure("ScaleUp to its answer, p50", percentile(asked.answered, 50), "ms"),
        Figure("ScaleUp to its answer, p99", percentile(asked.answered, 99), "ms"),
        Figure("ScaleUp to accepted, p50", percentile(calls, 50), "ms"),
        Figure("ScaleUp to accepted, p99", percentile(calls, 99), "ms"),
        Figure("XADD to accepted, p50", percentile(events, 50), "ms"),
        Figure("XADD to accepted, p99", percentile(events, 99), "ms"),
        Figure("accepted by ScaleUp, times by XADD, p50", percentile(calls, 50) / percentile(events, 50), "x"),
        Figure("events without all of their POSTs", len(asked.calls + asked.events) - len(calls + events), "", 0),
    ]


def _accepted(records: Records, begun: list[tuple[float, list[str]]]) -> list[float]:
    """Milliseconds until the last POST of each."""
    whole = [(start, names) for start, names in begun if all(name in records.created for name in names)]
    return [(max(records.created[name] for name in names) - start) * 1000 for start, names in whole]
