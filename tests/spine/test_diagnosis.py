"""What keeps a worker from starting or ending is named in time, in the log and in its result."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.errors import NotFound, OttoscalerError, Refused
from ottoscaler.retries import RetryPolicy
from ottoscaler.stream.memory import MemoryServer
from tests.spine.scaler import Scaler
from tests.spine.stage import Stage, open_stage
from tests.spine.world import Plan, World, lost


@pytest.fixture
def named(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The causes that were logged as warnings so far."""
    caplog.set_level(logging.WARNING)
    return lambda: [cause for record in caplog.records if (cause := record.__dict__["facts"].get("cause"))]


def waiting() -> World:
    """A world in which containers are being created for ever."""
    return World(lambda labels: Plan(stuck="ContainerCreating"))


def bind(pod: dict[str, Any]) -> None:
    """The scheduler has found a node."""
    pod["spec"]["nodeName"] = "n1"


def failed_mount(world: World, name: str, last: str) -> dict[str, Any]:
    """The kubelet says once more that a volume cannot be mounted."""
    about = {"kind": "Pod", "name": name, "uid": world.pods[name]["metadata"]["uid"]}
    times = {"firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": f"2026-01-01T00:00:{last}Z"}
    return {"involvedObject": about, "reason": "FailedMount", "message": 'secret "none" not found', **times}


async def begin(stage: Stage, nursery: trio.Nursery, seconds: float = 1) -> str:
    """Start the work on an event of one worker; the name of its pod, so many seconds later."""
    nursery.start_soon(stage.work(await stage.add(type="scale_up", pod_count=1)).run)
    await trio.sleep(seconds)
    (name,) = stage.world.pods
    return name


async def worker_of(stage: Stage) -> dict[str, Any]:
    """The only worker of the only result."""
    (result,) = await stage.results()
    (worker,) = result["workers"]
    return dict(worker)


async def test_a_mount_that_fails_is_named_and_ends_the_worker(
    autojump_clock: MockClock, named: Callable[[], list[str]]
) -> None:
    """A warning wakes the worker; ten seconds of failing later it has failed, and its pod is gone."""
    async with open_stage(waiting()) as stage, trio.open_nursery() as nursery:
        name = await begin(stage, nursery)
        stage.world.change(name, bind)
        await trio.sleep(1)
        assert named() == []
        for last, pause in (("00", 0.5), ("01", 3), ("04", 4), ("08", 4)):
            stage.site.warnings.note(failed_mount(stage.world, name, last))
            await trio.sleep(pause)
            assert named() == ["MountFailed"]
        worker = await worker_of(stage)
        assert (worker["cause"], worker["reason"]) == ("MountFailed", 'secret "none" not found')
        assert await stage.pods_left() == []


async def test_a_pod_that_no_scheduler_looks_at_is_named_and_given_up(
    autojump_clock: MockClock, named: Callable[[], list[str]]
) -> None:
    """Without a word from any scheduler the pod is Unschedulable after a moment, and fails when its time is over."""
    async with open_stage(World(lambda labels: Plan(start_delay=10_000))) as stage, trio.open_nursery() as nursery:
        nursery.start_soon(stage.work(await stage.add(type="scale_up", pod_count=1)).run)
        await trio.sleep(4)
        assert named() == []
        await trio.sleep(4)
        assert named() == ["Unschedulable"]
        await trio.sleep(300)
        assert (await worker_of(stage))["reason"] == "no scheduler has taken the pod up"
        assert await stage.pods_left() == []


async def test_a_mount_that_succeeds_later_harms_nothing(autojump_clock: MockClock) -> None:
    """A single warning, as of a slow cache, is forgotten when no other follows."""
    async with open_stage(waiting()) as stage, trio.open_nursery() as nursery:
        name = await begin(stage, nursery)
        stage.world.change(name, bind)
        stage.site.warnings.note(failed_mount(stage.world, name, "00"))
        await trio.sleep(600)
        assert list(stage.world.pods) == [name]
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_probe_that_kills_is_told_by_the_watch_of_warnings(autojump_clock: MockClock) -> None:
    """In a running service a warning of the probe makes the kill that follows LivenessFailed."""
    world, server = World(lambda labels: Plan(duration=20, exit_code=137)), MemoryServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        scaler = Scaler(world, server, "s1")
        nursery.start_soon(scaler.run)
        await scaler.stream.add_event([("type", "scale_up"), ("pod_count", "1")], "t1")
        await trio.sleep(10)
        (name,) = world.pods
        world.warn(name, "Unhealthy", "Liveness probe failed: ")
        await trio.sleep(60)
        ((_, result),) = await scaler.stream.read_entries("results", "0", 10, 0.0)
        assert '"cause":"LivenessFailed","reason":"Liveness probe failed (exit code 137)"' in result["workers"]
        nursery.cancel_scope.cancel(reason="the test is over")


