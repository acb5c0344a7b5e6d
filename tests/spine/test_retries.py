"""Workers that failed and are run again, or not: by cause, by number, across owners and stops."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.backoff import Backoff
from ottoscaler.errors import SettingsError
from ottoscaler.retries import RetryPolicy, policy_of_template
from ottoscaler.stream.base import Candidate, Claim, Writing, Written
from tests.spine.stage import Stage, heeding, open_stage
from tests.spine.world import Plan, World

STEADY = Backoff(5.0, 60.0, jitter=0.0)


def policy(**values: Any) -> RetryPolicy:
    """A policy without chance in its delays."""
    return RetryPolicy(backoff=STEADY, **values)


@pytest.mark.parametrize(
    ("values", "earlier", "cause", "started", "again"),
    [
        ({}, [], "ExitCode", True, False),
        ({"worker_max_attempts": 2}, [], "ExitCode", True, True),
        ({"worker_max_attempts": 2}, ["OutOfMemory"], "ExitCode", True, False),
        ({"worker_max_attempts": 2}, ["Evicted"], "ExitCode", True, True),
        ({}, [], "Evicted", False, True),
        ({}, [], "Evicted", True, False),
        ({}, [], "Evicted", None, False),
        ({"platform_retry_started": True}, [], "Evicted", True, True),
        ({"platform_max_attempts": 2}, ["Preempted"], "Evicted", False, False),
        ({"worker_max_attempts": 9}, [], "InvalidImageName", False, False),
        ({"worker_max_attempts": 9}, [], "Unschedulable", False, False),
        ({"moved": {"ExitCode": "final"}, "worker_max_attempts": 9}, [], "ExitCode", True, False),
        ({"moved": {"ExitCode": "platform"}, "platform_retry_started": True}, [], "ExitCode", True, True),
    ],
)
def test_the_class_of_the_cause_decides(
    values: dict[str, Any], earlier: list[str], cause: str, started: bool | None, again: bool
) -> None:
    """Own faults count against the worker, the platform's have a number of their own and ask whether it had started."""
    assert policy(**values).may_retry(earlier, cause, started) is again


def with_policy(stage: Stage, **values: Any) -> None:
    """Let the stage's workers be retried."""
    stage.site = stage.guard._site = replace(stage.site, retries=policy(**values))


def failing(times: int) -> World:
    """Workers that fail so many times, then succeed."""
    return World(lambda labels: Plan(exit_code=1 if int(labels["ottoscaler/attempt"]) <= times else 0))


async def test_a_worker_is_run_again_under_another_name(autojump_clock: MockClock) -> None:
    """The second attempt has a pod of its own after a delay; the result shows the attempt that succeeded."""
    async with open_stage(failing(1)) as stage:
        with_policy(stage, worker_max_attempts=3)
        await stage.work(await stage.add(type="scale_up", pod_count=1)).run()
        (result,) = await stage.results()
        (worker,) = result["workers"]
        assert (result["status"], worker["attempt"], worker["name"][-3:]) == ("succeeded", 2, "-r2")
        assert [attempt for _, _, attempt in stage.world.runs] == [1, 2]
        assert await stage.pods_left() == []


async def test_one_that_waits_for_its_next_attempt_is_stopped_first(autojump_clock: MockClock) -> None:
    """A scale_down takes a worker between two attempts as one not yet created, though its former pod is still there."""
    world = World(lambda labels: Plan(exit_code=1, duration=1 if labels["ottoscaler/index"] == "1" else 600))
    async with open_stage(world, cleanup_delay=100.0) as stage, heeding(stage) as nursery:
        with_policy(stage, worker_max_attempts=3)
        up = await stage.add(type="scale_up", pod_count=2)
        nursery.start_soon(stage.work(up).run)
        await trio.sleep(5)
        assert f"otto-agent-1-{up.event_id}" in world.pods
        await stage.work(await stage.add(type="scale_down", pod_count=1)).run()
        down = (await stage.results())[-1]
        assert [worker["index"] for worker in down["workers"]] == [1]


async def test_attempts_come_to_an_end(autojump_clock: MockClock) -> None:
    """A worker that fails every time fails with its last attempt, after growing delays."""
    async with open_stage(failing(99)) as stage:
        with_policy(stage, worker_max_attempts=3)
        before = trio.current_time()
        await stage.work(await stage.add(type="scale_up", pod_count=1)).run()
        (result,) = await stage.results()
        assert (result["status"], result["workers"][0]["attempt"]) == ("failed", 3)
        assert len(stage.world.runs) == 3
        assert trio.current_time() - before > 5 + 10


async def test_a_stop_between_attempts_ends_the_worker(autojump_clock: MockClock) -> None:
    """A worker that waits for its next attempt is stopped at once, and no other pod is made."""
    async with open_stage(failing(99)) as stage, heeding(stage) as nursery:
        with_policy(stage, worker_max_attempts=9)
        up = stage.work(await stage.add(type="scale_up", pod_count=1))
        nursery.start_soon(up.run)
        await trio.sleep(5)
        assert len(stage.world.runs) == 1
        await stage.work(await stage.add(type="scale_down", pod_count=1)).run()
        await trio.sleep(60)
        results = {result["type"]: result for result in await stage.results()}
        assert results["scale_down"]["terminated"] == "1"
        assert results["scale_up"]["status"] == "terminated"
        assert len(stage.world.runs) == 1


