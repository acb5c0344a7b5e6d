"""A scale_down that says how many may remain, on any replica and beside others."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.spine import scaledown
from ottoscaler.stream.base import Registration
from tests.spine.stage import Stage, heeding, open_stage
from tests.spine.world import long_world


def remain(number: int, **fields: str) -> dict[str, str]:
    """The fields of such an event."""
    return {"type": "scale_down", "otto.remain": str(number), **fields}


async def leave_waiting(stage: Stage) -> str:
    """An event of four workers that is registered and offered, and that nobody takes."""
    pairs = (("type", "scale_up"), ("pod_count", "4"))
    event_id = await stage.stream.add_event(pairs, "waiting")
    await stage.stream.read(1, 1.0)
    await stage.stream.register([Registration(event_id, "work", pairs, "", 4, offer=True)])
    return event_id


async def test_as_many_remain_as_the_target_says(autojump_clock: MockClock) -> None:
    """Of five workers two remain; asked again, nothing is stopped, and the result says that it succeeded."""
    async with open_stage(long_world()) as stage, heeding(stage) as nursery:
        for task, number in (("a", 3), ("b", 2)):
            nursery.start_soon(stage.work(await stage.add(type="scale_up", pod_count=number, task_id=task)).run)
        await trio.sleep(5)
        for _ in range(2):
            await stage.work(await stage.add(**remain(2))).run()
        first, second = await stage.results()
        assert (first["status"], first["requested"], first["terminated"]) == ("succeeded", "3", "3")
        assert (second["status"], second["requested"], second["terminated"]) == ("succeeded", "0", "0")
        assert len(await stage.pods_left()) == 2


async def test_none_may_remain_of_one_task(autojump_clock: MockClock) -> None:
    """A target of 0 stops all of its task, those without a pod among them, and none of another."""
    async with open_stage(long_world()) as stage, heeding(stage) as nursery:
        stage.site.slots.limit = 4
        for task, number in (("b", 2), ("a", 3)):
            nursery.start_soon(stage.work(await stage.add(type="scale_up", pod_count=number, task_id=task)).run)
            await trio.sleep(5)
        await stage.work(await stage.add(**remain(0, task_id="a"))).run()
        assert [(result["terminated"], result["task_id"]) for result in await stage.results()][-1] == ("3", "a")
        assert {pod["metadata"]["labels"]["ottoscaler/task-id"] for pod in stage.world.pods.values()} == {"b"}


async def test_events_that_wait_are_not_counted(autojump_clock: MockClock) -> None:
    """Workers of an event that nobody has begun neither count nor are they stopped."""
    async with open_stage(long_world()) as stage, heeding(stage) as nursery:
        nursery.start_soon(stage.work(await stage.add(type="scale_up", pod_count=3)).run)
        await trio.sleep(5)
        waiting = await leave_waiting(stage)
        await stage.work(await stage.add(**remain(1))).run()
        assert [result["terminated"] for result in await stage.results()][-1] == "2"
        progress = await stage.stream.read_progress(waiting)
        assert progress is not None
        assert (progress.stops, progress.outcomes) == ({}, {})


async def test_two_targets_at_once_are_one_target(autojump_clock: MockClock) -> None:
    """Two replicas that are told at the same time to leave three workers leave three."""
    async with open_stage(long_world()) as owner:
        other = owner.beside("s2")
        async with other.open(), heeding(owner, other) as nursery:
            nursery.start_soon(owner.work(await owner.add(type="scale_up", pod_count=8)).run)
            await trio.sleep(5)
            async with trio.open_nursery() as downs:
                for stage in (owner, other):
                    downs.start_soon(stage.work(await stage.add(**remain(3))).run)
            assert sorted(result["terminated"] for result in await owner.results()) == ["0", "5"]
            assert len(await owner.pods_left()) == 3


async def test_a_target_that_is_taken_over_stops_the_same_workers(autojump_clock: MockClock) -> None:
    """Cut off after its choice and gone on with by the next owner, it stops no more than it had chosen."""
    async with open_stage(long_world(ignores_term=True)) as stage, heeding(stage) as nursery:
        nursery.start_soon(stage.work(await stage.add(type="scale_up", pod_count=4)).run)
        await trio.sleep(5)
        first = stage.work(await stage.add(**remain(2)))
        with trio.move_on_after(2):
            await first.run()
        await stage.stream.offer([first.claim], clean=[True])
        taken = await stage.take()
        await stage.work(taken).run()
        assert [result["terminated"] for result in await stage.results()][-1] == "2"
        assert len(await stage.pods_left()) == 2


async def test_a_target_that_is_taken_over_amid_its_choice_is_met(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next owner counts whom the first had marked already, and chooses as many as are wanted beside them."""
    monkeypatch.setattr(scaledown, "CHUNK", 1)
    async with open_stage(long_world()) as stage, heeding(stage) as nursery:
        nursery.start_soon(stage.work(await stage.add(type="scale_up", pod_count=4)).run)
        await trio.sleep(5)
        mark, marked = stage.stream.mark_victims, list[object]()

        async def mark_once(*words: Any, **options: Any) -> Any:
            if marked:
                await trio.sleep_forever()
            marked.append(await mark(*words, **options))
            return marked[0]

        stage.stream.mark_victims = mark_once  # type: ignore[method-assign]  # the first owner gets no further
        first = stage.work(await stage.add(**remain(1)))
        with trio.move_on_after(2):
            await first.run()
        assert len(marked) == 1
        stage.stream.mark_victims = mark  # type: ignore[method-assign]  # the next one does
        await stage.stream.offer([first.claim], clean=[True])
        taken = await stage.take()
        await stage.work(taken).run()
        assert [result["terminated"] for result in await stage.results()][-1] == "3"
        assert len(await stage.pods_left()) == 1