QUOTA = 'pods "p" is forbidden: exceeded quota: q, requested: pods=1'
ACCOUNT = 'pods "p" is forbidden: error looking up service account otto/none: serviceaccount "none" not found'


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (Refused(QUOTA, status=403), "QuotaExceeded"),
        (Refused(ACCOUNT, status=403), "ServiceAccountMissing"),
        (Refused('pods "p" is forbidden: because it is being terminated', status=403), "NamespaceTerminating"),
        (NotFound('namespaces "otto" not found', status=404), "NamespaceTerminating"),
        (lost("create"), "ApiUnavailable"),
    ],
)
async def test_a_refusal_for_now_is_named_and_waited_out(
    autojump_clock: MockClock, named: Callable[[], list[str]], error: OttoscalerError, cause: str
) -> None:
    """It is logged once within 10 s, tried again, and is the cause of the failure when the time is over."""
    async with open_stage(create_timeout=60.0) as stage, trio.open_nursery() as nursery:
        stage.kube.fail = lambda verb, name: error if verb == "create" else None
        nursery.start_soon(stage.work(await stage.add(type="scale_up", pod_count=1)).run)
        await trio.sleep(10)
        assert named() == [cause]
        await trio.sleep(60)
        assert (await worker_of(stage))["cause"] == cause
        assert len(stage.world.writes) > 10
        assert named().count(cause) == 1


async def test_a_refusal_that_passes_fails_nobody(autojump_clock: MockClock) -> None:
    """When the quota has room again, the same attempt goes on."""
    async with open_stage() as stage:
        until = trio.current_time() + 90
        refusal = Refused(QUOTA, status=403)
        stage.kube.fail = lambda verb, _: refusal if verb == "create" and trio.current_time() < until else None
        await stage.work(await stage.add(type="scale_up", pod_count=1)).run()
        worker = await worker_of(stage)
        assert (worker["outcome"], worker["attempt"]) == ("succeeded", 1)


@pytest.mark.parametrize("refused", [True, False])
async def test_a_cause_made_final_ends_the_worker_at_once(autojump_clock: MockClock, refused: bool) -> None:
    """What might pass is not waited for where the policy says that it is final."""
    world = World(lambda labels: Plan(stuck="ErrImagePull", reason="x: not found"))
    async with open_stage(world) as stage:
        policy = RetryPolicy(moved={"QuotaExceeded": "final", "ImageNotFound": "final"})
        stage.site = stage.guard._site = replace(stage.site, retries=policy)
        if refused:
            stage.kube.fail = lambda verb, _: Refused(QUOTA, status=403) if verb == "create" else None
        with trio.fail_after(5):
            await stage.work(await stage.add(type="scale_up", pod_count=1)).run()
        assert (await worker_of(stage))["cause"] == ("QuotaExceeded" if refused else "ImageNotFound")


def fall_silent(pod: dict[str, Any]) -> None:
    """The node of a pod is not heard any more, and the pod is given up."""
    pod["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:05Z"
    gone = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
    pod["status"]["conditions"].append(gone)


async def test_a_silent_node_is_reported_once_and_waited_for(
    autojump_clock: MockClock, named: Callable[[], list[str]]
) -> None:
    """NodeLost and then StuckTerminating are logged, the worker ends only when its pod is gone, and runs once."""
    async with open_stage(World(lambda labels: Plan(duration=10_000, ignores_term=True))) as stage:
        async with trio.open_nursery() as nursery:
            name = await begin(stage, nursery, 2)
            stage.world.change(name, fall_silent)
            await trio.sleep(1)
            assert named() == ["NodeLost"]
            await trio.sleep(20)
            assert await stage.results() == []
            stage.world.remove(name)
        worker = await worker_of(stage)
        assert (worker["outcome"], worker["cause"]) == ("failed", "NodeLost")
        assert (named(), len(stage.world.runs)) == (["NodeLost"], 1)


async def test_a_pod_that_does_not_go_is_reported_once(
    autojump_clock: MockClock, named: Callable[[], list[str]]
) -> None:
    """A minute after its grace a pod that is still being deleted is logged, and not fought."""
    async with open_stage(waiting()) as stage, trio.open_nursery() as nursery:
        name = await begin(stage, nursery)
        stage.world.change(name, lambda pod: pod["metadata"].update(deletionTimestamp="1970-01-01T00:00:30Z"))
        await trio.sleep(80)
        assert named() == []
        await trio.sleep(1000)
        assert named() == ["StuckTerminating"]
        assert [verb for verb, _ in stage.world.writes] == ["create"]
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_worker_that_outlives_its_deadline_fails(
    autojump_clock: MockClock, named: Callable[[], list[str]]
) -> None:
    """A minute after deadline and grace its pod is deleted, and the worker has failed as HungAfterDeadline."""

    def limit(pod: dict[str, Any]) -> None:
        pod["spec"] |= {"activeDeadlineSeconds": 20, "terminationGracePeriodSeconds": 5}
        pod["status"]["startTime"] = "1970-01-01T00:00:01Z"

    async with open_stage(World(lambda labels: Plan(duration=10_000, ignores_term=True))) as stage:
        async with trio.open_nursery() as nursery:
            name = await begin(stage, nursery, 2)
            stage.world.change(name, limit)
            await trio.sleep(80)
            assert named() == []
            await trio.sleep(10)
            assert named()[:1] == ["HungAfterDeadline"]
        assert (await worker_of(stage))["cause"] == "HungAfterDeadline"
        assert ("delete", name) in stage.world.writes
