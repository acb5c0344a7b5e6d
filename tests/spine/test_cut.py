"""Cut at every step: a scaler killed or drained anywhere leaves nothing undone and runs nothing twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from secrets import token_hex

import msgspec
import pytest
import trio
from trio.testing import MockClock

from ottoscaler.startup import StartupStopped
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from tests.spine.determinism import schedule_from
from tests.spine.scaler import Scaler
from tests.spine.world import Plan, World

EVENTS = (
    {"type": "scale_up", "pod_count": "2", "task_id": "a"},
    {"type": "explode"},
    {"type": "scale_up", "pod_count": "1", "task_id": "b"},
    {"type": "scale_down", "pod_count": "1", "task_id": "a"},
)


class CutAtStep(trio.abc.Instrument):
    """Calls `cut` right before the n-th step of any task."""

    def __init__(self, step: int, cut: Callable[[], object]) -> None:
        self.steps = 0
        self._step = step
        self._cut = cut

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count, and cut."""
        self.steps += 1
        if self.steps == self._step:
            self._cut()


def play(step: int, how: str) -> tuple[int, World, MemoryServer]:
    """Run a scaler over some events, cut it at a step, and let a second one finish; returns the steps of the first."""
    world = World(lambda labels: Plan(start_delay=0.2, duration=1.0))
    server = MemoryServer(started_at=1_760_000_000.0)
    schedule_from(1)
    steps = trio.run(_play, world, server, step, how, clock=MockClock(autojump_threshold=0))
    return steps, world, server


async def _play(world: World, server: MemoryServer, step: int, how: str) -> int:
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        producer = MemoryStream(server, "producer")
        for event in EVENTS:
            await producer.add_event(list(event.items()), token_hex(8))
        first = Scaler(world, server, "first", drain_seconds="1")
        steps = await _live(first, server, step, how)
        with trio.fail_after(400):
            await _live(Scaler(world, server, "second"), server, 0, "")
        await trio.sleep(100)
        nursery.cancel_scope.cancel(reason="judged")
    return steps


async def _live(scaler: Scaler, server: MemoryServer, step: int, how: str) -> int:
    """Until every event has ended, or until the cut."""
    with trio.CancelScope() as life:

        def cut() -> None:
            if how == "kill":
                life.cancel(reason="kill -9")
            elif hasattr(scaler, "drain"):
                scaler.drain.request("SIGTERM")

        instrument = CutAtStep(step, cut)
        trio.lowlevel.add_instrument(instrument)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_drain_when_done, scaler, server)
                with suppress_stop():
                    await scaler.run()
                nursery.cancel_scope.cancel(reason="it has ended")
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return instrument.steps


@contextmanager
def suppress_stop() -> Iterator[None]:
    """A signal that comes before the start is over is an end in order, too."""
    try:
        yield
    except* StartupStopped:
        pass


async def _drain_when_done(scaler: Scaler, server: MemoryServer) -> None:
    judge = MemoryStream(server, "judge")
    await trio.sleep(1)  # a scaler that has nothing to do is let start, too
    while await _ended(judge) < len(EVENTS) or await judge.live_events() or server.fences:  # noqa: ASYNC110 - virtual time
        await trio.sleep(0.5)
    scaler.drain.request("all events have ended")


async def _ended(judge: MemoryStream) -> int:
    return sum([len(await judge.read_entries(which, "0", 99, 0.0)) for which in ("results", "dlq")])


def judge(world: World, server: MemoryServer) -> None:
    """Every promise that can be seen from outside."""

    async def look() -> tuple[list[dict[str, str]], list[dict[str, str]]]:
        stream = MemoryStream(server, "judge")
        results = [fields for _, fields in await stream.read_entries("results", "0", 99, 0.0)]
        return results, [fields for _, fields in await stream.read_entries("dlq", "0", 99, 0.0)]

    results, dead = trio.run(look)
    assert Counter(result["type"] for result in results) == {"scale_up": 2, "scale_down": 1}
    assert [letter["cause"] for letter in dead] == ["UnknownType"]
    assert max(Counter(world.runs).values(), default=0) <= 1
    workers = [worker for result in results for worker in msgspec.json.decode(result["workers"])]
    assert {worker["outcome"] for worker in workers} <= {"succeeded", "terminated"}
    assert world.pods == {}


def test_uncut_it_works() -> None:
    """Four events: two scale_ups, one scale_down, one bad entry; each ends once, nothing is left."""
    steps, world, server = play(0, "")
    judge(world, server)
    assert steps > 100


@pytest.mark.parametrize("how", ["kill", "drain"])
def test_cut_at_every_step(how: str) -> None:
    """Killed or drained at any step, the next scaler finishes every event, and each worker runs exactly once."""
    for step in range(1, 5000):
        steps, world, server = play(step, how)
        try:
            judge(world, server)
        except BaseException as error:
            error.add_note(f"cut ({how}) at step {step}")
            raise
        if steps < step:
            return
    pytest.fail("the uncut run has more steps than were tried")
