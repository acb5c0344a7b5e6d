"""Redis crashes and forgets what it had acknowledged in the last second: whoever knows it writes it again, and nothing
is undone of what would be known no more.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from ottoscaler.stream.base import Registration
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from tests.pipelines.theatre import stage, text_of
from tests.spine.forgetting import CrashingRedis, CrashingStream
from tests.spine.scaler import Scaler
from tests.spine.stage import name_pod
from tests.spine.world import Plan, World

AWAY_SECONDS = 0.5


class Scene:
    """A scaler and a Redis that can crash."""

    def __init__(self, plan: Plan) -> None:
        self.server = MemoryServer()
        self.world = World(lambda labels: plan)
        self.redis = CrashingRedis(self.server)
        self.scaler = Scaler(self.world, self.server, "one")
        self.stream = self.scaler.stream = CrashingStream(self.server, "one", self.redis)
        self._judge = MemoryStream(self.server, "judge")

    async def add(self, **fields: str) -> str:
        """Send an event."""
        pairs = [(name.replace("__", "."), value) for name, value in fields.items()]
        return await self._judge.add_event(pairs, token_hex(8))

    def lose_from(self, method: str, *, behind: bool = False) -> None:
        """From the next call of this method on, or from behind it, Redis loses what is written."""
        call: Callable[..., Any] = getattr(self.stream, method)

        async def call_and_lose(*args: Any, **kwargs: Any) -> Any:
            setattr(self.stream, method, call)
            if not behind:
                self.redis.lose_from_now()
            answer = await call(*args, **kwargs)
            if behind:
                self.redis.lose_from_now()
            return answer

        setattr(self.stream, method, call_and_lose)

    def lose_behind_next_entry(self) -> None:
        """Redis has the next event on its disk, and nothing that is made of it."""
        add = self.server.add_entry

        def add_and_lose(pairs: Any) -> str:
            self.server.add_entry = add  # type: ignore[method-assign]  # once
            event_id = add(pairs)
            self.redis.lose_from_now()
            return event_id

        self.server.add_entry = add_and_lose  # type: ignore[method-assign]  # the one way in

    async def crash(self) -> None:
        """Redis is away for a moment, and comes back without what it lost."""
        self.redis.crash()
        await trio.sleep(AWAY_SECONDS)
        self.server.weather = "fine"

    async def wait_result(self, event_id: str) -> dict[str, str]:
        """The result once it is there."""
        with trio.fail_after(200):
            while (ending := await self._judge.read_ending(event_id)) is None:  # noqa: ASYNC110 - virtual time
                await trio.sleep(0.1)
        return ending[1]


async def until(holds: Callable[[], bool]) -> None:
    """Return soon after it holds."""
    with trio.fail_after(60):
        while not holds():  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.0005)


@asynccontextmanager
async def playing(plan: Plan) -> AsyncIterator[Scene]:
    """A scaler at work."""
    scene = Scene(plan)
    async with trio.open_nursery() as nursery:
        await nursery.start(scene.world.run)
        nursery.start_soon(scene.scaler.run)
        await trio.sleep(5)
        yield scene
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_an_end_that_was_forgotten_is_recorded_again_before_its_pod_goes(autojump_clock: MockClock) -> None:
    """Whoever took over in between would find neither the pod nor its end, and create it once more."""
    recorded: list[bool] = []
    async with playing(Plan(start_delay=0.1, duration=3.0)) as scene:
        event_id = await scene.add(type="scale_up", pod_count="1")
        remove = scene.world.delete

        def delete(name: str, uid: str | None = None) -> None:
            recorded.append("o:1" in scene.server.progress[event_id])
            remove(name, uid)

        scene.world.delete = delete  # type: ignore[method-assign]  # looked at on the way
        await trio.sleep(1)
        scene.lose_from("record")
        await trio.sleep(3)
        assert "o:1" in scene.server.progress[event_id]
        assert not recorded
        await scene.crash()
        assert "o:1" not in scene.server.progress[event_id]
        assert (await scene.wait_result(event_id))["status"] == "succeeded"
        assert recorded == [True]
    assert len(scene.world.runs) == 1


async def test_a_pod_that_was_forgotten_is_recorded_again_while_it_runs(autojump_clock: MockClock) -> None:
    """An accepted pod is known again soon after Redis is back, not only at its end."""
    async with playing(Plan(start_delay=0.1, duration=100.0)) as scene:
        event_id = await scene.add(type="scale_up", pod_count="1")
        await until(lambda: event_id in scene.server.progress)
        scene.redis.lose_from_now()
        await trio.sleep(0.3)
        assert "a:1:1" in scene.server.progress[event_id]
        await scene.crash()
        assert "a:1:1" not in scene.server.progress[event_id]
        await trio.sleep(10)
        assert "a:1:1" in scene.server.progress[event_id]


async def test_no_worker_is_stopped_before_the_disk_knows_of_it(autojump_clock: MockClock) -> None:
    """A pod that is to stop stays until a crash could not make Redis forget that it ran."""
    async with playing(Plan(start_delay=0.1, duration=100.0)) as scene:
        event_id = await scene.add(type="scale_up", pod_count="1")
        await trio.sleep(2)
        scene.lose_from("mark_victims")
        await scene.add(type="scale_down", pod_count="1")
        await trio.sleep(1)
        assert "s:1" in scene.server.progress[event_id]
        assert "deletionTimestamp" not in scene.world.pods[name_pod(event_id, 1, 1)]["metadata"]
        await scene.crash()
        result = await scene.wait_result(event_id)
        assert (result["status"], result["terminated"]) == ("terminated", "1")


@pytest.mark.parametrize("kind", ["scale_down", "cancel"])
async def test_marks_that_were_forgotten_are_set_again(kind: str, autojump_clock: MockClock) -> None:
    """Whoever asked for a stop hears how it ended, though Redis forgot that it had asked."""
    async with playing(Plan(start_delay=0.1, duration=100.0, ignores_term=True)) as scene:
        event_id = await scene.add(type="scale_up", pod_count="1")
        await trio.sleep(2)
        scene.lose_from("mark_victims")
        more = {"event_id": event_id} if kind == "cancel" else {"pod_count": "1"}
        down_id = await scene.add(type=kind, **more)
        await trio.sleep(0.5)
        await scene.crash()
        assert "s:1" not in scene.server.progress[event_id]
        down, up = await scene.wait_result(down_id), await scene.wait_result(event_id)
        assert (down["terminated"], up["terminated"]) == ("1", "1")
        (worker,) = msgspec.json.decode(up["workers"])
        assert worker["cause"] == ("Cancelled" if kind == "cancel" else "Stopped")


async def test_a_stop_that_was_forgotten_is_none(autojump_clock: MockClock) -> None:
    """Nobody asks for it any more: the worker lives on, and can be stopped by another."""
    async with playing(Plan(start_delay=0.1, duration=30.0)) as scene:
        event_ids = [await scene.add(type="scale_up", pod_count="1", task_id=task) for task in "ab"]
        await trio.sleep(2)
        scene.redis.lose_from_now()
        for task in "ab":
            await scene.add(type="scale_down", pod_count="1", task_id=task)
        await trio.sleep(0.5)
        assert all("s:1" in scene.server.progress[event_id] for event_id in event_ids)
        await scene.crash()
        await trio.sleep(10)
        await scene.add(type="scale_down", pod_count="1", task_id="b")
        results = [await scene.wait_result(event_id) for event_id in event_ids]
        assert [result["status"] for result in results] == ["succeeded", "terminated"]


@pytest.mark.parametrize("method", ["start_stage", "record", "close"])
async def test_a_pipeline_goes_on_from_what_is_known(method: str, autojump_clock: MockClock) -> None:
    """A stage whose start was forgotten is started again, and each that ended is told of once."""
    async with playing(Plan(start_delay=0.1, duration=1.0)) as scene:
        if method == "start_stage":
            scene.lose_from(method)
        text = text_of(stage("a"), stage("b", "a"))
        event_id = await scene.add(type="pipeline", otto__pipeline=text)
        await trio.sleep(0.9)
        if method != "start_stage":
            scene.lose_from(method)
            await trio.sleep(1.5)
        await scene.crash()
        result = await scene.wait_result(event_id)
        assert (result["status"], result["succeeded"]) == ("succeeded", "2")
        page = (await scene.stream.read_news({event_id: 0}))[event_id]
        told = [msgspec.json.decode(one) for one in page.texts]
    ends = [one["stage_id"] for one in told if one.get("state", one.get("status")) == "completed"]
    assert ends == ["a", "b"], told


async def test_who_lost_an_event_in_a_crash_stops_nothing_of_it(autojump_clock: MockClock) -> None:
    """Its delivery was forgotten and another has been given it: the stop that waited for the disk is no more."""
    async with playing(Plan(start_delay=0.1, duration=100.0)) as scene:
        other = MemoryStream(scene.server, "other")
        era = await other.open_group("0", "otto")
        await other.renew(3600.0, era.id)
        scene.lose_behind_next_entry()
        event_id = await scene.add(type="scale_up", pod_count="1")
        await trio.sleep(0.3)
        await scene.add(type="scale_down", pod_count="1")
        await trio.sleep(0.3)
        assert "s:1" in scene.server.progress[event_id]
        scene.redis.crash()
        scene.server.events.deliver(scene.server.keys.group, "other", 1)
        scene.server.weather = "fine"
        await other.register([Registration(event_id, "work", (("type", "scale_up"), ("pod_count", "1")), "", 1)])
        await trio.sleep(20)
        assert scene.server.progress[event_id]["owner"] == "other"
        assert "deletionTimestamp" not in scene.world.pods[name_pod(event_id, 1, 1)]["metadata"]


async def test_the_pod_of_a_former_attempt_is_recorded_again(autojump_clock: MockClock) -> None:
    """Of attempts that others followed it must be known, too, that their pods were accepted."""
    async with playing(Plan(start_delay=5.0, duration=100.0)) as scene:
        event_id = await scene.add(type="scale_up", pod_count="1")
        await until(lambda: event_id in scene.server.progress)
        scene.redis.lose_from_now()
        await trio.sleep(0.1)
        scene.world.remove(name_pod(event_id, 1, 1))
        await until(lambda: name_pod(event_id, 1, 2) in scene.world.pods)
        await scene.crash()
        await trio.sleep(10)
        assert {"a:1:1", "t:1:1", "a:1:2"} <= scene.server.progress[event_id].keys()


async def test_an_end_of_a_stage_that_is_forgotten_in_between_is_none(autojump_clock: MockClock) -> None:
    """It stood as ended, and how it ended was forgotten before it was read: then it has not ended."""
    async with playing(Plan(start_delay=0.1, duration=1.0)) as scene:
        read, answered = scene.stream.read_ending, list[str]()

        async def read_ending(event_id: str) -> tuple[str, dict[str, str]] | None:
            answered.append(event_id)
            return None if len(answered) == 1 else await read(event_id)

        scene.stream.read_ending = read_ending  # type: ignore[method-assign]  # its first answer is another
        event_id = await scene.add(type="pipeline", otto__pipeline=text_of(stage("a")))
        await trio.sleep(5)
        assert answered
        answered.append("")
        assert "o:1" not in scene.server.progress.get(event_id, {"o:1": ""})


async def test_no_pipeline_closes_with_an_end_forgotten(autojump_clock: MockClock) -> None:
    """The cancelled end of its last stage was forgotten, and before anybody was told that Redis may have, the first
    one ended, too: whoever cancelled the pipeline hears of both.
    """
    async with playing(Plan(start_delay=0.1, duration=1.5, ignores_term=True)) as scene:
        event_id = await scene.add(type="pipeline", otto__pipeline=text_of(stage("a"), stage("b", "a")))
        await trio.sleep(0.5)
        scene.lose_from("mark_victims", behind=True)
        cancel_id = await scene.add(type="cancel", event_id=event_id)
        await until(lambda: "o:2" in scene.server.progress[event_id])
        await trio.sleep_until(math.floor(trio.current_time()) + 2.02)  # behind a renewal, long before the next
        scene.redis.crash()
        scene.server.notices.clear()  # those of the marks had been heard before
        scene.server.weather = "fine"
        assert "o:2" not in scene.server.progress[event_id]
        result = await scene.wait_result(cancel_id)
        assert (result["requested"], result["terminated"]) == ("2", "1")
