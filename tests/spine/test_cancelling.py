"""Cancelling an event: what runs ends as terminated, what ended says so, what nobody knows is refused."""

from collections.abc import Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.errors import Unavailable
from ottoscaler.events import BadEntry
from ottoscaler.stream.base import Candidate, Claim, Registration
from ottoscaler.stream.progress import Progress
from tests.spine.stage import heeding, open_stage
from tests.spine.world import long_world


async def test_a_running_event_is_cancelled(autojump_clock: MockClock) -> None:
    """All its workers end as terminated with cause Cancelled, started or not; the cancel succeeds and names them."""
    async with open_stage(long_world()) as stage, heeding(stage) as nursery:
        stage.site.slots.limit = 2
        up = await stage.add(type="scale_up", pod_count=4)
        nursery.start_soon(stage.work(up).run)
        await trio.sleep(5)
        assert await stage.work(await stage.add(type="cancel", event_id=up.event_id)).run() is None
        await trio.sleep(5)
        results = {result["type"]: result for result in await stage.results()}
        assert (results["cancel"]["status"], results["cancel"]["terminated"]) == ("succeeded", "4")
        assert results["cancel"]["cancels"] == up.event_id
        assert results["scale_up"]["status"] == "terminated"
        assert {worker["cause"] for worker in results["scale_up"]["workers"]} == {"Cancelled"}
        assert len(stage.world.runs) == 2
        assert await stage.pods_left() == []


async def test_a_worker_that_ends_before_it_hears_of_the_cancel_is_cancelled(autojump_clock: MockClock) -> None:
    """Its pod went between the mark and the notice: the mark explains the end, by the cause that stands in it."""
    async with open_stage(long_world()) as stage, stage.beside("s2").open() as other, trio.open_nursery() as nursery:
        up = await stage.add(type="scale_up", pod_count=1)
        nursery.start_soon(stage.work(up).run)
        await trio.sleep(5)
        nursery.start_soon(other.work(await other.add(type="cancel", event_id=up.event_id)).run)
        await trio.sleep(0.05)
        stage.world.remove(f"otto-agent-1-{up.event_id}")
        await trio.sleep(5)
        (worker,) = next(result for result in await stage.results() if result["type"] == "scale_up")["workers"]
        assert (worker["cause"], worker["reason"]) == ("Cancelled", "its event was cancelled")
        nursery.cancel_scope.cancel(reason="seen enough")


async def test_the_first_worker_is_marked_last(autojump_clock: MockClock) -> None:
    """Whether all of a waiting event is settled is asked after each mark, from its first worker on: marked last, the
    10,000 marks of a large event cost 10,000 looks and not 50 million, for which Redis would stand still.
    """
    async with open_stage() as stage:
        up = await stage.stream.add_event([("type", "scale_up"), ("pod_count", "700")], "up")
        await stage.stream.read(1, 1.0)
        await stage.stream.register([Registration(up, "work", (), "", 700, offer=True)])
        asked: list[int] = []
        mark = stage.stream.mark_victims

        async def note(claim: Claim, wanted: int, candidates: Sequence[Candidate], **how: Any) -> Any:
            asked.extend(candidate.index for candidate in candidates)
            return await mark(claim, wanted, candidates, **how)

        stage.stream.mark_victims = note  # type: ignore[method-assign]  # to see what is asked
        assert await stage.work(await stage.add(type="cancel", event_id=up)).run() is None
        assert asked == list(range(700, 0, -1))
        (result,) = await stage.results()
        assert result["terminated"] == "700"


async def test_an_event_that_ended_is_named_with_its_end(autojump_clock: MockClock) -> None:
    """Cancelling what has ended stops nothing and says when it ended."""
    async with open_stage() as stage:
        up = await stage.add(type="scale_up", pod_count=1)
        await stage.work(up).run()
        await stage.work(await stage.add(type="cancel", event_id=up.event_id)).run()
        ended, cancel = await stage.results()
        assert (cancel["status"], cancel["terminated"]) == ("succeeded", "0")
        assert cancel["note"] == f"event {up.event_id} had ended at {ended['completed_at']} (succeeded)"


async def test_an_unknown_event_cannot_be_cancelled(autojump_clock: MockClock) -> None:
    """An id that stands nowhere is refused at once, and so is a number that is too large for one."""
    async with open_stage() as stage:
        begun = trio.current_time()
        for target in ("1-1", "99999999999999999999-0"):
            bad = await stage.work(await stage.add(type="cancel", event_id=target)).run()
            assert isinstance(bad, BadEntry)
            assert (bad.cause, bad.reason) == (
                "UnknownEvent",
                f"field event_id is '{target}', expected the id of an event that waits, runs or ended within a day",
            )
        assert trio.current_time() - begun < 1


async def test_a_command_cannot_be_cancelled(autojump_clock: MockClock) -> None:
    """A cancel of a scale_down that runs is refused at once, by what it is."""
    async with open_stage(long_world()) as stage:
        down = await stage.add(type="scale_down", pod_count=1)
        begun = trio.current_time()
        bad = await stage.work(await stage.add(type="cancel", event_id=down.event_id)).run()
        assert isinstance(bad, BadEntry)
        assert bad.reason == (
            f"field event_id is '{down.event_id}', expected that of a scale_up or a pipeline: "
            "this event is a scale_down, which cannot be cancelled"
        )
        assert trio.current_time() == begun


async def test_silence_is_no_answer(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that runs is cancelled also where Redis is silent for long while the cancel looks for it."""
    async with open_stage(long_world()) as stage, heeding(stage) as nursery:
        up = await stage.add(type="scale_up", pod_count=1)
        nursery.start_soon(stage.work(up).run)
        await trio.sleep(3)
        cancel = stage.work(await stage.add(type="cancel", event_id=up.event_id))
        read, silent_until = stage.stream.read_progress, trio.current_time() + 60

        async def be_silent(event_id: str) -> Progress | None:
            if trio.current_time() < silent_until:
                raise Unavailable("Redis is away", address="redis")
            return await read(event_id)

        monkeypatch.setattr(stage.stream, "read_progress", be_silent)
        assert await cancel.run() is None
        await trio.sleep(5)
        assert {result["type"]: result["status"] for result in await stage.results()} == {
            "cancel": "succeeded",
            "scale_up": "terminated",
        }


async def test_an_entry_in_dead_hands_is_waited_for(autojump_clock: MockClock) -> None:
    """The entry of an event may have been read by a process that died: however long the lease is, its cancel waits."""
    async with open_stage(long_world()) as stage, heeding(stage) as nursery:
        await stage.stream.add_event([("type", "scale_up"), ("pod_count", "1")], "up")
        (entry,) = await stage.stream.read(1, 1.0)
        cancel = stage.work(await stage.add(type="cancel", event_id=entry.id))
        nursery.start_soon(cancel.run)
        await trio.sleep(60)
        assert len(stage.stream._server.progress) == 1
        nursery.start_soon(stage.work(await stage.hold(entry)).run)
        await trio.sleep(10)
        assert [result["status"] for result in await stage.results()].count("terminated") == 1
        assert stage.stream._server.progress == {}
