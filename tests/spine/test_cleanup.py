"""When the pods of ended workers may go: not before what they proved is written down, and safe there."""

import trio
from trio.testing import MockClock

from tests.spine.stage import open_stage
from tests.spine.world import Plan, World


async def test_no_collection_goes_before_all_outcomes_are_recorded(autojump_clock: MockClock) -> None:
    """A collection delete takes whatever has finished, so none is sent while a worker of the event has no outcome."""
    async with open_stage(World(lambda labels: Plan(duration=float(labels["ottoscaler/index"])))) as stage:
        progress = await stage.add(type="scale_up", pod_count=12)
        recorded = []

        def watch_deletes(verb: str, name: str) -> None:
            if verb == "deletecollection":
                hash_ = stage.stream._server.progress[progress.event_id]
                recorded.append(sum(field.startswith("o:") for field in hash_))

        stage.kube.fail = watch_deletes
        stage.site.slots.limit = 12
        await stage.work(progress).run()
        assert set(recorded) <= {12}
        assert await stage.pods_left() == []


async def test_no_pod_goes_before_its_outcome_is_durable(autojump_clock: MockClock) -> None:
    """While Redis could still forget the outcome in a crash, the pod that shows it stays."""
    async with open_stage() as stage:
        is_durable = trio.Event()
        stage.stream.wait_durable = is_durable.wait  # type: ignore[method-assign]  # the twin has nothing to wait for
        progress = await stage.add(type="scale_up", pod_count=2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.work(progress).run)
            await trio.sleep(60)
            assert len(stage.world.pods) == 2
            is_durable.set()
        assert await stage.pods_left() == []


async def test_no_collection_takes_a_fence_along(autojump_clock: MockClock) -> None:
    """The finished pod that keeps a name from a late create stays when the other pods of a large event go."""
    async with open_stage() as stage:
        stage.world.late_creates.append(40.0)
        await stage.work(await stage.add(type="scale_up", pod_count=12)).run()
        assert len(await stage.pods_left()) == 1
        await trio.sleep(50)
        assert len(stage.world.runs) == 12


async def test_exactly_the_pod_that_was_meant_is_deleted(autojump_clock: MockClock) -> None:
    """Another pod of the same name, or one that has changed since it was judged, is left alone."""
    async with open_stage(World(lambda labels: Plan(duration=60))) as stage:
        labels = {"ottoscaler/event-id": "1-1", "ottoscaler/index": "1", "ottoscaler/attempt": "1"}
        made = stage.world.create({"metadata": {"name": "p", "labels": labels}})["metadata"]
        await trio.sleep(1)
        assert not await stage.site.delete("1-1", "p", "uid of another")
        assert not await stage.site.delete("1-1", "p", made["uid"], int(made["resourceVersion"]))
        assert "deletionTimestamp" not in stage.world.pods["p"]["metadata"]
        assert await stage.site.delete("1-1", "p", made["uid"])
        assert "deletionTimestamp" in stage.world.pods["p"]["metadata"]


async def test_a_pod_without_its_final_phase_holds_up_no_delete(autojump_clock: MockClock) -> None:
    """A large event's pods go together 1.5 s after its end at the latest; one whose phase is late goes by itself."""
    async with open_stage(World(lambda labels: Plan(duration=5), phase_lag=1.1)) as stage:
        progress = await stage.add(type="scale_up", pod_count=12)
        stage.world.phase_lags["2"] = 100.0
        begun = trio.current_time()
        await stage.work(progress).run()
        assert trio.current_time() - begun < 5 + 1.5 + 0.5
        (late,) = stage.world.pods.values()
        assert "deletionTimestamp" in late["metadata"]
