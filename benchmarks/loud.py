"""One pod that writes 100,000 lines a second beside quiet ones: do all lines come, and when do those of the quiet ones?

First the quiet pods are alone, each writing a line every `QUIET_SECONDS`; then the loud one writes for some seconds;
then programs that have nothing to do with it use the cores as much as the loud one made our programs use them. A line's
delay is from the kubelet's stamp to its arrival at the handler. A part of it is the stand-in cluster's own, which takes
the loud one's lines in one thread, too: so the time from when a line had left the cluster is told by itself.

The loud one's log file is not rotated: a real kubelet looks at sizes every 10 s, and the burst is over before. What
following and spooling take by themselves is measured without any other program.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass

import trio

from benchmarks.arena import ROOT, Arena, open_arena
from benchmarks.counting_handler import TIMED
from benchmarks.figures import Figure, Result, Show, percentile
from benchmarks.forwarding import Handler, open_counting_handler
from benchmarks.logs import NEVER_ROTATED
from benchmarks.meter import Usage, peak_memory_mib
from ottoscaler.cli.programs import open_program
from ottoscaler.fleet import PodRecord
from ottoscaler.logs.backlog import Backlog, Room
from ottoscaler.logs.following import Following
from ottoscaler.logs.mark import Entry, Mark

BUSY = (sys.executable, "-m", "benchmarks.busy")
MB = 2**20 / 1e6
LINE_BYTES = 100
QUIET_SECONDS = 0.5
BURSTS = 10
"""A second's lines are written in so many parts, with a pause of half that time after each."""
LIMIT_SECONDS = 900.0
SETTINGS = {"LOG_GRACE_SECONDS": "3600"}


@dataclass(frozen=True, slots=True)
class Parameters:
    """Quiet pods and how long they are alone; lines that the loud one writes, and how many in a second."""

    quiet_pods: int = 20
    alone_seconds: int = 20
    loud_lines: int = 600_000
    loud_rate: int = 100_000
    read_lines: int = 300_000


FULL = Parameters()
QUICK = Parameters(quiet_pods=5, alone_seconds=5, loud_lines=50_000, read_lines=50_000)


@dataclass(frozen=True, slots=True)
class _Delays:
    """Seconds that quiet lines took, in all and since they had left the cluster."""

    whole: Sequence[float]
    from_cluster: Sequence[float]

    def figures(self, when: str) -> list[Figure]:
        """p50 and p99 of both."""
        return [
            Figure(f"quiet pods {when}: {what}, p{percent}", percentile(delays, percent) * 1000, "ms")
            for what, delays in (("a line's delay", self.whole), ("from the cluster on", self.from_cluster))
            for percent in (50, 99)
        ]


class _Watch:
    """What arrives from now on, until it is looked at."""

    def __init__(self, arena: Arena, handler: Handler) -> None:
        self._arena = arena
        self._handler = handler
        self._seen = len(handler.arrivals())

    async def stop(self) -> _Delays:
        """The delays since the beginning; waits a moment, for the last are noted late."""
        arrivals = self._handler.arrivals()[self._seen :]
        await trio.sleep(0.5)
        self._arena.records.read()
        sent = self._arena.records.sent
        since = [arrival.at - sent[arrival.stamp] for arrival in arrivals if arrival.stamp in sent]
        return _Delays([arrival.delay for arrival in arrivals], since)


async def run(show: Show, parameters: Parameters) -> Result:
    """Alone, beside the loud one, beside programs that are as busy; then reading by itself."""
    async with (
        open_arena({}, max_log_bytes=NEVER_ROTATED, settings=SETTINGS | _script(parameters)) as arena,
        open_counting_handler(arena) as handler,
        arena.open_serve(OTTO_HANDLER_HOST=handler.address) as serve,
    ):
        await _begin_quiet(show, arena, handler, parameters)
        watch = _Watch(arena, handler)
        await trio.sleep(parameters.alone_seconds)
        alone = await watch.stop()
        meter, before, begun = arena.meter(serve, handler=handler.program), handler.lines(), time.monotonic()
        show(f"one pod writes {parameters.loud_lines} lines")
        watch = _Watch(arena, handler)
        await arena.send(1, "loud")
        await arena.wait_results(1, LIMIT_SECONDS)
        seconds, usage = time.monotonic() - begun, meter.stop()
        beside = await watch.stop()
        came = handler.lines() - before
        memory = peak_memory_mib(serve.process.pid) * MB
        show("other programs are as busy")
        async with _as_busy(arena, usage):
            watch = _Watch(arena, handler)
            await trio.sleep(seconds)
            busy = await watch.stop()
    figures = [
        Figure("lines of the loud pod that did not arrive", parameters.loud_lines - came, "", 0),
        Figure("lines a second, from sending the event to its result", came / seconds, "lines/s", more_is_better=True),
        *alone.figures("alone"),
        *beside.figures("beside a loud one"),
        *busy.figures("beside others as busy"),
        Figure("CPU of the scaler for 1,000 lines", usage.cpu["serve"] * 1e6 / parameters.loud_lines, "ms"),
        Figure("peak memory", memory, "MB"),
        Figure("reading into the spool by itself", await _read(parameters.read_lines), "lines/s", 100_000, True),
    ]
    return Result(figures, asdict(parameters), [usage.words()])


