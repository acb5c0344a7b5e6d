"""Rolling restarts without a pause, under load: nothing is lost, no pod is killed, and events wait hardly longer.

As a Deployment with maxUnavailable 0 and maxSurge 1 does it: a new replica starts, and once its /readyz says yes an old
one gets its SIGTERM; then the next. Drains are too short for some of the workers and long enough for others, so that
work is both finished by the leaving and handed over. Beside it the same load on replicas that nobody restarts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from signal import SIGTERM

import trio

from benchmarks.arena import KEYS, Arena, open_arena, simulated
from benchmarks.crew import Crew, open_crew
from benchmarks.figures import Figure, Result, Show, percentile
from ottoscaler.cli.playground import find_free_port
from ottoscaler.cli.programs import Program

AIM_SECONDS = 1.0
READY_SECONDS = 30.0
PROBE_SECONDS = 0.1
LIMIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Parameters:
    """`seconds` of load without restarts, and so many with, longer where fewer than `least_restarts` were made by then;
    `pause_seconds` between a SIGTERM and the next start.
    """

    replicas: tuple[int, ...] = (2, 1)
    seconds: float = 60.0
    events_per_second: float = 5.0
    workers_per_event: int = 2
    worker_seconds: float = 4.0
    drain_seconds: float = 2.0
    pause_seconds: float = 1.0
    least_restarts: int = 4


FULL = Parameters()
QUICK = Parameters(seconds=15.0)


@dataclass(slots=True)
class Load:
    """What was sent, by event id and when (CLOCK_MONOTONIC, s), and the replicas that left meanwhile."""

    events: dict[str, float] = field(default_factory=dict)
    left: list[Program] = field(default_factory=list)


async def run(show: Show, parameters: Parameters) -> Result:
    """Measure each number of replicas in an arena of its own."""
    figures: list[Figure] = []
    notes: list[str] = []
    for replicas in parameters.replicas:
        async with open_arena(simulated(seconds=parameters.worker_seconds)) as arena, open_crew(arena, 0) as crew:
            for _ in range(replicas):
                await _start_ready(crew, parameters)
            found, words = await _measure(show, crew, replicas, parameters)
        figures.extend(found)
        notes.append(words)
    return Result(figures, asdict(parameters), notes)


async def _measure(show: Show, crew: Crew, replicas: int, parameters: Parameters) -> tuple[list[Figure], str]:
    arena, name = crew.arena, f"{replicas} replica{'s' if replicas > 1 else ''}"
    await _warm_up(arena, parameters)
    show(f"{name}, no restarts")
    calm = Load()
    await _send_steadily(arena, calm, parameters)
    show(f"{name}, restarts")
    rolling = Load()
    meter = arena.meter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_restart_in_a_loop, crew, rolling, parameters)
        await _send_steadily(arena, rolling, parameters, parameters.least_restarts)
        nursery.cancel_scope.cancel(reason="all events are sent")
    usage = meter.stop()
    harm = await _judge(arena, {**calm.events, **rolling.events}, rolling, parameters)
    times = [_figures(arena, load, parameters) for load in (calm, rolling)]
    added = times[1]["running, p99"] - times[0]["running, p99"]
    figures = [
        Figure(f"{name}: restarts", len(rolling.left), ""),
        Figure(f"{name}: events beside them", len(rolling.events), ""),
        *(Figure(f"{name}: added to {what}", seconds, "s") for what, seconds in times[0].items()),
        *(Figure(f"{name}, restarted: added to {what}", seconds, "s") for what, seconds in times[1].items()),
        Figure(f"{name}: p99 longer by restarts", added, "s", AIM_SECONDS),
        *(Figure(f"{name}: {what}", count, "", 0) for what, count in harm.items()),
    ]
    bad = [leaving.failure("left") for leaving in rolling.left if leaving.process.returncode]
    return figures, "\n".join((f"{name}: {usage.words()} The replicas count as others.", *map(str, bad)))


async def _warm_up(arena: Arena, parameters: Parameters) -> None:
    """Open all connections and import what is imported late; its result is read, and counts no more."""
    await arena.send(parameters.workers_per_event)
    await arena.wait_results(1, LIMIT_SECONDS)


async def _send_steadily(arena: Arena, load: Load, parameters: Parameters, least_restarts: int = 0) -> None:
    """XADD at fixed times until the load is over; one that is late is sent at once, and counts from then."""
    start = due = trio.current_time()
    while due < start + parameters.seconds or len(load.left) < least_restarts:
        await trio.sleep_until(due)
        event_id, begun = await arena.send(parameters.workers_per_event)
        load.events[event_id] = begun
        due += 1 / parameters.events_per_second


async def _restart_in_a_loop(crew: Crew, load: Load, parameters: Parameters) -> None:
    """Replace the oldest replica by a new one, again and again, until cancelled."""
    while True:
        await _start_ready(crew, parameters)
        leaving = crew.programs.pop(next(iter(crew.programs)))
        leaving.process.send_signal(SIGTERM)
        load.left.append(leaving)
        await trio.sleep(parameters.pause_seconds)


async def _start_ready(crew: Crew, parameters: Parameters) -> None:
    """Start another replica, and return when its /readyz says so."""
    port = find_free_port()
    drain = f"{parameters.drain_seconds:g}"
    await crew.start(HTTP_HOST="127.0.0.1", HTTP_PORT=str(port), DRAIN_SECONDS=drain)
    with trio.fail_after(READY_SECONDS):
        while not await _is_ready(port):  # noqa: ASYNC110 - a probe, as the kubelet's
            await trio.sleep(PROBE_SECONDS)


async def _is_ready(port: int) -> bool:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET /readyz HTTP/1.1\r\nhost: replica\r\nconnection: close\r\n\r\n")
        return (await stream.receive_some(12)).endswith(b" 200")


async def _judge(arena: Arena, events: dict[str, float], rolling: Load, parameters: Parameters) -> dict[str, int]:
    """Wait for all to end; how often each promise was broken."""
    results = await arena.wait_results(len(events), LIMIT_SECONDS)
    codes = [await leaving.wait() for leaving in rolling.left]
    ids = Counter(result["event_id"] for result in results + await _late_results(arena))
    names = {name for event_id in events for name in _names(event_id, parameters)}
    arena.records.read()
    runs = {name: count for name, count in arena.records.runs.items() if name.split("-", 3)[3] in events or count > 1}
    return {
        "events without exactly one result": sum(ids[event_id] != 1 for event_id in events) + len(ids.keys() - events),
        "events that did not succeed": sum(result["status"] != "succeeded" for result in results),
        "dead letters": await arena.redis.command("XLEN", KEYS.dead_letters),
        "workers that did not run exactly once": len(names - runs.keys())
        + sum(runs.values())
        - len(names & runs.keys()),
        "pods deleted before their end": len(arena.records.killed),
        "replicas that did not exit with 0": sum(code != 0 for code in codes),
    }


async def _late_results(arena: Arena) -> list[dict[str, str]]:
    """Results that nobody expects any more: one more than there are events."""
    try:
        return await arena.wait_results(1, 1.0)
    except trio.TooSlowError:
        return []


def _figures(arena: Arena, load: Load, parameters: Parameters) -> dict[str, float]:
    """Seconds from XADD to the arrival of the POST, and until the pod runs, over all workers."""
    begun = {name: at for event_id, at in load.events.items() for name in _names(event_id, parameters)}
    posted = [arena.records.created[name] - at for name, at in begun.items() if name in arena.records.created]
    ran = [arena.records.running[name] - at for name, at in begun.items() if name in arena.records.running]
    return {
        "POST, p99": percentile(posted, 99),
        "running, p50": percentile(ran, 50),
        "running, p99": percentile(ran, 99),
        "running, slowest": max(ran, default=float("nan")),
    }


def _names(event_id: str, parameters: Parameters) -> list[str]:
    """The pods of an event whose workers each succeed at once."""
    return [f"otto-agent-{index}-{event_id}" for index in range(1, parameters.workers_per_event + 1)]
