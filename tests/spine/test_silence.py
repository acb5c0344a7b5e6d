"""Silence is no verdict: Redis away for longer than the lease, an event lost and found, a drain that must end."""

from secrets import token_hex

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.stream.base import Claim
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from tests.spine.scaler import Scaler
from tests.spine.world import Plan, World


async def add(server: MemoryServer) -> str:
    """Send an event with one worker."""
    return await MemoryStream(server, "producer").add_event([("type", "scale_up"), ("pod_count", "1")], token_hex(8))


async def statuses(server: MemoryServer) -> list[str]:
    """How the events ended that have."""
    entries = await MemoryStream(server, "judge").read_entries("results", "0", 99, 0.0)
    return [fields["status"] for _, fields in entries]


@pytest.mark.parametrize("seconds", [6.0, 25.0])
async def test_an_outage_takes_no_event_from_anybody(seconds: float, autojump_clock: MockClock) -> None:
    """Redis away for longer than the lease, three times: each event stays with its owner, each worker runs on."""
    world, server = World(lambda labels: Plan(duration=160)), MemoryServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        for name in ("one", "two"):
            nursery.start_soon(Scaler(world, server, name, max_events="2", orphan_grace_seconds="1").run)
        await trio.sleep(5)
        for _ in range(4):
            await add(server)
        await trio.sleep(5)
        assert {progress["owner"] for progress in server.progress.values()} == {"one", "two"}
        for _ in range(3):
            server.weather = "refusing"
            await trio.sleep(seconds)
            server.weather = "fine"
            await trio.sleep(15)
            assert [progress["epoch"] for progress in server.progress.values()] == ["1"] * 4
            assert [pod["metadata"].get("deletionTimestamp") for pod in world.pods.values()] == [None] * 4
        await trio.sleep(120)
        assert (await statuses(server), len(world.runs)) == (["succeeded"] * 4, 4)
        nursery.cancel_scope.cancel()


async def test_an_outage_while_workers_end_breaks_nothing(autojump_clock: MockClock) -> None:
    """What cannot be written waits for Redis; nobody's handling breaks over it."""
    world, server = World(lambda labels: Plan(duration=5)), MemoryServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        nursery.start_soon(Scaler(world, server, "one").run)
        await trio.sleep(5)
        event_id = await add(server)
        await trio.sleep(3)
        server.weather = "refusing"
        await trio.sleep(30)
        assert "failures" not in server.progress[event_id]
        server.weather = "fine"
        await trio.sleep(5)
        assert (await statuses(server), len(world.runs)) == (["succeeded"], 1)
        nursery.cancel_scope.cancel()


async def test_an_event_that_was_lost_and_comes_back_has_one_task(autojump_clock: MockClock) -> None:
    """Taken again before the former work on it noticed its loss, the event goes on as if it had come from elsewhere."""
    world, server = World(lambda labels: Plan(duration=20)), MemoryServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        nursery.start_soon(Scaler(world, server, "one").run)
        await trio.sleep(5)
        event_id = await add(server)
        await trio.sleep(5)
        await MemoryStream(server, "one").offer([Claim(event_id, "one", 1)], clean=[True])
        await trio.sleep(5)
        assert server.progress[event_id]["epoch"] == "2"
        await trio.sleep(60)
        assert (await statuses(server), len(world.runs)) == (["succeeded"], 1)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("signals", [1, 2])
async def test_a_drain_ends_at_its_deadline(signals: int, autojump_clock: MockClock) -> None:
    """Workers that run for hours are handed over: after DRAIN_SECONDS, or at once at a second signal."""
    world, server = World(lambda labels: Plan(duration=9999)), MemoryServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        scaler = Scaler(world, server, "one", drain_seconds="20")
        async with trio.open_nursery() as life:
            life.start_soon(scaler.run)
            await trio.sleep(5)
            event_id = await add(server)
            await trio.sleep(5)
            before = trio.current_time()
            scaler.drain.request("SIGTERM")
            if signals == 2:
                await trio.sleep(1)
                scaler.drain.request("SIGTERM")
        assert trio.current_time() - before <= (20.9 if signals == 1 else 1.9)
        assert server.progress[event_id]["owner"] == ""
        assert server.sessions.get("one", 0) == 0
        assert len(world.pods) == 1
        nursery.cancel_scope.cancel()
