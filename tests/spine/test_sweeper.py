"""Orphans and the bound over all replicas: found in time, never by guesswork, never exceeded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from secrets import token_hex

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.spine.worker_logs import NO_LOGS
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from tests.spine.scaler import Scaler
from tests.spine.stage import INSTANCE
from tests.spine.world import Plan, World


def orphan(era: str, event_id: str = "1-1", instance: str = INSTANCE) -> dict[str, object]:
    """A pod of an event that nobody knows."""
    labels = {"ottoscaler/instance": instance, "ottoscaler/era": era, "ottoscaler/event-id": event_id}
    labels |= {"ottoscaler/index": "1", "ottoscaler/attempt": "1"}
    return {"metadata": {"name": f"otto-agent-1-{era}-{instance}", "labels": labels}}


async def test_an_orphan_is_deleted_after_its_grace(autojump_clock: MockClock) -> None:
    """A pod of our era without an event goes after ORPHAN_GRACE_SECONDS; other eras and instances are never touched."""
    world, server = World(lambda labels: Plan(duration=9999)), MemoryServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        era = await MemoryStream(server, "x").open_group("0", "otto")
        for body in (orphan(era.id), orphan("gone"), orphan(era.id, instance="other")):
            world.create(body)
        nursery.start_soon(Scaler(world, server, "one").run)
        await trio.sleep(50)
        assert len(world.pods) == 3
        await trio.sleep(60)
        assert sorted(world.pods) == sorted(
            [f"otto-agent-1-gone-{INSTANCE}", f"otto-agent-1-{era.id}-other"],
        )
        nursery.cancel_scope.cancel()


async def test_a_pod_of_an_attempt_that_ended_is_undone(autojump_clock: MockClock) -> None:
    """A create later than any fence, for a worker that has its outcome, is deleted while its event goes on."""
    plans = {"1": Plan(duration=1), "2": Plan(duration=400)}
    world, server = World(lambda labels: plans[labels["ottoscaler/index"]]), MemoryServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        producer = MemoryStream(server, "producer")
        event_id = await producer.add_event([("type", "scale_up"), ("pod_count", "2")], token_hex(8))
        scaler = Scaler(world, server, "one", orphan_grace_seconds="15")
        nursery.start_soon(scaler.run)
        await trio.sleep(30)
        (left,) = world.pods
        body = {
            "metadata": {
                key: dict(value) if isinstance(value, dict) else value
                for key, value in world.pods[left]["metadata"].items()
            }
        }
        body["metadata"]["name"] = f"otto-agent-1-{event_id}"
        body["metadata"]["labels"]["ottoscaler/index"] = "1"
        plans["1"] = Plan(duration=400)
        world.create(body)
        await trio.sleep(60)
        assert list(world.pods) == [left]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("label", ["index", "attempt"])
async def test_a_worker_that_lost_a_label_is_none_too_many(label: str, autojump_clock: MockClock) -> None:
    """A pod whose labels do not say any more which worker it is, though its name does, is left to its worker."""
    world, server = World(lambda labels: Plan(duration=300)), MemoryServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        producer = MemoryStream(server, "producer")
        event_id = await producer.add_event([("type", "scale_up"), ("pod_count", "1")], token_hex(8))
        nursery.start_soon(Scaler(world, server, "one").run)
        await trio.sleep(10)
        world.change(f"otto-agent-1-{event_id}", lambda pod: pod["metadata"]["labels"].pop(f"ottoscaler/{label}"))
        await trio.sleep(400)
        ((_, result),) = await producer.read_entries("results", "0", 10, 0.0)
        assert (result["status"], world.pods) == ("succeeded", {})
        nursery.cancel_scope.cancel()


async def test_a_pod_that_its_event_still_needs_is_no_orphan(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The pod of a worker that ended under an owner that died stays until its log was taken, however long that may
    last, and goes then, while its event goes on.
    """

    class SlowLogs(type(NO_LOGS)):  # type: ignore[misc]  # nobody takes them for long
        async def wait_pod(self, name: str) -> None:
            await is_taken.wait()

    def install(scaler: Scaler) -> None:
        scaler.rings._site = replace(scaler.rings._site, logs=SlowLogs())

    is_taken = trio.Event()
    plans = {"1": Plan(duration=1), "2": Plan(duration=900)}
    world, server = World(lambda labels: plans[labels["ottoscaler/index"]]), MemoryServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        producer = MemoryStream(server, "producer")
        event_id = await producer.add_event([("type", "scale_up"), ("pod_count", "2")], token_hex(8))
        with trio.move_on_after(10):
            await Scaler(world, server, "one").run(install)
        nursery.start_soon(Scaler(world, server, "two").run, install)
        await trio.sleep(300)
        ended, running = (f"otto-agent-{index}-{event_id}" for index in (1, 2))
        assert set(world.pods) == {ended, running}
        is_taken.set()
        await trio.sleep(5)
        assert set(world.pods) == {running}
        assert "orphan deleted" not in caplog.text
        nursery.cancel_scope.cancel()


