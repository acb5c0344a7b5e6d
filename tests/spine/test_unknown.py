"""Unknown is never zero: what the API does not say of a pod is asked again, and no stranger is taken for ours."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.errors import OttoscalerError, Refused
from tests.spine.stage import build_pod, open_stage
from tests.spine.world import Plan, World, lost


@pytest.mark.parametrize("error", [lost("get"), Refused("may not get pods", status=403)], ids=["away", "refused"])
async def test_a_question_without_an_answer_is_asked_again(error: OttoscalerError, autojump_clock: MockClock) -> None:
    """A pod that left the watch while no GET is answered is not held to be deleted: its worker succeeds."""
    async with open_stage(World(lambda labels: Plan(duration=20))) as stage:
        progress = await stage.add(type="scale_up", pod_count=1)
        stage.kube.get_pod = _answer_from(10.0, stage.kube.get_pod, error)  # type: ignore[method-assign,assignment]  # the fault
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.work(progress).run)
            await trio.sleep(5)
            (name,) = stage.world.pods
            stage.world.strip_labels(name)
        assert [result["status"] for result in await stage.results()] == ["succeeded"]
        assert await stage.pods_left() == []


async def test_a_pod_that_went_while_nobody_saw_may_have_run(autojump_clock: MockClock) -> None:
    """Known only as pending when the watch was lost, and in no list when it is back: its worker is not run again, as
    one that surely never started would be.
    """
    async with open_stage(World(lambda labels: Plan(start_delay=60))) as stage:
        progress = await stage.add(type="scale_up", pod_count=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.work(progress).run)
            await trio.sleep(1)
            (name,) = stage.world.pods
            del stage.world.pods[name]  # and no event of it
            stage.fleet.replace([], stage.world.version)
        (result,) = await stage.results()
        assert result["workers"][0]["cause"] == "DeletedByOther"
        assert stage.world.writes == [("create", name)]


async def test_a_read_that_is_refused_is_said_once(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """A worker that waits for the right to read its pod says so, with what was expected, however long it waits."""
    error = Refused('pods "p" is forbidden: User "otto" cannot get resource "pods"', status=403, reason="Forbidden")
    async with open_stage(World(lambda labels: Plan(duration=200))) as stage:
        progress = await stage.add(type="scale_up", pod_count=1)
        stage.kube.get_pod = _answer_from(100.0, stage.kube.get_pod, error)  # type: ignore[method-assign,assignment]  # the fault
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.work(progress).run)
            await trio.sleep(5)
            (name,) = stage.world.pods
            stage.world.strip_labels(name)
        assert [result["status"] for result in await stage.results()] == ["succeeded"]
    (said,) = [record.facts for record in caplog.records if record.msg == "read refused"]  # type: ignore[attr-defined]  # as our log makes them
    assert (said["event_id"], said["worker"], said["cause"]) == (progress.event_id, name, "Forbidden")
    assert "expected the right to get pods" in said["reason"]


def _answer_from(
    at: float, get: Callable[[str, str], Awaitable[dict[str, Any]]], error: OttoscalerError
) -> Callable[[str, str], Awaitable[dict[str, Any]]]:
    async def get_pod(namespace: str, name: str) -> dict[str, Any]:
        if trio.current_time() < at:
            raise error
        return await get(namespace, name)

    return get_pod


async def test_a_pod_of_another_era_is_not_adopted(autojump_clock: MockClock) -> None:
    """What ran before Redis forgot everything is not ours to follow, though it has our name."""
    async with open_stage(World(lambda labels: Plan(duration=1))) as stage:
        progress = await stage.add(type="scale_up", pod_count=1)
        work = stage.work(progress)
        body = build_pod(work._event, 1, 1)
        body["metadata"]["labels"]["ottoscaler/era"] = "forgotten"
        stage.world.create(body)
        await trio.sleep(0.05)
        await work.run()
        (result,) = await stage.results()
        assert result["workers"][0]["cause"] == "NameTaken"
        assert "era forgotten" in result["workers"][0]["reason"]
        assert len(await stage.pods_left()) == 1


async def test_a_successor_under_the_same_name_is_another_pod(autojump_clock: MockClock) -> None:
    """A pod that took the place of ours is not followed in its stead: the worker has ended with its own."""
    async with open_stage(World(lambda labels: Plan(duration=20))) as stage:
        progress = await stage.add(type="scale_up", pod_count=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.work(progress).run)
            await trio.sleep(5)
            ((name, pod),) = stage.world.pods.items()
            stage.world.remove(name)
            stage.world.create(pod)
        (result,) = await stage.results()
        assert result["workers"][0]["cause"] == "DeletedByOther"
        assert await stage.pods_left() == []
