"""Cancelling an event: what runs ends as terminated, what ended says so, what nobody knows is refused."""

from collections.abc import Sequence
from typing import Any

import trio
from trio.testing import MockClock

from ottoscaler.events import BadEntry
from ottoscaler.stream.base import Candidate, Claim, Registration
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
    """An id that nobody knows for some seconds is a bad entry that says so."""
    async with open_stage() as stage:
        bad = await stage.work(await stage.add(type="cancel", event_id="1-1")).run()
        assert isinstance(bad, BadEntry)
        assert (bad.cause, bad.reason[:28]) == ("UnknownEvent", "field event_id is '1-1', exp")
