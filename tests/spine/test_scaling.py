"""One scale_up from its event to its result: what the API sees, what is written, in which order."""

from collections.abc import Mapping

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.errors import Unavailable
from ottoscaler.outcomes import WorkerOutcome
from ottoscaler.spine.handler import Work
from ottoscaler.spine.ledger import NotOurs
from ottoscaler.stream.base import Outcome
from tests.spine.stage import open_stage
from tests.spine.world import Plan, World, ambiguous, long_world, lost


async def test_three_workers_succeed(autojump_clock: MockClock) -> None:
    """Three pods are created, run to their end and are deleted; one result says so, and nothing else is left."""
    async with open_stage() as stage:
        await stage.work(await stage.add(type="scale_up", pod_count=3, task_id="t")).run()
        (result,) = await stage.results()
        assert (result["status"], result["succeeded"], result["failed"]) == ("succeeded", "3", "0")
        assert [worker["index"] for worker in result["workers"]] == [1, 2, 3]
        assert sorted(index for _, index, _ in stage.world.runs) == [1, 2, 3]
        assert await stage.pods_left() == []
        assert await stage.stream.live_events() == []


async def test_an_outcome_is_recorded_before_its_pod_is_deleted(autojump_clock: MockClock) -> None:
    """At the moment of each delete, the progress holds the outcome of that worker."""
    async with open_stage() as stage:
        progress = await stage.add(type="scale_up", pod_count=4)
        recorded_at_delete = []

        def watch_deletes(verb: str, name: str) -> None:
            if verb == "delete":
                hash_ = stage.stream._server.progress[progress.event_id]
                recorded_at_delete.append(f"o:{name.split('-')[2]}" in hash_)

        stage.kube.fail = watch_deletes
        await stage.work(progress).run()
        assert recorded_at_delete == [True] * 4


@pytest.mark.parametrize(("codes", "status"), [([0, 0], "succeeded"), ([1, 1], "failed"), ([0, 3], "partial")])
async def test_the_status_sums_up_the_workers(codes: list[int], status: str, autojump_clock: MockClock) -> None:
    """All succeeded, none succeeded, or some of each."""
    world = World(lambda labels: Plan(exit_code=codes[int(labels["ottoscaler/index"]) - 1]))
    async with open_stage(world) as stage:
        await stage.work(await stage.add(type="scale_up", pod_count=len(codes))).run()
        (result,) = await stage.results()
        assert result["status"] == status
        failed = [worker for worker in result["workers"] if worker["outcome"] == "failed"]
        assert [(worker["cause"], worker["exit_code"]) for worker in failed] == [
            ("ExitCode", code) for code in codes if code
        ]


async def test_a_success_is_read_before_the_final_phase(autojump_clock: MockClock) -> None:
    """Exit code 0 is certain: the result does not wait for the phase, which comes a second later."""
    async with open_stage(World(phase_lag=50.0)) as stage:
        progress = await stage.add(type="scale_up", pod_count=1)
        with trio.fail_after(5):
            await stage.work(progress).run()


async def test_a_worker_that_waits_for_its_end_is_one_task(autojump_clock: MockClock) -> None:
    """A replica may follow 10,000 workers, and a drain ends all their tasks within its second: there are no others."""
    async with open_stage(World(lambda labels: Plan(duration=1e6))) as stage, trio.open_nursery() as nursery:
        before = trio.lowlevel.current_statistics().tasks_living
        nursery.start_soon(stage.work(await stage.add(type="scale_up", pod_count=100)).run)
        await trio.sleep(10)
        lives_of_pods = 100
        of_the_event = trio.lowlevel.current_statistics().tasks_living - before - lives_of_pods
        assert 100 < of_the_event < 110
        nursery.cancel_scope.cancel(reason="seen enough")


async def test_a_plain_137_waits_for_its_explanation(autojump_clock: MockClock) -> None:
    """A kill may turn out to be an eviction: the verdict comes with the final phase, at most 10 s later."""

    async with open_stage(World(lambda labels: Plan(exit_code=137), phase_lag=2.0)) as stage:
        progress = await stage.add(type="scale_up", pod_count=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.work(progress).run)
            await trio.sleep(2.0)
            (name,) = stage.world.pods
            stage.world.change(name, lambda pod: pod["status"].update(reason="Evicted", message="low on memory"))
        (result,) = await stage.results()
        assert result["workers"][0]["cause"] == "Evicted"


async def test_a_lost_answer_repeats_the_create_and_adopts(autojump_clock: MockClock) -> None:
    """A create whose answer got lost is sent again; the 409 means adopt, the worker runs once, its pod stays as a
    fence.
    """
    async with open_stage() as stage:
        failures = iter([ambiguous("create")])
        stage.kube.fail = lambda verb, name: next(failures, None) if verb == "created" else None
        await stage.work(await stage.add(type="scale_up", pod_count=1)).run()
        (result,) = await stage.results()
        assert result["status"] == "succeeded"
        assert "fence_until" not in result["workers"][0]
        assert len(stage.world.runs) == 1
        assert len(stage.world.pods) == 1
        await trio.sleep(61)
        (fence,) = (await stage.stream.tend(0, 0, expire=False, audit=False)).fences
        assert fence.name in stage.world.pods