@asynccontextmanager
async def _as_busy(arena: Arena, usage: Usage) -> AsyncIterator[None]:
    """For the time of the block, a program for each of ours that uses as much of a core."""
    async with AsyncExitStack() as stack:
        for name in ("serve", "cluster", "handler"):
            command = [*BUSY, f"{min(1.0, usage.share(name)):.3f}"]
            environ = {**os.environ, "PYTHONPATH": str(ROOT)}
            program = open_program(arena.nursery, f"busy as {name}", command, ready="ready", environ=environ)
            await stack.enter_async_context(program)
        yield


async def _begin_quiet(show: Show, arena: Arena, handler: Handler, parameters: Parameters) -> None:
    await arena.send(parameters.quiet_pods, "quiet")
    with trio.fail_after(LIMIT_SECONDS):
        while len(handler.arrivals()) < parameters.quiet_pods * 3:  # noqa: ASYNC110 - files tell nobody
            await trio.sleep(0.2)
    await trio.sleep(2)
    show(f"{parameters.quiet_pods} quiet pods are alone")


def _script(parameters: Parameters) -> dict[str, str]:
    """Workers of the task `loud` write, the others are quiet for as long as it may take."""
    part = parameters.loud_rate // BURSTS
    burst = f"yes {'x' * (LINE_BYTES - 1)} | head -n {part}; sleep {0.5 / BURSTS}"
    loud = f"i=0; while [ $i -lt {parameters.loud_lines // part} ]; do {burst}; i=$((i+1)); done"
    quiet = f"while true; do echo {TIMED.decode()}; sleep {QUIET_SECONDS}; done"
    script = f'if [ "$OTTO_TASK_ID" = loud ]; then {loud}; else {quiet}; fi'
    return {"WORKER_COMMAND": '["sh", "-c"]', "WORKER_ARGS": json.dumps([script])}


# -- reading by itself


class _Running:
    """A pod that never ends."""

    record = PodRecord(name="worker", uid="u", started_at=0.0)

    async def wait(self, is_enough: Callable[[PodRecord | None], bool]) -> None:
        """It runs, and nothing else will ever be."""
        if not is_enough(self.record):
            await trio.sleep_forever()


async def _read(count: int) -> float:
    """Lines a second from the bytes of the kubelet into the spool, with nobody who sends."""
    line = b"2026-11-20T20:41:21.%09dZ " + b"x" * (LINE_BYTES - 1) + b"\n"
    size = (1 << 16) // LINE_BYTES
    pieces = [b"".join(line % (at + number) for number in range(size)) for at in range(0, count, size)]

    async def read(*, follow: bool, since: str = "", limit_bytes: int | None = None) -> AsyncGenerator[bytes, None]:
        for piece in pieces if limit_bytes is None else [pieces[0][:limit_bytes]]:
            await trio.lowlevel.checkpoint()
            yield piece

    backlog = Backlog(Room(spool_bytes=1 << 40))

    async def deliver(entries: Sequence[Entry]) -> None:
        await backlog.put(entries)

    following = Following("worker", read, _Running(), Mark(), deliver)  # type: ignore[arg-type]  # as much as is asked of it
    begun = time.perf_counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(following.run)
        while following.position.line < len(pieces) * size:  # noqa: ASYNC110 - there is nothing that says so
            await trio.sleep(0.005)
        seconds = time.perf_counter() - begun
        nursery.cancel_scope.cancel(reason="all is read")
    await backlog.close()
    return len(pieces) * size / seconds
