"""One scale_down: whom it stops, in which order, on whichever replica, and what its result says."""

import trio
from trio.testing import MockClock

from tests.spine.stage import heeding, open_stage
from tests.spine.world import Plan, World, long_world


async def test_running_workers_are_stopped_oldest_first(autojump_clock: MockClock) -> None:
    """Two of three running workers end as terminated; the result of the scale_down names them; the third runs on."""
    async with open_stage(long_world()) as stage, heeding(stage) as nursery:
        up = await stage.add(type="scale_up", pod_count=3, task_id="t")
        nursery.start_soon(stage.work(up).run)
        await trio.sleep(5)
        await stage.work(await stage.add(type="scale_down", pod_count=2, task_id="t")).run()
        (result,) = await stage.results()
        assert (result["type"], result["status"], result["terminated"]) == ("scale_down", "succeeded", "2")
        assert [worker["index"] for worker in result["workers"]] == [1, 2]
        assert {worker["cause"] for worker in result["workers"]} == {"Stopped"}
        assert await stage.pods_left() == [f"otto-agent-3-{up.event_id}"]


async def test_workers_not_yet_created_go_first(autojump_clock: MockClock) -> None:
    """Workers that wait for a slot are stopped before any pod is; none was ever made for them."""
    async with open_stage(long_world()) as stage, heeding(stage) as nursery:
        stage.site.slots.limit = 2
        up = await stage.add(type="scale_up", pod_count=5)
        nursery.start_soon(stage.work(up).run)
        await trio.sleep(5)
        await stage.work(await stage.add(type="scale_down", pod_count=3)).run()
        (result,) = await stage.results()
        assert [worker["index"] for worker in result["workers"]] == [3, 4, 5]
        assert len(stage.world.pods) == 2


async def test_an_event_stopped_before_its_first_slot_ends_at_once(autojump_clock: MockClock) -> None:
    """With all its workers stopped in the queue, an event waits for no slot of others to end."""
    async with open_stage(long_world()) as stage, heeding(stage) as nursery:
        stage.site.slots.limit = 2
        nursery.start_soon(stage.work(await stage.add(type="scale_up", pod_count=2, task_id="runs")).run)
        await trio.sleep(5)
        nursery.start_soon(stage.work(await stage.add(type="scale_up", pod_count=3, task_id="waits")).run)
        await trio.sleep(5)
        await stage.work(await stage.add(type="scale_down", pod_count=3, task_id="waits")).run()
        await trio.sleep(5)
        results = {(result["type"], result["task_id"]): result["status"] for result in await stage.results()}
        assert results == {("scale_down", "waits"): "succeeded", ("scale_up", "waits"): "terminated"}
        assert stage.site.slots.statistics() == (2, 2, 0)


async def test_only_the_named_task_is_touched(autojump_clock: MockClock) -> None:
    """Scoped by task_id, workers of other tasks run on, and asking for more than there are is partial."""
    async with open_stage(long_world()) as stage, heeding(stage) as nursery:
        for task in ("a", "b"):
            nursery.start_soon(stage.work(await stage.add(type="scale_up", pod_count=2, task_id=task)).run)
        await trio.sleep(5)
        await stage.work(await stage.add(type="scale_down", pod_count=5, task_id="a")).run()
        downs = [result for result in await stage.results() if result["type"] == "scale_down"]
        assert [(result["status"], result["terminated"]) for result in downs] == [("partial", "2")]
        assert len(await stage.pods_left()) == 2
        assert {pod["metadata"]["labels"]["ottoscaler/task-id"] for pod in stage.world.pods.values()} == {"b"}


async def test_nothing_to_stop_is_partial(autojump_clock: MockClock) -> None:
    """A scale_down without victims ends at once, with none stopped."""
    async with open_stage() as stage:
        await stage.work(await stage.add(type="scale_down", pod_count=1)).run()
        (result,) = await stage.results()
        assert (result["status"], result["terminated"], result["workers"]) == ("partial", "0", [])


