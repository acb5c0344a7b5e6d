"""The handler's loop: one task per event at a time, and none forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.backoff import Backoff
from ottoscaler.events import BadEntry
from ottoscaler.pods import PodRecord
from ottoscaler.spine.handler import Handler, Work
from ottoscaler.stream.base import Claim
from ottoscaler.stream.memory import MemoryStream
from ottoscaler.stream.progress import Progress
from ottoscaler.supervisor import Supervisor, Unrecoverable
from tests.spine.stage import Stage, open_stage
from tests.spine.test_hand_over import open_scene
from tests.spine.test_taker import count_begun, hand_over_as_another, hold_as_another


class SlowWork:
    """Work without an end of its own, which takes 3 s to end once it is cancelled; `spans` keeps all that was done."""

    is_untouched = False
    is_clean = True
    queued = 0

    def __init__(self, claim: Claim, spans: list[tuple[int, float, float]]) -> None:
        self.claim = claim
        self._spans = spans

    def needs(self, record: PodRecord) -> bool:
        """It has no pods."""
        return False

    def notice(self) -> None:
        """Nothing to look at."""

    async def run(self) -> BadEntry | None:
        """Go on until cancelled, and then a while."""
        began = trio.current_time()
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(3, shield=True):
                await trio.sleep_forever()
            self._spans.append((self.claim.epoch, began, trio.current_time()))


class Desk:
    """A handler, kept running as the rings do, with the sender to it and what its work did."""

    def __init__(self, stage: Stage, nursery: trio.Nursery) -> None:
        self.send, receive = trio.open_memory_channel[Progress](10)
        self.spans: list[tuple[int, float, float]] = []
        self.roster = stage.roster
        self.given_up: list[Unrecoverable] = []
        ring = (stage.site, stage.guard, stage.roster, stage.session, receive, nursery)
        self.handler = Handler(*ring, give_up=self.given_up.append)
        self.handler._make = self._make  # type: ignore[method-assign]  # slow
        nursery.start_soon(Supervisor(5, Backoff(0.1, 1.0, jitter=0.0)).run, "handler", self.handler.run)

    def _make(self, progress: Progress, claim: Claim) -> Work | BadEntry:
        return SlowWork(claim, self.spans)

    def hand_on(self, event_id: str, epoch: int) -> None:
        """An event comes, from the poller or the taker."""
        self.roster.enter(event_id, "work", epoch)
        self.send.send_nowait(Progress(event_id, "work", "s1", epoch, (), "", 1))


@asynccontextmanager
async def open_desk() -> AsyncIterator[Desk]:
    """A handler on a stage."""
    async with open_stage() as stage, trio.open_nursery() as nursery:
        yield Desk(stage, nursery)
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_an_event_that_comes_back_waits_for_the_end_of_its_former_task(autojump_clock: MockClock) -> None:
    """Lost and taken again while the former work has not even noticed: that one is ended, and the next begins after
    its end; an event that comes behind it has its turn, too.
    """
    async with open_desk() as desk:
        desk.hand_on("1-1", 1)
        await trio.sleep(10)
        desk.hand_on("1-1", 2)
        desk.hand_on("2-1", 1)
        await trio.sleep(2)
        assert desk.spans == []
        await trio.sleep(2)
        ((epoch, _, end),) = desk.spans
        work = desk.roster.work_of("1-1")
        assert work is not None
        assert (epoch, work.claim.epoch) == (1, 2)
        assert desk.roster.ids() == {"1-1", "2-1"}
        assert desk.roster.work_of("2-1") is not None
    (again,) = (span for span in desk.spans if span[0] == 2)
    assert again[1] >= end


async def test_an_event_that_comes_back_while_its_task_ends_waits_for_it(autojump_clock: MockClock) -> None:
    """Taken again while the former task is on its way out, an event has no two tasks, and is known here throughout."""
    async with open_desk() as desk:
        desk.hand_on("1-1", 1)
        await trio.sleep(10)
        desk.handler.cancel("1-1", "NotOurs")
        await trio.sleep(1)
        desk.hand_on("1-1", 2)
        await trio.sleep(1)
        assert desk.roster.ids() == {"1-1"}
        await trio.sleep(5)
        assert desk.roster.ids() == {"1-1"}
        assert [span[0] for span in desk.spans] == [1]
    assert desk.spans[1][1] >= desk.spans[0][2]


async def test_a_crash_of_the_loop_loses_no_event(autojump_clock: MockClock) -> None:
    """An event in the hand of a loop that breaks is begun by the next one, before those behind it."""
    async with open_desk() as desk:
        begin, begun = desk.handler._begin, list[str]()

        def begin_at_the_second_try(progress: Progress) -> None:
            begun.append(progress.event_id)
            if len(begun) == 1:
                raise ValueError("a bug")
            begin(progress)

        desk.handler._begin = begin_at_the_second_try  # type: ignore[method-assign]  # a bug, once
        desk.hand_on("1-1", 1)
        desk.hand_on("2-1", 1)
        await trio.sleep(2)
        assert begun == ["1-1", "1-1", "2-1"]
        assert {work.claim.event_id for work in desk.roster} == {"1-1", "2-1"}


@pytest.mark.parametrize("seconds", ["0", "2"])
async def test_what_was_taken_and_not_begun_is_offered(seconds: str, autojump_clock: MockClock) -> None:
    """At the end of a drain events in the handler's hand and in the channel to it are handed over as they came: the
    own ones and handed-over ones clean, those of an owner that went without a word not.
    """
    async with open_scene(drain_seconds=seconds) as scene:
        handler = scene.scaler.rings._handler
        assert handler is not None

        async def wait_for_a_former(event_id: str) -> None:
            await trio.sleep_forever()

        handler._end_former = wait_for_a_former  # type: ignore[method-assign]  # it begins nothing from now on
        fresh = await scene.add(3)
        await trio.sleep(1)
        handed_over = await hand_over_as_another(scene.server, "leaving")
        await hold_as_another(scene.server, "dead")
        scene.server.sessions["dead"] = 0
        await trio.sleep(2)
        assert scene.owners() == ["one"] * 5
        scene.scaler.drain.request("SIGTERM")
        await scene.ended.wait()
        assert scene.owners() == [""] * 5
        clean = {event_id for event_id in scene.server.live_ids() if scene.is_offered_clean(event_id)}
        assert clean == {*fresh, handed_over}
        assert scene.world.writes == []


async def test_an_event_that_waits_for_its_turn_stays_known(autojump_clock: MockClock) -> None:
    """Taken again, and behind another that comes back slowly, an event is ours also when its former task has ended."""
    async with open_desk() as desk:
        for event_id in ("1-1", "2-1"):
            desk.hand_on(event_id, 1)
        await trio.sleep(10)
        desk.handler.cancel("2-1", "NotOurs")
        await trio.sleep(2)
        desk.hand_on("1-1", 2)
        desk.hand_on("2-1", 2)
        await trio.sleep(2)
        assert desk.roster.ids() == {"1-1", "2-1"}


async def test_an_event_found_twice_is_begun_once(autojump_clock: MockClock) -> None:
    """The same taking, handed on a second time, leaves the work on it alone: its progress may be an old one."""
    async with open_desk() as desk:
        desk.hand_on("1-1", 1)
        await trio.sleep(10)
        desk.hand_on("1-1", 1)
        await trio.sleep(10)
        assert desk.spans == []
        assert desk.roster.work_of("1-1") is not None


async def test_an_event_that_came_back_is_found_once(autojump_clock: MockClock) -> None:
    """An event taken again that waits behind another in the channel is not found a second time, when its former task
    ends meanwhile.
    """
    async with open_scene() as scene:
        first, second = await scene.add(2)
        begun = await count_begun(scene.scaler)
        begun.clear()
        handler = scene.scaler.rings._handler
        assert handler is not None
        end_former = handler._end_former

        async def end_slowly(event_id: str) -> None:
            if event_id == first:
                await trio.sleep(6)
            await end_former(event_id)

        handler._end_former = end_slowly  # type: ignore[method-assign]  # as with thousands of workers
        await trio.sleep(0.1)  # between two renewals
        one = MemoryStream(scene.server, "one")
        await one.offer([Claim(event_id, "one", 1) for event_id in (first, second)], clean=[True, True])
        await trio.sleep(0.5)
        assert scene.owners() == ["one", "one"]
        scene.scaler.rings.lose(frozenset([second]))
        await trio.sleep(20)
        assert begun == {first: 1, second: 1}
