"""ScaleDown: a target, which workers were stopped for it, and what it means to ask again."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.calls.house import open_house
from tests.spine.world import Plan, World, long_world


async def test_it_answers_when_what_is_more_has_ended(autojump_clock: MockClock) -> None:
    """Of five workers one remains; the answer names the four that were stopped, which are gone."""
    async with open_house(long_world()) as house:
        one = await house.open()
        up = await one.up(5, task_id="t")
        answer = await one.down(1, task_id="t")
        assert (answer.status, answer.processed_count) == ("success", 4)
        assert set(answer.worker_pod_names) < set(up.worker_pod_names)
        await trio.sleep(5)
        assert set(house.world.pods) == set(up.worker_pod_names) - set(answer.worker_pod_names)
        assert answer.completed_at


async def test_zero_stops_all_of_a_task_only(autojump_clock: MockClock) -> None:
    """A target of 0 is legal, and is about its task; without a task it is about all."""
    async with open_house(long_world()) as house:
        one, two = await house.open("one"), await house.open("two")
        await one.up(2, task_id="a")
        await two.up(3, task_id="b")
        assert (await two.down(0, task_id="a")).processed_count == 2
        await trio.sleep(5)
        assert {pod["metadata"]["labels"]["ottoscaler/task-id"] for pod in house.world.pods.values()} == {"b"}
        assert (await one.down(0)).processed_count == 3
        await trio.sleep(5)
        assert house.world.pods == {}


async def test_a_target_that_is_met_stops_none(autojump_clock: MockClock) -> None:
    """It succeeds all the same."""
    async with open_house(long_world()) as house:
        one = await house.open()
        await one.up(2)
        answer = await one.down(7)
        assert (answer.status, answer.processed_count, answer.worker_pod_names) == ("success", 0, ())


async def test_the_same_request_stops_no_more(autojump_clock: MockClock) -> None:
    """Asked again after new workers came, it stops none of them and names those of the first time."""
    async with open_house(long_world()) as house:
        one, two = await house.open("one"), await house.open("two")
        await one.up(3)
        first = await one.down(1, request_id="r")
        await one.up(3)
        again = await two.down(1, request_id="r")
        assert (first.status, again.status) == ("success", "already_processed")
        assert (again.worker_pod_names, again.processed_count) == (first.worker_pod_names, 2)
        await trio.sleep(5)
        assert len(house.world.pods) == 4
        house.server.results.trim(0)
        assert await two.down(1, request_id="r") == again


@pytest.mark.parametrize("how", ["failed", "evicted"])
async def test_none_remains_that_would_be_run_again(autojump_clock: MockClock, how: str) -> None:
    """A worker that has just failed, which nobody has recorded yet, or that the platform is ending, is stopped like
    any: no further attempt of it begins when the call was told that none remains.
    """
    plan = Plan(duration=5, exit_code=1) if how == "failed" else Plan(duration=600, ignores_term=True)
    world = World(lambda labels: plan if labels["ottoscaler/attempt"] == "1" else Plan(duration=600))
    async with open_house(world) as house:
        one = await house.open(worker_max_attempts="2", platform_retry_started="true")
        names = (await one.up(1)).worker_pod_names
        await trio.sleep(5.3)
        if how == "evicted":
            house.world.evict(names[0])
            await trio.sleep(1)
        answer = await one.down(0)
        assert (answer.status, answer.worker_pod_names) == ("success", names)
        await trio.sleep(100)
        assert not house.world.pods
        assert house.workers_run == 1


async def test_a_worker_that_has_failed_for_good_counts_as_failed(autojump_clock: MockClock) -> None:
    """Though its pod does not say so yet: it was not stopped, and its cause is told."""
    world = World(lambda labels: Plan(duration=5 if labels["ottoscaler/index"] == "1" else 600, exit_code=3))
    async with open_house(world) as house:
        one = await house.open()
        names = (await one.up(2)).worker_pod_names
        await trio.sleep(5.3)
        answer = await one.down(0)
        assert answer.worker_pod_names == names[1:]
        await trio.sleep(30)
        failed, stopped = (await one.status()).workers
        assert (failed.status, stopped.status) == ("failed", "terminated")
        assert failed.error_message.startswith("ExitCode: ")
