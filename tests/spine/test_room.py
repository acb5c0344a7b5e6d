"""What a replica takes: what fits and a small reserve, never more, and scale-downs whatever is full; what it leaves."""

from __future__ import annotations

from secrets import token_hex

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.metrics import REGISTRY
from ottoscaler.spine import poller, roster
from ottoscaler.stream.base import Tending
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from tests.spine.scaler import Scaler
from tests.spine.world import Plan, World


async def add(server: MemoryServer, **fields: str) -> str:
    """Send an event."""
    return await MemoryStream(server, "producer").add_event(list(fields.items()), token_hex(8))


async def test_no_more_events_are_held_than_fit(autojump_clock: MockClock) -> None:
    """With MAX_EVENTS at 2, five scale_ups are worked on two at a time; those that wait are offered to everybody."""
    world, server = World(lambda labels: Plan(duration=10)), MemoryServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        nursery.start_soon(Scaler(world, server, "one", max_events="2").run)
        await trio.sleep(1)
        for _ in range(5):
            await add(server, type="scale_up", pod_count="1")
        await trio.sleep(5)
        assert (len(server.held["one"]), len(server.offered["work"]), len(world.pods)) == (2, 3, 2)
        nursery.start_soon(Scaler(world, server, "two", max_events="2").run)
        await trio.sleep(4)
        assert (len(server.held["two"]), len(server.offered["work"])) == (2, 1)
        await trio.sleep(60)
        assert (len(world.runs), len(server.progress)) == (5, 0)
        nursery.cancel_scope.cancel()


def slow_looks(scaler: Scaler, seconds: float) -> None:
    """Let the answer to each look at what is due be so long on its way."""
    tend = scaler.stream.tend

    async def tend_slowly(*rooms: int, **flags: bool) -> Tending:
        answer = await tend(*rooms, **flags)
        await trio.sleep(seconds)
        return answer

    scaler.stream.tend = tend_slowly  # type: ignore[assignment, method-assign]  # the one slow call


async def test_an_event_that_comes_during_a_look_begins_as_soon_as_it_is_answered(autojump_clock: MockClock) -> None:
    """The room that the answer may fill is not counted as gone: the event does not wait for the next look."""
    world, server = World(lambda labels: Plan(duration=10)), MemoryServer()
    scaler = Scaler(world, server, "one")
    slow_looks(scaler, 0.1)
    waits = []
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        nursery.start_soon(scaler.run)
        await trio.sleep(1)
        for number in range(20):
            begun = trio.current_time()
            await add(server, type="scale_up", pod_count="1")
            while len(world.pods) == number:  # noqa: ASYNC110 - the world tells nobody
                await trio.sleep(0.01)
            waits.append(trio.current_time() - begun)
            await trio.sleep(0.03)
        nursery.cancel_scope.cancel()
    assert max(waits) < 0.2
    assert max(waits) > 0.05  # some did come during a look


async def test_an_event_that_comes_during_a_look_does_not_take_the_room_of_its_answer(
    autojump_clock: MockClock,
) -> None:
    """With room for one, what a look brings and what is read meanwhile are not both held."""
    world, server = World(lambda labels: Plan(duration=0.5)), MemoryServer()
    scaler = Scaler(world, server, "one", max_events="1")
    slow_looks(scaler, 0.2)
    most = 0
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        nursery.start_soon(scaler.run)
        await trio.sleep(1)
        for _ in range(1000):
            if len(server.offered["work"]) < 3:
                await add(server, type="scale_up", pod_count="1")
            most = max(most, scaler.rings.roster.statistics().working)
            await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    assert len(server.results) > 10
    assert most == 1


async def test_a_scale_down_passes_waiting_scale_ups(autojump_clock: MockClock) -> None:
    """A scale_down that comes behind 2,000 scale_ups without room is worked on at once."""
    world, server = World(lambda labels: Plan(duration=600)), MemoryServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        nursery.start_soon(Scaler(world, server, "one", max_events="1").run)
        for _ in range(2000):
            await add(server, type="scale_up", pod_count="1", task_id="a")
        await add(server, type="scale_up", pod_count="1", task_id="b")
        down = await add(server, type="scale_down", pod_count="1", task_id="b")
        await trio.sleep(10)
        ending = await MemoryStream(server, "judge").read_ending(down)
        assert ending is not None
        assert (ending[1]["status"], ending[1]["terminated"]) == ("succeeded", "1")
        nursery.cancel_scope.cancel()


