"""A gap that the receiver has not acknowledged when its owner dies or hands over is said by the next owner."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock

from ottoscaler.backoff import Backoff
from ottoscaler.logs.backlog import Room
from ottoscaler.logs.following import Following
from ottoscaler.logs.lines import LogLine
from ottoscaler.logs.mark import Entry, Gap, Mark
from ottoscaler.logs.messages import Who, Wording
from ottoscaler.logs.tracked import Tracked
from ottoscaler.stream.base import Claim
from ottoscaler.stream.memory import MemoryServer
from tests.logs.house import FakeHandler, LoggedWorld, logged_stage
from tests.logs.receiver import FakeAnswer, FakeReceiver
from tests.logs.test_following import NAME, START, Scene
from tests.spine.world import Plan

WHO = Who(NAME, "task-1", "5-0", 0, 1, "otto")


class Owner:
    """Whoever follows the log of a scene from a mark on; what is answered is said by the test."""

    def __init__(self, scene: Scene, mark: Mark = START) -> None:
        self.tracked = Tracked(WHO, Claim("5-0", "s1", 1), mark, Wording(WHO), Room())
        self.taken: list[Entry] = []
        self._scene = scene

    async def run(self) -> None:
        """Follow to the end."""
        kubelet = self._scene.kubelet
        with self._scene.fleet.follow(NAME) as pod:

            async def deliver(entries: Sequence[Entry]) -> None:
                await self.tracked.deliver(entries, pod.record)

            mark, retry = self.tracked.outbox.mark, Backoff(0.1, 1.0, jitter=0.0)
            following = Following(NAME, kubelet.read, pod, mark, deliver, now=kubelet.now, retry=retry)
            self.tracked.following = following
            await following.run()

    def answer(self, most: int = 1000) -> None:
        """Acknowledge so many of the entries that wait."""
        while most and (item := self.tracked.outbox.next(trio.current_time())) is not None:
            self.taken.append(item.entry)
            self.tracked.outbox.answer([item], [FakeAnswer()], trio.current_time())
            most -= 1

    def die(self) -> Mark:
        """What Redis knows of it."""
        return msgspec.json.decode(msgspec.json.encode(self.tracked.mark), type=Mark)


async def come_late(scene: Scene, owner: Owner) -> None:
    """The log could be read 30 s after the start, when a file was put away."""
    scene.kubelet.is_away = True
    scene.start()
    scene.say(1)
    await trio.sleep(30)
    scene.kubelet.log.rotate()
    scene.say(2)
    scene.kubelet.is_away = False
    await trio.sleep(10)


async def miss_a_file(scene: Scene, owner: Owner) -> None:
    """A file is put away with two lines that nobody read, and the new one is looked at when it was silent for long."""
    scene.start()
    scene.say(1)
    await trio.sleep(1)
    scene.say(2, 3)
    scene.kubelet.log.rotate()
    await trio.sleep(20)
    scene.say(4)
    await trio.sleep(1)
    owner.answer()
    await trio.sleep(400)


@pytest.mark.parametrize("is_answered", [False, True])
@pytest.mark.parametrize(("harm", "why"), [(come_late, "OpenedLate"), (miss_a_file, "LogRotated")])
async def test_a_gap_is_said_until_it_is_acknowledged(
    tmp_path: Path, autojump_clock: MockClock, harm: object, why: str, is_answered: bool
) -> None:
    """The mark knows of a new file with the gap that says so, not earlier; and a gap that was heard is not repeated."""
    assert callable(harm)
    async with trio.open_nursery() as streams:
        scene = Scene(streams, tmp_path)
        first = Owner(scene)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.run)
            await harm(scene, first)
            if is_answered:
                first.answer(1)
            mark = first.die()
            nursery.cancel_scope.cancel(reason="killed by the test")
        second = Owner(scene, mark)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(second.run)
            await trio.sleep(10)
            scene.say(5)
            scene.end()
        second.answer()
        streams.cancel_scope.cancel(reason="the test is over")
    gaps = [[entry.why for entry in owner.taken if isinstance(entry, Gap)] for owner in (first, second)]
    assert gaps == ([[why], []] if is_answered else [[], [why]])
    lines = [entry.text for entry in first.taken + second.taken if isinstance(entry, LogLine)]
    assert lines == [b"line %d" % number for number in ((2, 5) if why == "OpenedLate" else (1, 4, 5))]


@pytest.mark.parametrize("is_handed_over", [False, True])
async def test_a_gap_that_waits_is_said_by_the_next_owner(
    tmp_path: Path, autojump_clock: MockClock, is_handed_over: bool
) -> None:
    """A handler takes nothing while a file is put away and the event leaves its owner, by a drain or a `kill -9`."""
    world = LoggedWorld(tmp_path, lambda labels: Plan(duration=30), 300)
    server, handler = MemoryServer(), FakeHandler(FakeReceiver(), [])
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        async with logged_stage(world, server, handler, "s1", 60) as first:
            progress = await first.stage.add(type="scale_up", pod_count=1)
            async with trio.open_nursery() as work:
                work.start_soon(first.stage.work(progress).run)
                await trio.sleep(5)
                (kubelet,) = world.logs.values()
                kubelet.log.rotate()
                await trio.sleep(1)
                handler.receiver.is_stalled = True
                await trio.sleep(0.1)
                kubelet.cut()
                await trio.sleep(2)
                if is_handed_over:
                    await first.keeper.hand_over()
                work.cancel_scope.cancel(reason="it has the event no more")
        assert handler.gaps == []
        handler.receiver.is_stalled = False
        async with logged_stage(world, server, handler, "s2", 60) as second:
            taken = await second.take_from(first.stage, progress.event_id)
            await second.stage.work(taken).run()
        assert handler.gaps == ["LogRotated"]
        (name,) = world.logs
        assert sorted(set(handler.numbers(name))) == list(range(1, 301))
        world.close()
        nursery.cancel_scope.cancel(reason="the test is over")


@pytest.mark.parametrize("dies", [False, True])
async def test_a_log_that_is_given_up_hides_no_file_that_was_put_away(
    tmp_path: Path, autojump_clock: MockClock, dies: bool
) -> None:
    """A file was put away unread, later lines were taken, and the handler left before it was told: the gap of the log
    that is given up reaches back to before that file, from the next owner and in the result, too.
    """
    durations = [30.0, 60.0]
    world = LoggedWorld(tmp_path, lambda labels: Plan(duration=durations[int(labels["ottoscaler/index"]) % 2]), 300)
    server, handler = MemoryServer(), FakeHandler(FakeReceiver(), [])
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        async with logged_stage(world, server, handler, "s1", 5) as house:
            progress = await house.stage.add(type="scale_up", pod_count=2)
            async with trio.open_nursery() as work:
                work.start_soon(house.stage.work(progress).run)
                await trio.sleep(10)
                for kubelet in world.logs.values():
                    kubelet.log.feed("stdout", (b"x" * 1000 + b"\n") * 300)  # smaller ones are never put away
                await trio.sleep(1)
                for kubelet in world.logs.values():
                    kubelet.log.feed("stdout", b"lost\n")
                    kubelet.log.rotate()
                await trio.sleep(10)
                before = list(handler.entries)
                handler.receiver.is_away = True
                handler.receiver.cut()
                await trio.sleep(15 if dies else 60)
                work.cancel_scope.cancel(reason="it has the event no more")
        handler.receiver.is_away = False
        async with logged_stage(world, server, handler, "s2", 60) as second:
            if dies:
                await second.stage.work(await second.take_from(house.stage, progress.event_id)).run()
            (result,) = await second.stage.results()
        gaps = json.loads(result["log_gaps"])
        assert [gap["why"] for gap in gaps] == ["GraceOver"] * (1 if dies else 2)
        for gap in gaps:
            lines = [one for one in before if one.worker_id == gap["worker"]]
            assert "lost" not in [one.message for one in lines]
            assert gap["from"] <= lines[next(at for at, one in enumerate(lines) if one.message[0] == "x")].timestamp
        said = [one for one in handler.entries if one.metadata["gap"] == "GraceOver"]
        assert [one.metadata["from"] for one in said] == [gap["from"] for gap in gaps] * dies
        world.close()
        nursery.cancel_scope.cancel(reason="the test is over")
