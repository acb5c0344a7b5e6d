"""A worker whose labels were stripped is followed by its name, and judged as any other."""

import pytest
import trio
from trio.testing import MockClock

from tests.spine.stage import heeding, open_stage
from tests.spine.world import Plan, World, long_world


async def test_one_that_cannot_start_fails_in_time(autojump_clock: MockClock) -> None:
    """A pod that waits for an image that is not there fails after its grace, labels or not, and is deleted."""
    async with open_stage(World(lambda labels: Plan(stuck="ErrImagePull", reason="not found"))) as stage:
        progress = await stage.add(type="scale_up", pod_count=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.work(progress).run)
            await trio.sleep(5)
            (name,) = stage.world.pods
            stage.world.strip_labels(name)
            await trio.sleep(40)
            (result,) = await stage.results()
        assert result["workers"][0]["cause"] == "ImageNotFound"
        assert await stage.pods_left() == []


async def test_an_end_without_a_final_phase_is_waited_for_as_always(autojump_clock: MockClock) -> None:
    """A kill whose explanation never comes is recorded after 10 s."""
    async with open_stage(World(lambda labels: Plan(duration=10, exit_code=137), phase_lag=1000.0)) as stage:
        progress = await stage.add(type="scale_up", pod_count=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.work(progress).run)
            await trio.sleep(5)
            (name,) = stage.world.pods
            stage.world.strip_labels(name)
            await trio.sleep(20)
            (result,) = await stage.results()
            nursery.cancel_scope.cancel(reason="seen enough")
        assert result["workers"][0]["cause"] == "Killed"


async def test_a_worker_that_the_watch_does_not_show_can_be_stopped(autojump_clock: MockClock) -> None:
    """Accepted and not seen, because its labels are gone or because the watch is behind, it runs all the same: a
    scale_down stops it when those that are seen are not enough.
    """
    async with open_stage(long_world()) as stage, heeding(stage) as nursery:
        up = await stage.add(type="scale_up", pod_count=2)
        nursery.start_soon(stage.work(up).run)
        await trio.sleep(5)
        stage.world.strip_labels(f"otto-agent-1-{up.event_id}")
        await trio.sleep(1)
        for stopped in (2, 1):
            await stage.work(await stage.add(type="scale_down", pod_count=1)).run()
            down = (await stage.results())[-1]
            assert (down["status"], [worker["index"] for worker in down["workers"]]) == ("succeeded", [stopped])
            assert {worker["cause"] for worker in down["workers"]} == {"Stopped"}
        assert await stage.pods_left() == []


@pytest.mark.parametrize("label", ["index", "attempt"])
async def test_a_worker_that_lost_one_label_can_be_stopped(label: str, autojump_clock: MockClock) -> None:
    """A scale_down stops it as the worker that it is: it waits for no worker that its event does not have."""
    async with open_stage(long_world()) as stage, heeding(stage) as nursery:
        up = await stage.add(type="scale_up", pod_count=2)
        nursery.start_soon(stage.work(up).run)
        await trio.sleep(5)
        stage.world.change(
            f"otto-agent-1-{up.event_id}", lambda pod: pod["metadata"]["labels"].pop(f"ottoscaler/{label}")
        )
        await trio.sleep(1)
        with trio.fail_after(60):
            await stage.work(await stage.add(type="scale_down", pod_count=2)).run()
        down = next(result for result in await stage.results() if result["type"] == "scale_down")
        assert (down["status"], [worker["index"] for worker in down["workers"]]) == ("succeeded", [1, 2])
        assert await stage.pods_left() == []