async def test_a_pod_that_was_seen_and_is_gone_is_not_created_again(autojump_clock: MockClock) -> None:
    """Its create was never answered and the API takes no other: the worker ran, as the watch showed, and somebody
    deleted it. It runs no second time under the same name.
    """
    async with open_stage(long_world()) as stage:
        failures = iter([ambiguous("create")])

        def fail(verb: str, name: str) -> Unavailable | None:
            if verb == "created":
                return next(failures, None)
            return lost(verb) if verb == "create" and stage.world.writes[1:] and trio.current_time() < 8 else None

        stage.kube.fail = fail
        up = await stage.add(type="scale_up", pod_count=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.work(up).run)
            await trio.sleep(4)
            stage.world.remove(f"otto-agent-1-{up.event_id}")
        assert stage.world.runs == [(up.event_id, 1, 1)]
        (result,) = await stage.results()
        assert (result["workers"][0]["cause"], result["started_at"] != "") == ("DeletedByOther", True)


async def test_an_api_that_is_away_is_waited_for(autojump_clock: MockClock) -> None:
    """Refused connections delay the work and change nothing else."""
    async with open_stage() as stage:
        until = trio.current_time() + 30
        stage.kube.fail = lambda verb, name: lost(verb) if trio.current_time() < until else None
        await stage.work(await stage.add(type="scale_up", pod_count=2)).run()
        (result,) = await stage.results()
        assert result["status"] == "succeeded"
        assert len(stage.world.runs) == 2


async def test_an_api_that_stays_away_fails_the_worker(autojump_clock: MockClock) -> None:
    """After CREATE_TIMEOUT_SECONDS the worker fails, and the result names what stood in the way."""
    async with open_stage(create_timeout=20.0) as stage:
        stage.kube.fail = lambda verb, name: lost(verb) if verb == "create" else None
        await stage.work(await stage.add(type="scale_up", pod_count=1)).run()
        (result,) = await stage.results()
        assert result["workers"][0]["cause"] == "ApiUnavailable"
        assert "connection refused" in result["workers"][0]["reason"]


async def test_a_name_that_is_taken_fails_and_says_by_whom(autojump_clock: MockClock) -> None:
    """A pod of another instance or era is never adopted."""
    async with open_stage() as stage:
        progress = await stage.add(type="scale_up", pod_count=2)
        for index, labels in enumerate(({"ottoscaler/instance": "other"}, {}), start=1):
            stage.world.create(
                {"metadata": {"name": f"otto-agent-{index}-{progress.event_id}", "labels": _labels(labels)}}
            )
        await stage.work(progress).run()
        (result,) = await stage.results()
        assert [worker["cause"] for worker in result["workers"]] == ["NameTaken", "NameTaken"]
        assert "belongs to the Ottoscaler instance other" in result["workers"][0]["reason"]
        assert "is managed by somebody else" in result["workers"][1]["reason"]
        assert len(stage.world.pods) == 2


def _labels(labels: Mapping[str, str]) -> dict[str, str]:
    return {"ottoscaler/event-id": "0-0", "ottoscaler/index": "1", "ottoscaler/attempt": "1", **labels}


async def test_a_pod_that_somebody_deleted_is_not_made_again(autojump_clock: MockClock) -> None:
    """Deleted by hand, the worker fails as DeletedByOther after one look by name."""
    async with open_stage(World(lambda labels: Plan(duration=60))) as stage:
        progress = await stage.add(type="scale_up", pod_count=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.work(progress).run)
            await trio.sleep(5)
            (name,) = stage.world.pods
            stage.world.remove(name)
        (result,) = await stage.results()
        assert result["workers"][0]["cause"] == "DeletedByOther"
        assert (stage.world.reads, len(stage.world.runs)) == ([name], 1)


async def test_a_stripped_label_is_no_deletion(autojump_clock: MockClock) -> None:
    """A pod that left the watch's selector runs on, is followed by name to its end, and is deleted."""
    async with open_stage(World(lambda labels: Plan(duration=20))) as stage:
        progress = await stage.add(type="scale_up", pod_count=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.work(progress).run)
            await trio.sleep(5)
            (name,) = stage.world.pods
            stage.world.strip_labels(name)
        (result,) = await stage.results()
        assert result["status"] == "succeeded"
        assert len(stage.world.runs) == 1
        assert await stage.pods_left() == []


