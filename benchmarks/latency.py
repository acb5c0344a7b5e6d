"""How long from XADD to the worker: until its POST arrives at the API, and until it runs.

50 events a second of 3 workers each, sent at fixed times whatever becomes of them, while a bare client posts the same
pods beside them. A simulated worker has no process: its first line is the moment in which it runs, the same for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import trio

from benchmarks.arena import Arena, open_arena, simulated, template
from benchmarks.bare import BareClient, open_bare_client
from benchmarks.figures import Figure, Result, Show, median_figures, percentile
from benchmarks.records import Records
from ottoscaler.cli.programs import Program


@dataclass(frozen=True, slots=True)
class Parameters:
    """How much is sent; a round is `seconds` long."""

    rounds: int = 3
    seconds: float = 5.0
    events_per_second: float = 50.0
    workers_per_event: int = 3
    bare_per_second: float = 20.0
    worker_seconds: float = 0.5


FULL = Parameters()
QUICK = Parameters(rounds=1, seconds=3.0)


async def run(show: Show, parameters: Parameters) -> Result:
    """Measure; the medians over all rounds."""
    annotations = simulated(seconds=parameters.worker_seconds)
    rounds, notes = [], []
    async with open_arena(annotations) as arena, arena.open_serve() as serve:
        async with open_bare_client(arena.kubeconfig, template(annotations)) as bare:
            await _warm_up(arena, bare)
            for number in range(1, parameters.rounds + 1):
                show(f"round {number} of {parameters.rounds}")
                figures, words = await _round(arena, serve, bare, parameters)
                rounds.append(figures)
                notes.append(words)
    return Result(median_figures(rounds), asdict(parameters), notes)


async def _warm_up(arena: Arena, bare: BareClient) -> None:
    """Open all connections and import what is imported late."""
    await bare.post()
    for _ in range(3):
        await arena.send(3)
        await arena.wait_results(1, 20)


async def _round(
    arena: Arena, serve: Program, bare: BareClient, parameters: Parameters
) -> tuple[Sequence[Figure], str]:
    sent: dict[str, float] = {}
    bare.sent.clear()
    meter = arena.meter(serve)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bare.post_steadily, parameters.bare_per_second)
        await _send_steadily(arena, sent, parameters)
        nursery.cancel_scope.cancel(reason="all events of the round are sent")
    usage = meter.stop()
    await arena.wait_results(len(sent), 60)
    await trio.sleep(0.2)
    arena.records.read()
    return _figures(arena.records, sent, bare.sent), usage.words()


async def _send_steadily(arena: Arena, sent: dict[str, float], parameters: Parameters) -> None:
    """XADD at fixed times; one that is late is sent at once, and its own time counts from when it is sent."""
    start = trio.current_time()
    for number in range(round(parameters.seconds * parameters.events_per_second)):
        await trio.sleep_until(start + number / parameters.events_per_second)
        event_id, begun = await arena.send(parameters.workers_per_event)
        sent[event_id] = begun


def _figures(records: Records, sent: dict[str, float], bare: dict[str, float]) -> list[Figure]:
    ours = {f"otto-agent-{index}-{event_id}": begun for event_id, begun in sent.items() for index in range(1, 1 + 3)}
    to_post, to_run = _delays(ours, records.created), _delays(ours, records.running)
    bare_post, bare_run = _delays(bare, records.created), _delays(bare, records.running)
    ratio = percentile(to_run, 50) / percentile(bare_run, 50)
    return [
        Figure("XADD to POST, p50", percentile(to_post, 50), "ms", 15),
        Figure("XADD to POST, p99", percentile(to_post, 99), "ms", 100),
        Figure("XADD to first line, p50", percentile(to_run, 50), "ms"),
        Figure("XADD to first line, p99", percentile(to_run, 99), "ms"),
        Figure("bare POST to its arrival, p50", percentile(bare_post, 50), "ms"),
        Figure("bare POST to its arrival, p99", percentile(bare_post, 99), "ms"),
        Figure("bare POST to first line, p50", percentile(bare_run, 50), "ms"),
        Figure("bare POST to first line, p99", percentile(bare_run, 99), "ms"),
        Figure("first line, p50: times the bare POST's", ratio, "x", 2),
    ]


def _delays(begun: dict[str, float], ended: dict[str, float]) -> list[float]:
    """Milliseconds from one to the other, of all pods in both."""
    return [(ended[name] - start) * 1000 for name, start in begun.items() if name in ended]