async def test_the_stopped_event_says_terminated(autojump_clock: MockClock) -> None:
    """A scale_up whose workers were all stopped ends as terminated, none of them failed."""
    async with open_stage(long_world()) as stage, heeding(stage) as nursery:
        up = stage.work(await stage.add(type="scale_up", pod_count=2))
        nursery.start_soon(up.run)
        await trio.sleep(5)
        await stage.work(await stage.add(type="scale_down", pod_count=2)).run()
        await trio.sleep(5)
        results = {result["type"]: result for result in await stage.results()}
        assert (results["scale_up"]["status"], results["scale_up"]["failed"]) == ("terminated", "0")


async def test_one_replica_stops_what_another_owns(autojump_clock: MockClock) -> None:
    """The replica that handles the scale_down owns none of the victims: their owner gets notice and stops them."""
    async with open_stage(long_world()) as owner:
        other = owner.beside("s2")
        async with other.open(), heeding(owner, other) as nursery:
            nursery.start_soon(owner.work(await owner.add(type="scale_up", pod_count=2)).run)
            await trio.sleep(5)
            down = await other.add(type="scale_down", pod_count=1)
            before = trio.current_time()
            await other.work(down).run()
            assert trio.current_time() - before < 3
            (result,) = await other.results()
            assert (result["status"], result["terminated"]) == ("succeeded", "1")


async def test_a_redelivered_scale_down_stops_the_same_workers(autojump_clock: MockClock) -> None:
    """Cut off after its choice and taken over, it waits for the victims chosen before and chooses no more."""
    async with open_stage(long_world(ignores_term=True)) as stage, heeding(stage) as nursery:
        nursery.start_soon(stage.work(await stage.add(type="scale_up", pod_count=4)).run)
        await trio.sleep(5)
        down = await stage.add(type="scale_down", pod_count=2)
        first = stage.work(down)
        with trio.move_on_after(2):
            await first.run()
        await stage.stream.offer([first.claim], clean=[True])
        taken = await stage.take()
        await stage.work(taken).run()
        (result,) = await stage.results()
        assert result["terminated"] == "2"
        assert len(await stage.pods_left()) == 2


async def test_a_worker_that_had_succeeded_is_not_terminated(autojump_clock: MockClock) -> None:
    """A victim that ended well before its stop arrived succeeded, and the scale_down stopped one less."""
    async with open_stage(World(lambda labels: Plan(duration=5))) as stage, trio.open_nursery() as nursery:
        nursery.start_soon(stage.work(await stage.add(type="scale_up", pod_count=1)).run)
        await trio.sleep(4.5)
        down = stage.work(await stage.add(type="scale_down", pod_count=1))
        stage.roster.work_of = lambda event_id: None  # type: ignore[method-assign]  # the notice comes too late
        nursery.start_soon(down.run)
        await trio.sleep(3)
        down.notice()
        await trio.sleep(1)
        results = {result["type"]: result for result in await stage.results()}
        assert results["scale_up"]["status"] == "succeeded"
        assert (results["scale_down"]["status"], results["scale_down"]["terminated"]) == ("partial", "0")
        nursery.cancel_scope.cancel()


async def test_a_worker_that_is_ending_is_not_chosen(autojump_clock: MockClock) -> None:
    """One that has failed already, though nobody has recorded it yet, or is on its way out is not stopped again."""
    world = World(lambda labels: Plan(duration=1 if labels["ottoscaler/index"] == "1" else 600, exit_code=3), 8.0)
    async with open_stage(world) as stage, heeding(stage) as nursery:
        up = await stage.add(type="scale_up", pod_count=3)
        nursery.start_soon(stage.work(up).run)
        await trio.sleep(3)
        world.change(f"otto-agent-2-{up.event_id}", lambda pod: pod["metadata"].update(deletionTimestamp="now"))
        await trio.sleep(0.05)
        await stage.work(await stage.add(type="scale_down", pod_count=1)).run()
        (result,) = [result for result in await stage.results() if result["type"] == "scale_down"]
        assert [worker["index"] for worker in result["workers"]] == [3]
