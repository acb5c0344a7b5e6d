"""What an owner left undone, and what the next one makes of it: no worker runs again, whatever came between them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.spine.ledger import NotOurs
from ottoscaler.stream.base import Candidate, Claim, Closing, Writing, Written
from ottoscaler.stream.progress import Progress
from tests.spine.stage import Stage, name_pod, open_stage
from tests.spine.test_retries import failing, with_policy
from tests.spine.world import Plan, World, long_world


@asynccontextmanager
async def taken_over(first: Stage, event_id: str) -> AsyncIterator[tuple[Stage, Progress]]:
    """A second scaler that takes the event from the first, which went without a word."""
    first.stream._server.sessions[first.session] = 0
    second = first.beside("s2")
    async with second.open():
        found = (await second.stream.tend(1, 1, expire=True, audit=False)).taken
        (taken,) = (progress for progress in found if progress.event_id == event_id)
        assert (taken.epoch, taken.clean) == (2, False)
        yield second, taken


async def sent_and_died(first: Stage) -> Progress:
    """An event of one worker whose owner dies with its create under way, which is carried out 20 s later."""
    progress = await first.add(type="scale_up", pod_count=1)
    first.world.late_creates.append(20.0)
    with trio.move_on_after(0.05):
        await first.work(progress).run()
    return progress


async def mark_stopped(second: Stage, event_id: str) -> None:
    """A scale_down chooses the first worker of an event."""
    down = await second.add(type="scale_down", pod_count=1)
    claim = Claim(down.event_id, second.session, down.epoch)
    await second.stream.mark_victims(claim, 1, [Candidate(event_id, 1, "")], last=True)


async def test_a_pod_that_only_others_saw_is_not_created_again(autojump_clock: MockClock) -> None:
    """Its owner died before it had recorded the pod, which then ran and was deleted by somebody: the next owner's watch
    has shown it, so that it runs no second time.
    """
    async with open_stage(long_world()) as first:
        second = first.beside("s2")
        async with second.open():
            progress = await first.add(type="scale_up", pod_count=1)
            with trio.move_on_after(0.008):
                await first.work(progress).run()
            await trio.sleep(1)
            assert first.world.runs == [(progress.event_id, 1, 1)]
            first.world.remove(name_pod(progress.event_id, 1, 1))
            first.stream._server.sessions[first.session] = 0
            (taken,) = (await second.stream.tend(1, 1, expire=True, audit=False)).taken
            assert not taken.accepted
            await second.work(taken).run()
            (result,) = await second.results()
            assert (result["workers"][0]["cause"], len(first.world.runs)) == ("DeletedByOther", 1)


async def test_a_worker_whose_pod_vanished_between_two_owners_is_not_run_again(autojump_clock: MockClock) -> None:
    """An accepted attempt without a pod ends as DeletedByOther: its pod is not created a second time."""
    async with open_stage(World(lambda labels: Plan(duration=60))) as first:
        progress = await first.add(type="scale_up", pod_count=1)
        with trio.move_on_after(5):
            await first.work(progress).run()
        (name,) = first.world.pods
        first.world.remove(name)
        async with taken_over(first, progress.event_id) as (second, taken):
            await second.work(taken).run()
            (result,) = await second.results()
            assert result["workers"][0]["cause"] == "DeletedByOther"
            assert len(first.world.runs) == 1


async def test_a_create_of_a_dead_owner_that_comes_late_runs_nothing(autojump_clock: MockClock) -> None:
    """A create whose sender died before any answer, carried out when the worker has ended already, meets its pod."""
    async with open_stage() as first:
        progress = await sent_and_died(first)
        assert first.world.pods == {}
        async with taken_over(first, progress.event_id) as (second, taken):
            await second.work(taken).run()
            assert [result["status"] for result in await second.results()] == ["succeeded"]
            await trio.sleep(40)
            assert len(first.world.runs) == 1


async def test_a_worker_that_is_stopped_before_its_new_owner_began_it_is_fenced(autojump_clock: MockClock) -> None:
    """The create that a dead owner had sent comes when the worker has long ended as stopped: its pod is undone."""
    async with open_stage() as first:
        progress = await sent_and_died(first)
        async with taken_over(first, progress.event_id) as (second, taken):
            second.site.slots.limit = 0
            work = second.work(taken)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work.run)
                await trio.sleep(1)
                await mark_stopped(second, progress.event_id)
                work.notice()
            assert [result["status"] for result in await second.results()] == ["terminated"]
            await trio.sleep(40)
            assert first.world.runs == []
            assert first.world.pods == {}


async def test_a_stop_between_two_attempts_outlasts_the_owner(autojump_clock: MockClock) -> None:
    """A worker that was cancelled while it waited to be run again is not run again by a new owner."""
    world = World(lambda labels: Plan(exit_code=1) if labels["ottoscaler/attempt"] == "1" else Plan(duration=600))
    async with open_stage(world) as first:
        with_policy(first, worker_max_attempts=2)
        progress = await first.add(type="scale_up", pod_count=1)
        with trio.move_on_after(3):
            await first.work(progress).run()
        cancel = await first.add(type="cancel", event_id=progress.event_id)
        with trio.move_on_after(1):
            await first.work(cancel).run()
        async with taken_over(first, progress.event_id) as (second, taken):
            assert (len(taken.attempts), list(taken.stops)) == (1, [1])
            with_policy(second, worker_max_attempts=2)
            with trio.fail_after(5):
                await second.work(taken).run()
            (result,) = await second.results()
            assert (result["status"], result["workers"][0]["cause"]) == ("terminated", "Cancelled")
            assert len(world.runs) == 1


async def test_an_accepted_attempt_is_fenced_by_whoever_sees_its_end(autojump_clock: MockClock) -> None:
    """An unanswered create before the accepted one is known to the next owner: the finished pod keeps its name."""
    async with open_stage(World(lambda labels: Plan(duration=5))) as first:
        progress = await first.add(type="scale_up", pod_count=1)
        first.world.late_creates.append(20.0)
        with trio.move_on_after(2):
            await first.work(progress).run()
        assert len(first.world.runs) == 1
        async with taken_over(first, progress.event_id) as (second, taken):
            await second.work(taken).run()
            await trio.sleep(40)
            assert len(first.world.runs) == 1


async def test_an_attempt_that_a_new_owner_planned_needs_no_fence(autojump_clock: MockClock) -> None:
    """Only what the dead owner may have sent is fenced: later attempts leave no pod, and a hand-over is clean."""
    world = World(lambda labels: Plan(duration=5, exit_code=1 if labels["ottoscaler/attempt"] == "1" else 0))
    async with open_stage(world) as first:
        progress = await first.add(type="scale_up", pod_count=1)
        with trio.move_on_after(2):
            await first.work(progress).run()
        async with taken_over(first, progress.event_id) as (second, taken):
            with_policy(second, worker_max_attempts=2)
            work = second.work(taken)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work.run)
                await trio.sleep(4.6)
                assert (len(world.runs), work.is_clean) == (1, True)
            assert [result["status"] for result in await second.results()] == ["succeeded"]
            assert await second.pods_left() == []


async def test_an_end_that_a_dead_owner_recorded_stays_fenced(autojump_clock: MockClock) -> None:
    """The pod of an ended worker is kept by the next owner, too, while a create of it may still be carried out."""
    world = World(lambda labels: Plan(duration=1 if labels["ottoscaler/index"] == "1" else 10))
    async with open_stage(world) as outer:
        async with Stage(world, outer.stream._server, "dead").open() as first:
            progress = await first.add(type="scale_up", pod_count=2)
            world.late_creates += [30.0, 30.0]
            with trio.move_on_after(5):
                await first.work(progress).run()
        async with taken_over(first, progress.event_id) as (second, taken):
            assert list(taken.outcomes) == [1]
            await second.work(taken).run()
            await trio.sleep(40)
            assert len(world.runs) == 2


async def test_an_end_that_was_recorded_without_a_fence_needs_none(autojump_clock: MockClock) -> None:
    """A name that another has, as its owner found before it died, is neither guarded nor freed by the next owner."""
    async with open_stage(World(lambda labels: Plan(duration=10))) as first:
        progress = await first.add(type="scale_up", pod_count=2)
        theirs = name_pod(progress.event_id, 1, 1)
        labels = {"ottoscaler/event-id": "1-1", "ottoscaler/index": "1", "ottoscaler/attempt": "1"}
        first.world.create({"metadata": {"name": theirs, "labels": labels}})
        with trio.move_on_after(5):
            await first.work(progress).run()
        async with taken_over(first, progress.event_id) as (second, taken):
            assert [ended["cause"] for ended in taken.outcomes.values()] == ["NameTaken"]
            await second.work(taken).run()
            assert await second.stream.list_fences() == []
            assert theirs not in second.guard
            assert await second.pods_left() == [theirs]


async def run_with_a_late_create(stage: Stage) -> None:
    """A worker whose pod somebody deletes, with a create of it under way that is carried out at 20 s."""
    stage.world.late_creates.append(20.0)
    work = stage.work(await stage.add(type="scale_up", pod_count=1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work.run)
        await trio.sleep(5)
        (name,) = stage.world.pods
        stage.world.remove(name)


async def test_a_late_create_under_a_free_name_is_undone(autojump_clock: MockClock) -> None:
    """Where no pod keeps the name of an ended attempt, one that appears under it is deleted before it runs."""
    async with open_stage(World(lambda labels: Plan(duration=60))) as stage:
        await run_with_a_late_create(stage)
        await trio.sleep(30)
        assert len(stage.world.runs) == 1
        assert stage.world.pods == {}


async def test_every_replica_guards_the_names_of_closed_events(autojump_clock: MockClock) -> None:
    """The replica that closed the event may be gone when the late create comes: another one undoes it."""
    async with open_stage(World(lambda labels: Plan(duration=60))) as outer:
        async with Stage(outer.world, outer.stream._server, "maker").open() as maker:
            await run_with_a_late_create(maker)
        await trio.sleep(30)
        assert len(outer.world.runs) == 1
        assert outer.world.pods == {}


async def test_an_unanswered_create_is_handed_on_with_the_event(autojump_clock: MockClock) -> None:
    """A hand-over says that a create may still be carried out, from owner to owner, until somebody has met it."""
    async with open_stage() as first:
        progress = await first.add(type="scale_up", pod_count=1)
        first.world.late_creates.append(20.0)
        work = first.work(progress)
        with trio.move_on_after(0.05):
            await work.run()
        await first.stream.offer([work.claim], clean=[work.is_clean])
        second = first.beside("second")
        async with second.open():
            taken = await second.take()
            second.site.slots.limit = 0
            work = second.work(taken)
            with trio.move_on_after(1):
                await work.run()
            await second.stream.offer([work.claim], clean=[work.is_clean])
        third = first.beside("third")
        async with third.open():
            taken = await third.take()
            await third.work(taken).run()
            await trio.sleep(40)
            assert len(first.world.runs) == 1


async def never_answer(writings: Sequence[Writing]) -> list[Written]:
    """A record that Redis does not hear of."""
    await trio.sleep_forever()
    raise AssertionError


async def test_a_fence_outlasts_a_hand_over_that_cuts_off_its_record(autojump_clock: MockClock) -> None:
    """A worker that was stopped before it began, its end not yet written down at a hand-over, is fenced by the next."""
    async with open_stage() as first:
        progress = await sent_and_died(first)
        async with taken_over(first, progress.event_id) as (second, taken):
            second.site.slots.limit = 0
            work = second.work(taken)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work.run)
                await trio.sleep(1)
                await mark_stopped(second, progress.event_id)
                second.stream.record = never_answer  # type: ignore[method-assign]  # Redis takes its time
                work.notice()
                await trio.sleep(1)
                nursery.cancel_scope.cancel(reason="a drain")
            await second.stream.offer([work.claim], clean=[work.is_clean])
        third = first.beside("third")
        async with third.open():
            await third.work(await third.take()).run()
            assert [result["status"] for result in await third.results()] == ["terminated"]
            await trio.sleep(40)
            assert (first.world.runs, first.world.pods) == ([], {})


async def test_a_hand_over_without_an_open_create_leaves_no_fence(autojump_clock: MockClock) -> None:
    """Where every create was answered, the next owner cleans up as any other: no pod stays behind for a minute."""
    async with open_stage(World(lambda labels: Plan(duration=5))) as first:
        progress = await first.add(type="scale_up", pod_count=1)
        work = first.work(progress)
        with trio.move_on_after(2):
            await work.run()
        await first.stream.offer([work.claim], clean=[work.is_clean])
        async with first.beside("s2").open() as second:
            taken = await second.take()
            await second.work(taken).run()
            assert await second.pods_left() == []


async def test_a_former_owner_whose_clock_was_ahead_puts_no_attempt_off(autojump_clock: MockClock) -> None:
    """The next attempt was planned by a clock that is an hour ahead of the new owner's: it waits no longer than any."""
    async with open_stage(failing(1)) as first:
        with_policy(first, worker_max_attempts=2)
        first.site = first.guard._site = replace(first.site, now=lambda: trio.current_time() + 3600)
        progress = await first.add(type="scale_up", pod_count=1)
        with trio.move_on_after(2.5):
            await first.work(progress).run()
        async with taken_over(first, progress.event_id) as (second, taken):
            assert taken.attempts
            with_policy(second, worker_max_attempts=2)
            with trio.fail_after(120):
                await second.work(taken).run()
            assert [result["status"] for result in await second.results()] == ["succeeded"]


