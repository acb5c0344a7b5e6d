"""Finished pods that were kept as fences: when they are due they go, together and no faster than the throttle lets."""

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.stream.base import Closing, Fence
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from tests.spine.scaler import Scaler
from tests.spine.stage import INSTANCE, NAMESPACE
from tests.spine.test_taker import open_play, put_finished
from tests.spine.world import Plan, World, ambiguous

FENCES = 40
AT_ONCE = 4  # the scaler's throttle
LATENCY = 1.0


async def test_due_fences_are_deleted_side_by_side(autojump_clock: MockClock) -> None:
    """A slow API is asked for as many deletes at a time as the throttle allows, each once, and then Redis forgets."""
    world, server = World(), MemoryServer()
    names = [f"otto-agent-{index}-1-0" for index in range(FENCES)]
    producer = MemoryStream(server, "producer")
    era = await producer.open_group("0", NAMESPACE)
    await producer.add_event([("type", "nonsense")], "token")
    (entry,) = await producer.read(1, 1.0)
    fences = tuple(Fence(name, put_finished(world, name, INSTANCE, era.id), 1) for name in names)
    await producer.close(Closing(entry.id, "dlq", (), fences=fences))
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        scaler = Scaler(world, server, "only")
        scaler.kube._latency = LATENCY
        nursery.start_soon(scaler.run)
        while not world.writes:  # noqa: ASYNC110 - nobody says that a write was sent
            await trio.sleep(0.01)
        await trio.sleep(0.4 * LATENCY)
        assert len(world.writes) == AT_ONCE
        await trio.sleep(FENCES / AT_ONCE * LATENCY + 1)
        assert sorted(world.writes) == sorted(("delete", name) for name in names)
        assert await producer.list_fences() == []
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_no_pod_of_anybody_else_is_taken_for_a_fence(autojump_clock: MockClock) -> None:
    """Under the name of a fence a pod of another instance, of another era or of nobody is left alone; our own goes,
    also where its labels were taken away.
    """
    async with open_play() as scaler:
        await trio.sleep(1)
        world, server, era = scaler.kube._world, scaler.stream._server, scaler.rings._site.era
        for name, whose in (("stranger", ("other", era)), ("nobody", ("", "")), ("former", (INSTANCE, "another era"))):
            put_finished(world, name, *whose)
        world.strip_labels("nobody")
        uid = put_finished(world, "stripped", INSTANCE, era)
        world.strip_labels("stripped")
        put_finished(world, "ours", INSTANCE, era)
        for name in (*world.pods, "empty"):
            server.fences[name, uid if name == "stripped" else ""] = server.now()
        await trio.sleep(3)
        assert sorted(world.pods) == ["former", "nobody", "stranger"]
        assert sorted(world.writes) == [("delete", "ours"), ("delete", "stripped")]
        assert sorted(world.reads) == ["empty", "nobody", "stranger", "stripped"]
        assert not server.fences


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
async def test_a_fence_lasts_as_long_by_whatever_clock(autojump_clock: MockClock, skew: float) -> None:
    """An owner whose clock is an hour off keeps a finished pod for the fence's time, no shorter and no longer: the pod
    is let go by the clock of Redis.
    """
    async with open_play() as scaler:
        world, server = scaler.kube._world, scaler.stream._server
        world.plan = lambda labels: Plan()
        scaler.skew = skew
        scaler.kube.fail = lambda verb, name: ambiguous(verb) if verb == "created" else None
        producer = MemoryStream(server, "producer")
        await producer.add_event([("type", "scale_up"), ("pod_count", "1"), ("task_id", "a")], "token")
        await trio.sleep(50)
        assert [fields["status"] for _, fields in await producer.read_entries("results", "0", 9, 0.0)] == ["succeeded"]
        assert len(world.pods) == len(await producer.list_fences()) == 1
        await trio.sleep(15)
        assert (world.pods, await producer.list_fences()) == ({}, [])


async def test_a_former_owner_whose_clock_was_ahead_makes_no_fence_last_longer(autojump_clock: MockClock) -> None:
    """What it wrote down of a create without an answer is measured by the new owner's clock, and no longer than a fence
    of its own would last.
    """
    async with open_play() as scaler:
        world, server = scaler.kube._world, scaler.stream._server
        world.plan = lambda labels: Plan(duration=5)
        scaler.skew = 3600.0
        scaler.kube.fail = lambda verb, name: ambiguous(verb) if verb == "created" else None
        producer = MemoryStream(server, "producer")
        await producer.add_event([("type", "scale_up"), ("pod_count", "1"), ("task_id", "a")], "token")
        await trio.sleep(3)
        async with trio.open_nursery() as nursery:
            second = Scaler(world, server, "second")
            nursery.start_soon(second.run)
            await trio.sleep(1)
            scaler.drain.request("SIGTERM")
            await trio.sleep(200)
            assert (world.pods, await producer.list_fences()) == ({}, [])
            nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_clock_that_goes_back_makes_no_fence_last_longer(autojump_clock: MockClock) -> None:
    """Between the end of a worker and the close of its event the owner's clock is set back by an hour."""
    async with open_play() as scaler:
        world, server = scaler.kube._world, scaler.stream._server
        world.plan = lambda labels: Plan()
        scaler.kube.fail = lambda verb, name: ambiguous(verb) if verb == "created" else None
        wait_durable = scaler.stream.wait_durable

        async def wait_and_go_back() -> None:
            await wait_durable()
            scaler.skew = -3600.0

        scaler.stream.wait_durable = wait_and_go_back  # type: ignore[method-assign]  # before each close
        producer = MemoryStream(server, "producer")
        await producer.add_event([("type", "scale_up"), ("pod_count", "1"), ("task_id", "a")], "token")
        await trio.sleep(50)
        assert len(world.pods) == len(await producer.list_fences()) == 1
        await trio.sleep(15)
        assert (world.pods, await producer.list_fences()) == ({}, [])