@pytest.mark.parametrize("nobody_for", [0.0, 30.0])
@pytest.mark.parametrize("seconds", [0.5, 1.5, 2.6, 4.0, 8.0, 9.5])
async def test_a_new_owner_keeps_count(seconds: float, nobody_for: float, autojump_clock: MockClock) -> None:
    """Taken over at any time, the worker goes on with the attempt it was at: none is repeated, none is skipped."""
    async with open_stage(failing(2)) as first:
        with_policy(first, worker_max_attempts=3)
        progress = await first.add(type="scale_up", pod_count=1)
        with trio.move_on_after(seconds):
            await first.work(progress).run()
        second = first.beside("s2")
        with_policy(second, worker_max_attempts=3)
        await first.ledger.wait_empty()
        await trio.sleep(nobody_for)
        await first.stream.offer([first.work(progress).claim], clean=[True])
        async with second.open():
            taken = await second.take()
            await second.work(taken).run()
            (result,) = await second.results()
    assert (result["status"], result["workers"][0]["attempt"]) == ("succeeded", 3)
    assert [attempt for _, _, attempt in first.world.runs] == [1, 2, 3]


async def test_a_stop_right_after_the_end_of_an_attempt_is_heeded(autojump_clock: MockClock) -> None:
    """A worker that is cancelled while Redis has its end and has not answered yet is not run again."""
    world = World(lambda labels: Plan(exit_code=1) if labels["ottoscaler/attempt"] == "1" else Plan(duration=600))
    async with open_stage(world) as stage, heeding(stage) as nursery:
        with_policy(stage, worker_max_attempts=2)
        progress = await stage.add(type="scale_up", pod_count=1)
        record, is_written = stage.stream.record, trio.Event()

        async def answer_slowly(writings: Sequence[Writing]) -> list[Written]:
            written = await record(writings)
            if any(writing.outcomes for writing in writings) and not is_written.is_set():
                is_written.set()
                await trio.sleep(1)
            return written

        stage.stream.record = answer_slowly  # type: ignore[method-assign]  # a Redis that takes its time
        nursery.start_soon(stage.work(progress).run)
        await is_written.wait()
        target = Claim((await stage.add(type="cancel", event_id=progress.event_id)).event_id, stage.session, 1)
        await stage.stream.mark_victims(target, 1, [Candidate(progress.event_id, 1, "")], cause="Cancelled", last=True)
        await trio.sleep(10)
        (result,) = await stage.results()
        assert (result["status"], result["workers"][0]["cause"]) == ("terminated", "Cancelled")
        assert len(world.runs) == 1


async def test_an_evicted_worker_that_never_started_is_run_again(autojump_clock: MockClock) -> None:
    """The platform's fault costs no attempt of the worker's, where it surely had not started."""
    seen = itertools.count(1)
    world = World(lambda labels: Plan(stuck="ContainerCreating") if next(seen) == 1 else Plan())
    async with open_stage(world) as stage:
        with_policy(stage)
        progress = await stage.add(type="scale_up", pod_count=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.work(progress).run)
            await trio.sleep(5)
            (name,) = world.pods
            world.change(name, lambda pod: pod["status"].update(phase="Failed", reason="Evicted", message="disk"))
        (result,) = await stage.results()
        assert (result["status"], result["workers"][0]["attempt"]) == ("succeeded", 2)
        assert len(world.runs) == 1


async def test_no_attempt_runs_beside_the_one_before(autojump_clock: MockClock) -> None:
    """A pod that was given up while its process still ran must be gone before the next attempt is created."""
    world = World(
        lambda labels: Plan(duration=600, ignores_term=True) if labels["ottoscaler/attempt"] == "1" else Plan()
    )
    async with open_stage(world) as stage:
        with_policy(stage, worker_max_attempts=2)
        progress = await stage.add(type="scale_up", pod_count=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.work(progress).run)
            await trio.sleep(5)
            (name,) = world.pods
            deadline = {"activeDeadlineSeconds": 1, "terminationGracePeriodSeconds": 1}
            world.change(name, lambda pod: pod["spec"].update(deadline))
            world.change(name, lambda pod: pod["status"].update(startTime="1970-01-01T00:00:10Z"))
            await trio.sleep_until(90)
            assert "deletionTimestamp" in world.pods[name]["metadata"]
            assert [sorted(world.pods), len(world.runs)] == [[name], 1]
        (result,) = await stage.results()
        assert (result["status"], result["workers"][0]["attempt"]) == ("succeeded", 2)


def test_a_template_has_the_last_word() -> None:
    """A template's annotations change number and classes; what is wrong in them is named with template and field."""
    annotations = {"ottoscaler/worker-max-attempts": "4", "ottoscaler/retry-policy": '{"OutOfMemory": "final"}'}
    made = policy_of_template("gpu", {"metadata": {"annotations": annotations}}, policy())
    assert made.may_retry([], "ExitCode", True)
    assert not made.may_retry([], "OutOfMemory", True)
    wrong = {"ottoscaler/worker-max-attempts": "many", "ottoscaler/retry-policy": '{"Explosion": "own"}'}
    with pytest.raises(SettingsError) as refused:
        policy_of_template("gpu", {"metadata": {"annotations": wrong}}, policy())
    assert refused.value.problems == [
        "template gpu: ottoscaler/worker-max-attempts is 'many', expected a whole number from 1 to 100",
        "template gpu: ottoscaler/retry-policy names 'Explosion', expected a cause; ottoscaler explain lists them",
    ]