async def test_an_image_that_cannot_be_pulled_fails_in_time(autojump_clock: MockClock) -> None:
    """The worker fails after its grace with the cause that ErrImagePull showed, and its pod is deleted."""
    message = 'failed to pull "x.invalid/a": dial tcp: lookup x.invalid: no such host'
    async with open_stage(World(lambda labels: Plan(stuck="ErrImagePull", reason=message))) as stage:
        progress = await stage.add(type="scale_up", pod_count=1)
        before = trio.current_time()
        await stage.work(progress).run()
        (result,) = await stage.results()
        assert (result["workers"][0]["cause"], result["workers"][0]["reason"]) == ("RegistryUnreachable", message)
        assert 29 < trio.current_time() - before < 40
        assert await stage.pods_left() == []


async def test_the_progress_names_what_keeps_a_worker_from_starting(autojump_clock: MockClock) -> None:
    """Within ten seconds of the kubelet saying so, the cause and its words stand in the progress."""
    async with open_stage(World(lambda labels: Plan(stuck="ErrImagePull", reason="no such host"))) as stage:
        progress = await stage.add(type="scale_up", pod_count=1)
        with trio.move_on_after(10):
            await stage.work(progress).run()
        live = await stage.stream.read_progress(progress.event_id)
        assert live is not None
        assert live.troubles == {1: {"cause": "RegistryUnreachable", "reason": "no such host"}}


async def test_a_new_owner_goes_on_where_the_last_one_stopped(autojump_clock: MockClock) -> None:
    """After a takeover, ended workers stay ended, running pods are adopted, and only what was never accepted is
    created.
    """
    world = World(lambda labels: Plan(duration=5 if labels["ottoscaler/index"] == "1" else 60))
    async with open_stage(world) as first:
        first.site.slots.limit = 2
        progress = await first.add(type="scale_up", pod_count=3)
        with trio.move_on_after(20):
            await first.work(progress).run()
        assert len(world.runs) == 3
        second = first.beside("s2")
        await first.stream.offer([first.work(progress).claim], clean=[True])
        async with second.open():
            taken = await second.take()
            assert (taken.epoch, sorted(taken.outcomes)) == (2, [1])
            await second.work(taken).run()
            (result,) = await second.results()
            assert result["status"] == "succeeded"
            assert len(world.runs) == 3
            assert await second.pods_left() == []


async def test_a_former_owner_touches_nothing(autojump_clock: MockClock) -> None:
    """Once another session holds the event, the first write of the former owner ends its work."""
    async with open_stage(World(lambda labels: Plan(duration=10))) as stage:
        progress = await stage.add(type="scale_up", pod_count=2)
        work = stage.work(progress)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect_loss, work)
            await trio.sleep(5)
            await stage.stream.offer([work.claim], clean=[True])
            writes = len(stage.world.writes)
        assert len(stage.world.writes) == writes
        assert await stage.results() == []


async def _expect_loss(work: Work) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await work.run()
    assert caught.group_contains(NotOurs)


async def test_an_outcome_stands_for_ever(autojump_clock: MockClock) -> None:
    """The first outcome of a worker wins; a second one is answered with the first."""
    async with open_stage() as stage:
        progress = await stage.add(type="scale_up", pod_count=1)
        claim = stage.work(progress).claim
        one, two = (WorkerOutcome("p", 1, 1, word).to_json() for word in ("succeeded", "failed"))
        assert await stage.ledger.record(claim, outcomes=(Outcome(1, one),)) == (one,)
        assert await stage.ledger.record(claim, outcomes=(Outcome(1, two),)) == (one,)


async def test_ten_workers_that_end_together_cost_one_delete(autojump_clock: MockClock) -> None:
    """The pods of a large event that has ended go as one collection; nothing is read by name."""
    async with open_stage() as stage:
        await stage.work(await stage.add(type="scale_up", pod_count=20)).run()
        verbs = [verb for verb, _ in stage.world.writes]
        assert verbs.count("create") == 20
        assert verbs.count("delete") + verbs.count("deletecollection") == 1
        assert stage.world.reads == []
        assert await stage.pods_left() == []


async def test_no_more_workers_live_than_allowed(autojump_clock: MockClock) -> None:
    """MAX_WORKERS bounds the pods that live at a time; a small event gets its turn beside a huge one."""
    async with open_stage() as stage:
        stage.site.slots.limit = 3
        huge = stage.work(await stage.add(type="scale_up", pod_count=30))
        small = stage.work(await stage.add(type="scale_up", pod_count=2))
        ended: dict[str, float] = {}

        async def run(name: str, work: Work) -> None:
            await work.run()
            ended[name] = trio.current_time()

        most = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, "huge", huge)
            nursery.start_soon(run, "small", small)
            while len(ended) < 2:
                await trio.sleep(0.05)
                alive = [pod for pod in stage.world.pods.values() if pod["status"]["phase"] in ("Pending", "Running")]
                most = max(most, sum("terminated" not in str(pod["status"]) for pod in alive))
        assert most == 3
        assert ended["small"] < ended["huge"] / 2