async def test_a_stop_that_nobody_heard_reaches_the_next_owner(autojump_clock: MockClock) -> None:
    """A worker that was marked while its owner was dead is stopped by whoever takes the event."""
    async with open_stage(World(lambda labels: Plan(duration=600))) as first, trio.open_nursery() as nursery:
        progress = await first.add(type="scale_up", pod_count=1)
        with trio.move_on_after(5):
            await first.work(progress).run()
        down = first.work(await first.add(type="scale_down", pod_count=1))
        nursery.start_soon(down.run)
        await trio.sleep(1)
        async with taken_over(first, progress.event_id) as (second, taken):
            with trio.fail_after(30):
                await second.work(taken).run()
            assert [result["status"] for result in await second.results()] == ["terminated"]
        nursery.cancel_scope.cancel(reason="the scale_down was taken from it, too")


async def test_an_owner_that_is_none_any_more_begins_nothing(autojump_clock: MockClock) -> None:
    """An event that was lost between its taking and the first step on it is not touched: no pod is made or deleted."""
    async with open_stage() as first:
        progress = await first.add(type="scale_up", pod_count=1)
        async with taken_over(first, progress.event_id) as (second, taken):
            await second.stream.offer([second.work(taken).claim], clean=[True])
            for stage, stale in ((first, progress), (second, taken)):
                with pytest.raises(NotOurs):
                    await stage.work(stale).run()
            assert first.world.writes == []


async def test_an_owner_that_is_none_any_more_ends_nothing(autojump_clock: MockClock) -> None:
    """Who lost its event before the last step is told so there: it counts no end, and writes none."""
    async with open_stage() as first:
        progress = await first.add(type="scale_up", pod_count=1)
        async with taken_over(first, progress.event_id) as (second, _):
            claim = Claim(progress.event_id, first.session, progress.epoch)
            with pytest.raises(NotOurs):
                await first.ledger.close(Closing(progress.event_id, "results", (("status", "succeeded"),), claim))
            assert await second.results() == []