async def test_cancels_that_fill_their_room_do_not_keep_out_what_they_stop(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More cancels of a dead replica's scale_ups than there is room for commands: all of them end, and so do the pods,
    though the replica that is left has no room for another scale_up.
    """
    monkeypatch.setattr(roster, "CONTROL_ROOM", 4)
    world, server, dead = World(lambda labels: Plan(duration=100_000)), MemoryServer(), trio.CancelScope()

    async def live_and_die() -> None:
        with dead:
            await Scaler(world, server, "one", max_events="20").run()

    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        nursery.start_soon(live_and_die)
        await trio.sleep(1)
        ups = [await add(server, type="scale_up", pod_count="1") for _ in range(20)]
        await trio.sleep(10)
        dead.cancel(reason="kill -9")
        nursery.start_soon(Scaler(world, server, "two", max_events="2").run)
        await trio.sleep(40)
        assert len(server.held["two"]) == 2
        waiting = set(ups) - server.held["two"]
        for event_id in waiting:
            await add(server, type="cancel", event_id=event_id)
        await trio.sleep(60)
        assert (len(server.progress), len(server.results), len(world.pods)) == (2, 36, 2)
        nursery.cancel_scope.cancel(reason="all have ended")


async def test_workers_that_are_stopped_while_nobody_holds_them_are_counted(autojump_clock: MockClock) -> None:
    """Each worker ends once in the metric, also where a scale_down ended it before anybody had room for its event."""

    def stopped() -> float:
        labels = {"outcome": "terminated", "cause": "Stopped"}
        return REGISTRY.get_sample_value("ottoscaler_workers_total", labels) or 0.0

    world, server, before = World(lambda labels: Plan(duration=5)), MemoryServer(), stopped()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        nursery.start_soon(Scaler(world, server, "one", max_events="1").run)
        await add(server, type="scale_up", pod_count="1", task_id="a")
        await add(server, type="scale_up", pod_count="5", task_id="b")
        await trio.sleep(2)
        await add(server, type="scale_down", pod_count="3", task_id="b")
        await trio.sleep(60)
        nursery.cancel_scope.cancel(reason="all have ended")
    assert len(server.results) == 3
    assert stopped() - before == 3


async def test_the_reserve_is_bounded(autojump_clock: MockClock) -> None:
    """Beyond room and reserve nothing is read, no scale_down either: the rest stays in the stream, for who has room."""
    world, server = World(lambda labels: Plan(duration=600)), MemoryServer()
    reserve, poller.RESERVE = poller.RESERVE, 20
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(world.run)
            for _ in range(60):
                await add(server, type="scale_up", pod_count="1")
            down = await add(server, type="scale_down", pod_count="1")
            nursery.start_soon(Scaler(world, server, "one", max_events="3").run)
            await trio.sleep(10)
            assert down not in server.progress
            assert (len(server.held["one"]), len(server.offered["work"])) == (3, 20)
            nursery.cancel_scope.cancel()
    finally:
        poller.RESERVE = reserve


async def test_what_waits_for_a_slot_is_offered_as_a_drain_begins(autojump_clock: MockClock) -> None:
    """An event of which no worker was begun is everybody's at once; what runs is kept until the deadline."""
    world, server = World(lambda labels: Plan(duration=600)), MemoryServer()
    scaler = Scaler(world, server, "one", max_workers="1", drain_seconds="60")
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        nursery.start_soon(scaler.run)
        await trio.sleep(1)
        for _ in range(2):
            await add(server, type="scale_up", pod_count="1")
        await trio.sleep(5)
        (pod,) = world.pods
        (running,) = [event_id for event_id in server.held["one"] if event_id in pod]
        (waiting,) = server.held["one"] - {running}
        scaler.drain.request("SIGTERM")
        await trio.sleep(0.5)
        assert (server.held["one"], list(server.offered["work"])) == ({running}, [waiting])
        nursery.cancel_scope.cancel()
