"""How long from XADD to the worker: until its POST arrives at the API, and until it runs.

50 events a second of 3 workers each, sent at fixed times whatever becomes of them. Beside them a bare client posts the
same pods, one at a time and as three at once, for three pods at once keep each other waiting in the API too. A
simulated worker has no process: its first line is the moment in which it runs, the same for all.

Then the same at 10 events a second, which shows the path itself where 50 are more than the machine, all programs and
the stand-in API together, can do: there queues grow, and what is measured is how long they are.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import trio

from benchmarks.arena import Arena, open_arena, simulated, template
from benchmarks.bare import BareClient, open_bare_client
from benchmarks.figures import Figure, Result, Show, median_figures, percentile
from benchmarks.records import Records
from ottoscaler.cli.programs import Program


@dataclass(frozen=True, slots=True)
class Parameters:
    """How much is sent; a round is `seconds` long at each rate. Bare pods come as often alone as in threes."""

    rounds: int = 3
    seconds: float = 5.0
    events_per_second: float = 50.0
    calm_events_per_second: float = 10.0
    workers_per_event: int = 3
    bare_posts_per_second: float = 7.0
    worker_seconds: float = 0.5


FULL = Parameters()
QUICK = Parameters(rounds=1, seconds=3.0)


@dataclass(slots=True)
class Sent:
    """When (CLOCK_MONOTONIC, s) each pod was begun, by name: ours by the XADD, bare ones by their POST."""

    ours: dict[str, float] = field(default_factory=dict)
    bare: dict[str, float] = field(default_factory=dict)
    bare_at_once: dict[str, float] = field(default_factory=dict)
    events: int = 0


async def run(show: Show, parameters: Parameters) -> Result:
    """Measure; the medians over all rounds."""
    annotations = simulated(seconds=parameters.worker_seconds)
    rounds, notes = [], []
    async with open_arena(annotations) as arena, arena.open_serve() as serve:
        async with open_bare_client(arena.kubeconfig, template(annotations)) as bare:
            await _warm_up(arena, bare)
            for number in range(1, parameters.rounds + 1):
                show(f"round {number} of {parameters.rounds}")
                sent, words = await _round(arena, serve, bare, parameters, parameters.events_per_second)
                calm, _ = await _round(arena, serve, bare, parameters, parameters.calm_events_per_second)
                rounds.append([*_figures(arena.records, sent), *_calm_figures(arena.records, calm)])
                notes.append(words)
    return Result(median_figures(rounds), asdict(parameters), notes)


async def _warm_up(arena: Arena, bare: BareClient) -> None:
    """Open all connections and import what is imported late."""
    await bare.post(3, {})
    for _ in range(3):
        await arena.send(3)
        await arena.wait_results(1, 20)


async def _round(
    arena: Arena, serve: Program, bare: BareClient, parameters: Parameters, events_per_second: float
) -> tuple[Sent, str]:
    sent, rate = Sent(), parameters.bare_posts_per_second
    meter = arena.meter(serve)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bare.post_steadily, rate, 1, sent.bare)
        nursery.start_soon(bare.post_steadily, rate, parameters.workers_per_event, sent.bare_at_once)
        await _send_steadily(arena, sent, parameters, events_per_second)
        nursery.cancel_scope.cancel(reason="all events of the round are sent")
    usage = meter.stop()
    await arena.wait_results(sent.events, 60)
    await trio.sleep(0.2)  # until the last runs are noted
    arena.records.read()
    return sent, usage.words()


async def _send_steadily(arena: Arena, sent: Sent, parameters: Parameters, events_per_second: float) -> None:
    """XADD at fixed times; one that is late is sent at once, and its own time counts from when it is sent."""
    start = trio.current_time()
    for number in range(round(parameters.seconds * events_per_second)):
        await trio.sleep_until(start + number / events_per_second)
        event_id, begun = await arena.send(parameters.workers_per_event)
        sent.events += 1
        sent.ours |= {f"otto-agent-{index}-{event_id}": begun for index in range(1, parameters.workers_per_event + 1)}


def _figures(records: Records, sent: Sent) -> list[Figure]:
    to_post, to_run = _delays(sent.ours, records.created), _delays(sent.ours, records.running)
    bare_post, bare_run = _delays(sent.bare, records.created), _delays(sent.bare, records.running)
    at_once = _delays(sent.bare_at_once, records.running)
    return [
        Figure("XADD to POST, p50", percentile(to_post, 50), "ms", 15),
        Figure("XADD to POST, p99", percentile(to_post, 99), "ms", 100),
        Figure("XADD to first line, p50", percentile(to_run, 50), "ms"),
        Figure("XADD to first line, p99", percentile(to_run, 99), "ms"),
        Figure("bare POST to its arrival, p50", percentile(bare_post, 50), "ms"),
        Figure("bare POST to its arrival, p99", percentile(bare_post, 99), "ms"),
        Figure("bare POST to first line, p50", percentile(bare_run, 50), "ms"),
        Figure("bare POST to first line, p99", percentile(bare_run, 99), "ms"),
        Figure("as many bare POSTs at once to first line, p50", percentile(at_once, 50), "ms"),
        Figure("XADD to first line, times one bare POST", percentile(to_run, 50) / percentile(bare_run, 50), "x", 2),
        Figure("XADD to first line, times as many at once", percentile(to_run, 50) / percentile(at_once, 50), "x"),
    ]


def _calm_figures(records: Records, sent: Sent) -> list[Figure]:
    to_post, to_run = _delays(sent.ours, records.created), _delays(sent.ours, records.running)
    bare_run, at_once = _delays(sent.bare, records.running), _delays(sent.bare_at_once, records.running)
    return [
        Figure("calm: XADD to POST, p50", percentile(to_post, 50), "ms"),
        Figure("calm: XADD to POST, p99", percentile(to_post, 99), "ms"),
        Figure("calm: XADD to first line, p50", percentile(to_run, 50), "ms"),
        Figure("calm: times one bare POST", percentile(to_run, 50) / percentile(bare_run, 50), "x"),
        Figure("calm: times as many at once", percentile(to_run, 50) / percentile(at_once, 50), "x"),
    ]


def _delays(begun: dict[str, float], ended: dict[str, float]) -> list[float]:
    """Milliseconds from one to the other, of all pods in both."""
    return [(ended[name] - start) * 1000 for name, start in begun.items() if name in ended]
