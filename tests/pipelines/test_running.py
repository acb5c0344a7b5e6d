"""Pipelines over whole scalers and the twins: order, failures, cancels, what is told, and what a kill costs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.events import Event, Limits, parse_entry
from ottoscaler.pipelines.running import PipelineRun
from ottoscaler.spine.ledger import NotOurs
from ottoscaler.stream.base import Claim, Closing, Registration
from ottoscaler.stream.entry_id import parse_id
from ottoscaler.stream.progress import Progress
from tests.pipelines.theatre import FAILING, LONG, Theatre, changes, stage, states, text_of
from tests.spine.scaler import Scaler
from tests.spine.stage import Stage, open_stage
from tests.spine.world import Plan


@asynccontextmanager
async def playing(theatre: Theatre, *names: str) -> AsyncIterator[dict[str, trio.CancelScope]]:
    """Scalers at work; the scope of each, to kill it."""
    lives = {name: trio.CancelScope() for name in names or ("one",)}

    async def live(name: str) -> None:
        with lives[name]:
            await Scaler(theatre.world, theatre.server, name, drain_seconds="1").run()

    async with trio.open_nursery() as nursery:
        await nursery.start(theatre.world.run)
        for name in lives:
            nursery.start_soon(live, name)
        yield lives
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_stages_run_in_the_order_of_their_needs(autojump_clock: MockClock) -> None:
    """A diamond: what needs nothing begins, independent stages run side by side, the last waits for both."""
    theatre = Theatre()
    async with playing(theatre):
        event_id = await theatre.send(
            stage("build", workers=2), stage("unit", "build"), stage("lint", "build"), stage("deploy", "unit", "lint")
        )
        result = await theatre.wait_result(event_id)
        await trio.sleep(10)
        assert theatre.world.pods == {}
    assert (result["type"], result["status"], result["requested"], result["succeeded"]) == (
        *("pipeline", "succeeded"),
        *("4", "4"),
    )
    assert set(states(result).values()) == {"completed"}
    ended = {stage_id: each["completed_at"] for stage_id, each in result["stages"].items()}
    began = {stage_id: each["started_at"] for stage_id, each in result["stages"].items()}
    assert ended["build"] <= min(began["unit"], began["lint"])
    assert began["unit"] < ended["lint"]
    assert began["lint"] < ended["unit"]
    assert max(ended["unit"], ended["lint"]) <= began["deploy"]
    assert len(theatre.world.runs) == 5


async def test_every_change_is_told_in_order(autojump_clock: MockClock) -> None:
    """From the first entry on: pending, running, its progress, the end with its pods, times and metrics."""
    theatre = Theatre(late=FAILING)
    async with playing(theatre):
        event_id = await theatre.send(stage("first", workers=2), stage("late", "first"), stage("never", "late"))
        result = await theatre.wait_result(event_id)
        news = await theatre.news(event_id)
    assert (result["status"], states(result)) == (
        "partial",
        {"first": "completed", "late": "failed", "never": "skipped"},
    )
    assert [each["status"] for each in news[:3]] == ["pending"] * 3
    assert changes(news, "first") == ["pending", "running", "completed"]
    assert changes(news, "late") == ["pending", "running", "failed"]
    assert changes(news, "never") == ["pending", "skipped"]
    (end,) = (each for each in news if each["status"] == "completed")
    first_event = result["stages"]["first"]["event_id"]
    assert end["worker_pod_names"] == [f"otto-agent-1-{first_event}", f"otto-agent-2-{first_event}"]
    assert end["progress_percentage"] == 100
    assert end["metrics"] == {
        "duration_seconds": 1,
        "successful_workers": 2,
        "failed_workers": 0,
        "total_workers": 2,
    }
    (failed,) = (each for each in news if each["status"] == "failed")
    assert failed["error_message"].startswith("ExitCode: 1 of 1 workers failed: ")
    (skipped,) = (each for each in news if each["status"] == "skipped")
    assert skipped["error_message"] == "Skipped: it needs stage 'late', which was not completed"
    assert [each["timestamp"] for each in news] == sorted(each["timestamp"] for each in news)


async def test_a_failed_stage_stops_only_what_needs_it(autojump_clock: MockClock) -> None:
    """What depends on it is skipped, directly and through others; the others go on to their ends."""
    theatre = Theatre(bad=FAILING)
    async with playing(theatre):
        event_id = await theatre.send(
            stage("bad"), stage("after", "bad"), stage("far", "after", "good"), stage("good"), stage("more", "good")
        )
        result = await theatre.wait_result(event_id)
    assert states(result) == {
        "bad": "failed",
        "after": "skipped",
        "far": "skipped",
        "good": "completed",
        "more": "completed",
    }
    assert (result["status"], result["succeeded"], result["failed"], result["terminated"]) == ("partial", "2", "1", "0")


async def test_failed_workers_of_a_stage_are_retried_by_its_own_policy(autojump_clock: MockClock) -> None:
    """Only what failed runs again, after the stage's own delay, within the stage's one event."""
    theatre = Theatre(flaky=FAILING)
    async with playing(theatre):
        event_id = await theatre.send(
            stage("flaky", workers=2, retry_policy={"max_attempts": 3, "retry_delay_seconds": 20})
        )
        began = trio.current_time()
        result = await theatre.wait_result(event_id)
        news = await theatre.news(event_id)
    assert states(result) == {"flaky": "failed"}
    assert trio.current_time() - began > 40
    assert Counter(index for _, index, _ in theatre.world.runs) == {1: 3, 2: 3}
    assert changes(news, "flaky") == ["pending", "running", "retrying", "failed"]
    (retrying,) = (each for each in news if each["status"] == "retrying")
    assert retrying["message"] == "0 of 2 workers have ended; failed attempts that are followed by others: 2"


async def test_a_cancelled_pipeline_ends_what_runs_and_begins_nothing(autojump_clock: MockClock) -> None:
    """Running stages end as cancelled with their workers stopped, the others without having begun; it says so."""
    theatre = Theatre(long=LONG)
    async with playing(theatre):
        event_id = await theatre.send(stage("done"), stage("long", "done", workers=3), stage("after", "long"))
        await trio.sleep(20)
        cancel = await theatre.producer.add_event([("type", "cancel"), ("event_id", event_id)], "cancel")
        result = await theatre.wait_result(event_id)
        news = await theatre.news(event_id)
        with trio.fail_after(60):
            while (ending := await theatre.producer.read_ending(cancel)) is None:  # noqa: ASYNC110 - virtual time
                await trio.sleep(1)
        await trio.sleep(60)
    assert states(result) == {"done": "completed", "long": "cancelled", "after": "cancelled"}
    assert (result["status"], result["stages"]["long"]["terminated"]) == ("partial", 3)
    assert result["stages"]["long"]["cause"] == "Cancelled"
    assert changes(news, "after") == ["pending", "cancelled"]
    assert (ending[1]["status"], ending[1]["terminated"]) == ("succeeded", "2")
    assert theatre.world.pods == {}
    assert not [key for key in theatre.server.as_keys() if ":progress:" in key or ":notices:" in key]


async def test_a_pipeline_is_cancelled_before_anybody_began_it(autojump_clock: MockClock) -> None:
    """Its stages end as cancelled, under their own names, and are told so."""
    async with open_stage() as stage_, trio.open_nursery() as nursery:
        entry = (("type", "pipeline"), ("otto.pipeline", text_of(stage("a"), stage("b", "a"))))
        event_id = await stage_.stream.add_event(entry, "p")
        await stage_.stream.read(1, 0)
        await stage_.stream.register([Registration(event_id, "pipelines", entry, "", 2, offer=True)])
        nursery.start_soon(stage_.work(await stage_.add(type="cancel", event_id=event_id)).run)
        await trio.sleep(1)
        (taken,) = (await stage_.stream.tend(0, 1, 0, expire=False, audit=False)).taken
        await pipeline_run(stage_, taken, nursery).run()
        await trio.sleep(5)
        results = {result["type"]: result for result in await stage_.results()}
        nursery.cancel_scope.cancel(reason="the test is over")
    assert results["pipeline"]["status"] == "terminated"
    stages = json.loads(results["pipeline"]["stages"])
    assert [(each["stage_id"], each["status"], each["cause"]) for each in stages] == [
        ("a", "cancelled", "Cancelled"),
        ("b", "cancelled", "Cancelled"),
    ]
    assert {worker["name"] for worker in results["cancel"]["workers"]} == {"a", "b"}


def pipeline_run(stage_: Stage, progress: Progress, nursery: trio.Nursery) -> PipelineRun:
    """The work on a pipeline, as the handler makes it."""
    event = parse_entry(progress.event_id, tuple((n.encode(), v.encode()) for n, v in progress.entry), Limits())
    assert isinstance(event, Event)
    nursery.start_soon(stage_.site.standings.run)
    claim = Claim(event.id, stage_.session, progress.epoch)
    return PipelineRun(stage_.site, stage_.roster, event, progress, claim)


async def hold_pipeline(stage_: Stage, nursery: trio.Nursery, text: str) -> PipelineRun:
    """The work on a pipeline that this scaler has just registered."""
    entry = (("type", "pipeline"), ("otto.pipeline", text))
    event_id = await stage_.stream.add_event(entry, "p")
    await stage_.stream.read(1, 0)
    await stage_.stream.register([Registration(event_id, "pipelines", entry, "", 2)])
    return pipeline_run(stage_, Progress(event_id, "pipelines", stage_.session, 1, entry, "", 2), nursery)


async def test_a_pipeline_that_was_lost_before_its_first_stage_begins_nothing(autojump_clock: MockClock) -> None:
    """An owner whose claim is void when it would start a stage ends there, and adds no event."""
    async with open_stage() as stage_, trio.open_nursery() as nursery:
        run = await hold_pipeline(stage_, nursery, text_of(stage("a")))
        start, asked = stage_.stream.start_stage, list[str]()

        async def lose_and_start(*words: Any) -> str | None:
            asked.append("start_stage")
            assert len(asked) == 1
            await stage_.stream.offer([run.claim], clean=[True])
            return await start(*words)

        stage_.stream.start_stage = lose_and_start  # type: ignore[method-assign,assignment]  # another owner comes between
        with pytest.raises(NotOurs):
            await run.run()
        assert await stage_.stream.read(1, 0) == []
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_stage_that_nobody_had_registered_is_stopped_later(autojump_clock: MockClock) -> None:
    """Cancelled between the adding of its event and the registration, a stage is stopped once it has workers."""
    async with open_stage() as stage_, trio.open_nursery() as nursery:
        run = await hold_pipeline(stage_, nursery, text_of(stage("a", workers=2)))
        nursery.start_soon(run.run)
        await trio.sleep(1)
        (added,) = await stage_.stream.read(1, 0)
        nursery.start_soon(stage_.work(await stage_.add(type="cancel", event_id=run.claim.event_id)).run)
        await trio.sleep(1)
        run.notice()
        await trio.sleep(1)
        await stage_.hold(added)
        await trio.sleep(1)
        progress = await stage_.stream.read_progress(added.id)
        nursery.cancel_scope.cancel(reason="the test is over")
    assert progress is not None
    assert sorted(progress.stops) == [1, 2]


async def test_a_stage_whose_event_is_refused_has_failed(autojump_clock: MockClock) -> None:
    """Where it becomes a dead letter the stage fails for the same cause; where nobody knows its end, it says so."""
    async with open_stage() as stage_, trio.open_nursery() as nursery:
        entry = (("type", "pipeline"), ("otto.pipeline", text_of(stage("a"), stage("b"))))
        event_id = await stage_.stream.add_event(entry, "p")
        await stage_.stream.read(1, 0)
        await stage_.stream.register([Registration(event_id, "pipelines", entry, "", 2)])
        held = Progress(event_id, "pipelines", stage_.session, 1, entry, "", 2)
        nursery.start_soon(pipeline_run(stage_, held, nursery).run)
        await trio.sleep(1)
        (first,) = await stage_.stream.read(1, 0)
        why = (("cause", "PolicyRefused"), ("reason", "field x is y"))
        await stage_.stream.close(Closing(first.id, "dlq", why))
        stage_.stream._server.events.trim(0)
        await trio.sleep(5)
        (result,) = await stage_.results()
        nursery.cancel_scope.cancel(reason="the test is over")
    assert result["status"] == "failed"
    assert [(each["cause"], each["reason"]) for each in json.loads(result["stages"])] == [
        ("PolicyRefused", "field x is y"),
        ("Gone", "nobody knows how it ended: its event is gone"),
    ]


async def test_a_stage_whose_workers_are_stopped_is_cancelled(autojump_clock: MockClock) -> None:
    """A scale_down that takes all workers of a stage ends it, and what needs it is skipped."""
    theatre = Theatre(long=LONG)
    async with playing(theatre):
        event_id = await theatre.send(stage("long"), stage("after", "long"), task_id="t")
        await trio.sleep(5)
        down = [("type", "scale_down"), ("pod_count", "1"), ("task_id", "t")]
        await theatre.producer.add_event(down, "down")
        result = await theatre.wait_result(event_id)
    assert states(result) == {"long": "cancelled", "after": "skipped"}
    assert (result["status"], result["stages"]["long"]["cause"]) == ("terminated", "Stopped")


async def test_another_goes_on_where_the_first_was_killed(autojump_clock: MockClock) -> None:
    """Neither a stage nor a worker is begun again, what was told goes on."""
    theatre = Theatre(second=Plan(start_delay=0.2, duration=30.0))
    async with playing(theatre, "one") as lives:
        event_id = await theatre.send(stage("first"), stage("second", "first"), stage("third", "second"))
        await trio.sleep(12)
        lives["one"].cancel(reason="kill -9")
        await trio.sleep(5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Scaler(theatre.world, theatre.server, "two", drain_seconds="1").run)
            result = await theatre.wait_result(event_id)
            news = await theatre.news(event_id)
            nursery.cancel_scope.cancel(reason="the test is over")
    assert set(states(result).values()) == {"completed"}
    assert max(Counter(theatre.world.runs).values()) == 1
    assert len({event for event, _, _ in theatre.world.runs}) == 3
    for stage_id in ("first", "second", "third"):
        assert changes(news, stage_id) == ["pending", "running", "completed"]
    told = [(each["stage_id"], each["message"], str(each.get("worker_pod_names"))) for each in news]
    assert len(told) == len(set(told))


async def test_owners_that_die_are_not_held_against_a_pipeline(autojump_clock: MockClock) -> None:
    """Five of them are killed, one after the other, while a stage runs: the sixth brings it to its good end."""
    theatre = Theatre(slow=Plan(start_delay=0.2, duration=100.0))
    async with trio.open_nursery() as nursery:
        await nursery.start(theatre.world.run)
        event_id = await theatre.send(stage("slow"))
        for number in range(5):
            with trio.move_on_after(12):
                await Scaler(theatre.world, theatre.server, f"r{number}").run()
        nursery.start_soon(Scaler(theatre.world, theatre.server, "last").run)
        result = await theatre.wait_result(event_id)
        nursery.cancel_scope.cancel(reason="the test is over")
    assert (result["status"], len(theatre.world.runs)) == ("succeeded", 1)


async def test_stages_need_no_room_that_their_pipelines_take(autojump_clock: MockClock) -> None:
    """With one scaling at a time, ten pipelines that wait still come to their ends."""
    theatre = Theatre()
    scaler = Scaler(theatre.world, theatre.server, "one", max_events="1", drain_seconds="1")
    async with trio.open_nursery() as nursery:
        await nursery.start(theatre.world.run)
        ids = [await theatre.send(stage("a"), stage("b", "a"), pipeline_id=f"p{number}") for number in range(10)]
        nursery.start_soon(scaler.run)
        results = [await theatre.wait_result(event_id) for event_id in ids]
        nursery.cancel_scope.cancel(reason="the test is over")
    assert {result["status"] for result in results} == {"succeeded"}


async def test_a_pipeline_whose_stage_waits_for_room_is_cancelled(autojump_clock: MockClock) -> None:
    """A stage whose event nobody began ends at once, and no worker of it ever runs."""
    theatre = Theatre()
    theatre.plans[""] = LONG
    async with trio.open_nursery() as nursery:
        await nursery.start(theatre.world.run)
        nursery.start_soon(Scaler(theatre.world, theatre.server, "one", max_events="1", drain_seconds="1").run)
        await theatre.producer.add_event([("type", "scale_up"), ("pod_count", "1")], "long")
        await trio.sleep(2)
        event_id = await theatre.send(stage("a", workers=3), stage("b", "a"))
        await trio.sleep(5)
        await theatre.producer.add_event([("type", "cancel"), ("event_id", event_id)], "cancel")
        result = await theatre.wait_result(event_id)
        assert states(result) == {"a": "cancelled", "b": "cancelled"}
        assert (result["status"], len(theatre.world.runs)) == ("terminated", 1)
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_pipeline_id_stands_for_one_pipeline(autojump_clock: MockClock) -> None:
    """A second entry of the same content repeats the first, one of other content is refused; neither runs anything."""
    theatre = Theatre()
    async with playing(theatre):
        ids = []
        for number, name in enumerate(("a", "a", "b")):
            pairs = [("type", "pipeline"), ("otto.pipeline", text_of(stage(name)))]
            ids.append(await theatre.producer.add_event(pairs, str(number)))
            await trio.sleep(20)
        endings = [await theatre.producer.read_ending(event_id) for event_id in ids]
    (first, _), (second, repeated), (third, refused) = (ending for ending in endings if ending)
    assert (first, second, third) == ("results", "results", "dlq")
    assert (repeated["status"], repeated["original"]) == ("already_processed", ids[0])
    assert refused["cause"] == "RequestMismatch"
    assert len(theatre.world.runs) == 1


async def test_a_refused_pipeline_can_be_replayed(autojump_clock: MockClock) -> None:
    """A dead letter that is replayed is a pipeline again, under the id that it had, and its result says of what."""
    theatre = Theatre()
    async with playing(theatre):
        pairs = [("type", "pipeline"), ("otto.pipeline", text_of(stage("a"))), ("otto.none", "x")]
        event_id = await theatre.producer.add_event(pairs, "p")
        await trio.sleep(5)
        letter = await theatre.producer.dead_letter_of(event_id)
        assert letter
        theatre.server.dead_letters.entries[parse_id(letter)] = tuple(
            (name, value.replace(b',["otto.none","x"]', b"")) if name == b"entry" else (name, value)
            for name, value in theatre.server.dead_letters.entries[parse_id(letter)]
        )
        (replayed,) = await theatre.producer.replay_dead_letters([letter])
        result = await theatre.wait_result(replayed.event_id)
    assert (result["status"], result["replay_of"]) == ("succeeded", event_id)


async def test_a_stage_that_a_newer_version_ended_waits_for_who_can_read_it(autojump_clock: MockClock) -> None:
    """What is written in another way ends neither the stage nor the pipeline; whoever can read it goes on."""
    theatre = Theatre()
    async with playing(theatre, "old") as lives:
        event_id = await theatre.send(stage("a"), stage("b", "a"))
        while not theatre.server.results.entries:  # noqa: ASYNC110 - virtual time
            await trio.sleep(0.01)
        (id_,) = theatre.server.results.entries
        pairs = theatre.server.results.entries[id_]
        theatre.server.results.entries[id_] = tuple((name, b"2" if name == b"v" else b"?") for name, _ in pairs)
        await trio.sleep(60)
        assert theatre.server.progress[event_id]["owner"]
        assert changes(await theatre.news(event_id), "a") == ["pending", "running"]
        lives["old"].cancel(reason="replaced")
        theatre.server.results.entries[id_] = pairs
        async with playing(theatre, "new"):
            result = await theatre.wait_result(event_id)
        assert states(result) == {"a": "completed", "b": "completed"}