async def test_nothing_is_swept_while_redis_is_silent(autojump_clock: MockClock) -> None:
    """Unknown is not gone: while Redis does not answer no pod is judged."""
    world, server = World(lambda labels: Plan(duration=9999)), MemoryServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        era = await MemoryStream(server, "x").open_group("0", "otto")
        nursery.start_soon(Scaler(world, server, "one").run)
        await trio.sleep(5)
        server.weather = "refusing"
        world.create(orphan(era.id))
        await trio.sleep(300)
        assert len(world.pods) == 1
        nursery.cancel_scope.cancel()


async def test_a_suspicion_is_forgotten_once_the_event_is_known(autojump_clock: MockClock) -> None:
    """A pod whose event was known in between has its whole grace when that is unknown again."""
    world, server = World(lambda labels: Plan(duration=9999)), MemoryServer()
    scaler = Scaler(world, server, "one", orphan_grace_seconds="60")
    ask = scaler.stream.sweep

    async def sweep(event_ids: Sequence[str]) -> frozenset[str]:
        return frozenset(event_ids) if 40 <= trio.current_time() < 60 else await ask(event_ids)

    scaler.stream.sweep = sweep  # type: ignore[method-assign]  # what Redis knows, for a while
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        era = await MemoryStream(server, "x").open_group("0", "otto")
        world.create(orphan(era.id))
        nursery.start_soon(scaler.run)
        await trio.sleep(115)
        assert len(world.pods) == 1
        await trio.sleep(40)
        assert world.pods == {}
        nursery.cancel_scope.cancel()


async def test_all_replicas_together_stay_within_the_bound(autojump_clock: MockClock) -> None:
    """MAX_WORKERS_TOTAL holds over three replicas with much to do, and everything gets done."""
    world, server = World(lambda labels: Plan(duration=2.0)), MemoryServer()
    most = 0
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        for number in range(3):
            nursery.start_soon(Scaler(world, server, f"r{number}", max_workers_total="5", max_events="2").run)
        await trio.sleep(1)
        producer = MemoryStream(server, "producer")
        for _ in range(6):
            await producer.add_event([("type", "scale_up"), ("pod_count", "4")], token_hex(8))
        while len(await producer.read_entries("results", "0", 99, 0.0)) < 6:
            await trio.sleep(0.05)
            alive = [pod for pod in world.pods.values() if "terminated" not in str(pod["status"])]
            most = max(most, len(alive))
        assert most == 5
        assert len(world.runs) == 24
        nursery.cancel_scope.cancel()


async def test_an_event_whose_owner_is_no_session_is_put_right(autojump_clock: MockClock) -> None:
    """Progress that no session holds and nobody offers, as no script of ours leaves it, is offered again."""
    world, server = World(), MemoryServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        producer = MemoryStream(server, "producer")
        await producer.open_group("0", "otto")
        lost = MemoryStream(server, "lost")
        event_id = await producer.add_event([("type", "scale_up"), ("pod_count", "1")], token_hex(8))
        nursery.start_soon(Scaler(world, server, "one").run)
        await trio.sleep(0.1)
        server.held["one"].discard(event_id)
        server.progress[event_id]["owner"] = lost.session
        await trio.sleep(30)
        (result,) = await producer.read_entries("results", "0", 99, 0.0)
        assert result[1]["status"] == "succeeded"
        nursery.cancel_scope.cancel()


async def test_a_fence_is_no_orphan(autojump_clock: MockClock) -> None:
    """The pod that keeps a name from a late create outlives a shorter grace, though its event has closed."""
    world, server = World(), MemoryServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        nursery.start_soon(Scaler(world, server, "one", orphan_grace_seconds="1").run)
        await trio.sleep(5)
        world.late_creates.append(45.0)
        await MemoryStream(server, "producer").add_event([("type", "scale_up"), ("pod_count", "1")], token_hex(8))
        await trio.sleep(40)
        assert len(world.pods) == 1
        await trio.sleep(60)
        assert (len(world.runs), world.pods) == (1, {})
        nursery.cancel_scope.cancel()
