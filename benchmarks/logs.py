"""What the logs of workers cost: lines a second, the load that GitLab tells of for its runner's manager, and many pods.

Three parts, each with programs of its own. *As fast as it goes*: a few real processes write as fast as they can; their
logs are not rotated, as a kubelet looks at sizes every 10 s, and they have ended before. *The load*: 100 pods write
4 MB each, for which GitLab tells of 657m CPU and 369 MB. Over how long, and in lines of what length, we do not know:
here `load_seconds` and `LINE_BYTES`. *Many pods*: so many are followed, and write a line a minute each.

The handler only counts. What is measured of the scaler is all that it does: creating and deleting the pods, too.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass

import trio

from benchmarks.arena import Arena, open_arena, simulated
from benchmarks.figures import Figure, Result, Show
from benchmarks.forwarding import Handler, open_counting_handler
from benchmarks.meter import memory_mib, peak_memory_mib

MB = 2**20 / 1e6
LINE_BYTES = 100
NEVER_ROTATED = 1 << 40
GRACE = {"LOG_GRACE_SECONDS": "3600"}
"""No line is given up, however long it takes."""
LIMIT_SECONDS = 3600.0
SETTLING_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Parameters:
    """Lines of `LINE_BYTES` of each fast pod; of the load, pods, bytes of each and how long they write; of many pods,
    how many there are and how long they are watched.
    """

    fast_pods: int = 4
    fast_lines: int = 90_000
    load_pods: int = 100
    load_bytes: int = 4_000_000
    load_seconds: int = 600
    many_pods: int = 1_000
    many_seconds: float = 60.0


FULL = Parameters()
QUICK = Parameters(fast_lines=5_000, load_pods=10, load_bytes=100_000, load_seconds=5, many_pods=100, many_seconds=5.0)


async def run(show: Show, parameters: Parameters) -> Result:
    """One part after the other."""
    figures, notes = [], []
    for part in (_fast, _load, _many):
        found, words = await part(show, parameters)
        figures += found
        notes.append(words)
    return Result(figures, asdict(parameters), notes)


async def _fast(show: Show, parameters: Parameters) -> tuple[list[Figure], str]:
    lines = parameters.fast_pods * parameters.fast_lines
    script = f"yes {_text()} | head -n {parameters.fast_lines}"
    async with (
        open_arena({}, max_log_bytes=NEVER_ROTATED, settings=_running(script)) as arena,
        open_counting_handler(arena) as handler,
        arena.open_serve(OTTO_HANDLER_HOST=handler.address) as serve,
    ):
        meter = arena.meter(serve, handler=handler.program)
        await _write(show, "as fast as it goes", arena, handler, parameters.fast_pods, lines)
        usage = meter.stop()
        return [
            Figure("lines forwarded", handler.rate(), "lines/s", more_is_better=True),
            Figure("CPU of the scaler for 1,000 lines", usage.cpu["serve"] * 1e6 / lines, "ms"),
            Figure("lines that did not arrive", lines - handler.lines(), "", 0),
            Figure("peak memory, as fast as it goes", peak_memory_mib(serve.process.pid) * MB, "MB"),
        ], f"As fast as it goes: {usage.words()}"


async def _load(show: Show, parameters: Parameters) -> tuple[list[Figure], str]:
    each = parameters.load_bytes // parameters.load_seconds // LINE_BYTES
    burst = f"yes {_text()} | head -n {each}"
    script = f"i=0; while [ $i -lt {parameters.load_seconds} ]; do {burst}; i=$((i+1)); sleep 1; done"
    lines = parameters.load_pods * parameters.load_seconds * each
    async with (
        open_arena({}, settings=_running(script)) as arena,
        open_counting_handler(arena) as handler,
        arena.open_serve(OTTO_HANDLER_HOST=handler.address) as serve,
    ):
        meter = arena.meter(serve, handler=handler.program)
        await _write(show, f"{parameters.load_pods} pods", arena, handler, parameters.load_pods, lines)
        usage, load = meter.stop(), f"{parameters.load_pods} pods of {parameters.load_bytes / 1e6:g} MB"
        return [
            Figure(f"{load}: CPU of one core", usage.share("serve") * 100, "%", 30),
            Figure(f"{load}: peak memory", peak_memory_mib(serve.process.pid) * MB, "MB", 150),
            Figure(f"{load}: lines that came a second", handler.rate(), "lines/s"),
            Figure(f"{load}: lines that did not arrive", lines - handler.lines(), "", 0),
            Figure(f"{load}: from sending to the result", usage.seconds, "s"),
        ], f"{load}: {usage.words()}"


async def _many(show: Show, parameters: Parameters) -> tuple[list[Figure], str]:
    pods = parameters.many_pods
    lasting = simulated(seconds=3600) | {"ottoscaler.local/log-lines": "60"}
    async with (
        open_arena(lasting, settings=GRACE) as arena,
        open_counting_handler(arena) as handler,
        arena.open_serve(OTTO_HANDLER_HOST=handler.address) as serve,
    ):
        await arena.fill(show, 1, pods)
        await _wait_lines(show, handler, pods)
        await trio.sleep(SETTLING_SECONDS)
        show(f"{pods} pods followed")
        meter = arena.meter(serve, handler=handler.program)
        await trio.sleep(parameters.many_seconds)
        usage = meter.stop()
        return [
            Figure(f"{pods} followed pods: memory", memory_mib(serve.process.pid) * MB, "MB", 200),
            Figure(f"{pods} followed pods: peak memory", peak_memory_mib(serve.process.pid) * MB, "MB"),
            Figure(f"{pods} followed pods: CPU of one core", usage.share("serve") * 100, "%"),
        ], f"{pods} followed pods: {usage.words()}"


async def _write(show: Show, what: str, arena: Arena, handler: Handler, pods: int, lines: int) -> None:
    """One event of so many pods, until its result is there: which is when all its lines were forwarded."""
    await arena.send(pods)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_tell, show, what, handler, lines)
        await arena.wait_results(1, LIMIT_SECONDS)
        nursery.cancel_scope.cancel(reason="the result is there")
    with trio.move_on_after(1):
        await _wait_lines(lambda words: None, handler, lines)  # the last are counted with a delay


async def _tell(show: Show, what: str, handler: Handler, lines: int) -> None:
    while True:
        await trio.sleep(2)
        show(f"{what}: {handler.lines()} of {lines} lines")


async def _wait_lines(show: Show, handler: Handler, lines: int) -> None:
    """Wait for so many lines; raises trio.TooSlowError."""
    begun = time.monotonic()
    with trio.fail_after(LIMIT_SECONDS):
        while (found := handler.lines()) < lines:
            show(f"{found} of {lines} lines after {time.monotonic() - begun:.0f} s")
            await trio.sleep(0.2)


def _running(script: str) -> dict[str, str]:
    """Settings with which workers are processes that run this."""
    return {"WORKER_COMMAND": '["sh", "-c"]', "WORKER_ARGS": json.dumps([script]), **GRACE}


def _text() -> str:
    """What a line says; with its newline it is `LINE_BYTES` long."""
    return "x" * (LINE_BYTES - 1)
