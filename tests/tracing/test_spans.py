"""What becomes of an event in its trace: one span for each part, wherever it was worked on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from trio.testing import MockClock

from ottoscaler.events import BadEntry, Event
from ottoscaler.retries import RetryPolicy
from ottoscaler.spine.traces import NO_TRACES, Traces
from ottoscaler.stream.memory import MemoryServer
from ottoscaler.trace_context import NO_CONTEXT, TraceContext, is_traceparent
from tests.spine.stage import Stage, heeding
from tests.spine.test_takeover import taken_over
from tests.spine.world import Plan, World
from tests.tracing.recorder import PLACE, Recorder, judge, named

TRACE, PRODUCER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = (TraceContext(f"00-{TRACE}-{PRODUCER}-{flags}", "a=1") for flags in ("01", "00"))
EVENT = Event("1000-0", "scale_up", 1, context=SAMPLED)


@asynccontextmanager
async def open_traced(recorder: Recorder, world: World, server: MemoryServer, name: str) -> AsyncIterator[Stage]:
    """One replica that records."""
    stage = Stage(world, server, name)
    stage.site = replace(stage.site, traces=recorder.replica(trio.current_time))
    async with stage.open():
        yield stage


@asynccontextmanager
async def open_world(world: World) -> AsyncIterator[World]:
    """A cluster."""
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        yield world
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_every_stage_is_in_the_trace(autojump_clock: MockClock) -> None:
    """One trace from the producer: the event, each worker beneath it, and each gap between stages beneath both; the
    result names the event's span.
    """
    recorder = Recorder()
    async with open_world(World()) as world, open_traced(recorder, world, MemoryServer(), "s1") as stage:
        progress = await stage.add(type="scale_up", pod_count=2, task_id="t", **dict(SAMPLED.pairs()))
        await stage.work(progress).run()
        (result,) = await stage.results()
    spans = recorder.spans
    judge(spans, TRACE, PRODUCER)
    (event,) = named(spans, "scale_up otto:scale:events")
    assert result["traceparent"] == f"00-{TRACE}-{event.id}-01"
    assert result["tracestate"] == "a=1"
    workers = named(spans, "worker")
    assert {span.parent for span in workers} == {event.id}
    assert {span.attributes["k8s.pod.name"] for span in workers} == {each["name"] for each in result["workers"]}
    for worker in workers:
        beneath = [span.name for span in sorted(spans, key=lambda span: span.began) if span.parent == worker.id]
        stages = ("accepted", "scheduled", "running", "ended", "recorded", "deleted")
        assert beneath == [f"stage {stage}" for stage in stages]
    assert [span.parent for span in named(spans, "stage closed")] == [event.id]
    assert event.attributes["ottoscaler.outcome"] == "succeeded"
    assert event.attributes["ottoscaler.task_id"] == "t"


async def test_a_failed_worker_says_why_and_each_attempt_is_a_span(autojump_clock: MockClock) -> None:
    """Status ERROR with the cause; the attempts of one worker are told apart."""
    recorder = Recorder()
    async with (
        open_world(World(lambda labels: Plan(exit_code=3))) as world,
        open_traced(recorder, world, MemoryServer(), "s1") as stage,
    ):
        progress = await stage.add(type="scale_up", pod_count=1, **dict(SAMPLED.pairs()))
        stage.site = replace(stage.site, retries=RetryPolicy(worker_max_attempts=2))
        await stage.work(progress).run()
    judge(recorder.spans, TRACE, PRODUCER)
    workers = named(recorder.spans, "worker")
    assert [span.attributes["ottoscaler.worker.attempt"] for span in workers] == [1, 2]
    for span in workers:
        assert span.error.startswith("ExitCode: ")
        assert (span.attributes["ottoscaler.cause"], span.attributes["process.exit.code"]) == ("ExitCode", 3)
    (event,) = named(recorder.spans, "scale_up otto:scale:events")
    assert event.error == "1 of 1 failed"


@pytest.mark.parametrize("seconds", [0.05, 0.15, 1.5, 2.5])
async def test_a_trace_is_unbroken_when_another_replica_takes_over(autojump_clock: MockClock, seconds: float) -> None:
    """Killed at any time, an owner leaves spans beneath a worker or an event that the next one names by the same ids:
    one trace, every parent known, and nothing twice but workers that ended just before the kill.
    """
    recorder, world = Recorder(), World(lambda labels: Plan(duration=float(labels["ottoscaler/index"])))
    async with open_world(world), open_traced(recorder, world, MemoryServer(), "s1") as first:
        progress = await first.add(type="scale_up", pod_count=3, **dict(SAMPLED.pairs()))
        with trio.move_on_after(seconds):
            await first.work(progress).run()
        ended = len(named(recorder.spans, "worker"))
        async with taken_over(first, progress.event_id) as (second, taken):
            second.site = replace(second.site, traces=recorder.replica(trio.current_time))
            await second.work(taken).run()
    by_id = {span.id: span for span in recorder.spans}
    judge(list(by_id.values()), TRACE, PRODUCER)
    assert len(named(list(by_id.values()), "worker")) == 3
    assert len(recorder.spans) - len(by_id) == ended


async def test_what_a_killed_owner_may_not_have_sent_is_sent_again(autojump_clock: MockClock) -> None:
    """A worker that ended just before its owner died is told again by the next one, under the same id."""
    lost, recorder = Recorder(), Recorder()
    async with (
        open_world(World()) as world,
        open_traced(lost, world, MemoryServer(), "s1") as first,
    ):
        progress = await first.add(type="scale_up", pod_count=2, **dict(SAMPLED.pairs()))
        first.site.slots.limit = 1
        with trio.move_on_after(1.6):
            await first.work(progress).run()
        assert len(named(lost.spans, "worker")) == 1
        async with taken_over(first, progress.event_id) as (second, taken):
            second.site = replace(second.site, traces=recorder.replica(trio.current_time))
            await second.work(taken).run()
    judge(recorder.spans, TRACE, PRODUCER)
    assert {span.id for span in named(lost.spans, "worker")} < {span.id for span in named(recorder.spans, "worker")}


async def test_a_scale_down_is_a_trace_too(autojump_clock: MockClock) -> None:
    """It has its producer's trace and its result; a worker that it stopped is no error."""
    recorder = Recorder()
    async with (
        open_world(World(lambda labels: Plan(duration=50))) as world,
        open_traced(recorder, world, MemoryServer(), "s1") as stage,
    ):
        up = await stage.add(type="scale_up", pod_count=1, **dict(SAMPLED.pairs()))
        async with heeding(stage) as nursery:
            nursery.start_soon(stage.work(up).run)
            await trio.sleep(2)
            down = await stage.add(type="scale_down", pod_count=1, **dict(SAMPLED.pairs()))
            await stage.work(down).run()
            await trio.sleep(5)
    judge(recorder.spans, TRACE, PRODUCER, roots=2)
    (worker,) = named(recorder.spans, "worker")
    assert (worker.error, worker.attributes["ottoscaler.outcome"]) == ("", "terminated")
    assert len(named(recorder.spans, "scale_down otto:scale:events")) == 1


def test_a_refused_event_ends_its_trace() -> None:
    """A dead letter is a span of its producer's trace, with the cause."""
    recorder = Recorder()
    entry = ((b"type", b"x"), (b"traceparent", SAMPLED.traceparent.encode()), (b"\xff", b"\xff"))
    recorder.replica(lambda: 7.0).event_refused(BadEntry("1000-0", "UnknownType", "field type is 'x'", entry))
    (span,) = recorder.spans
    assert (span.trace, span.parent, span.began, span.ended) == (TRACE, PRODUCER, 1.0, 7.0)
    assert span.error == "UnknownType: field type is 'x'"


def test_an_event_without_a_trace_begins_one() -> None:
    """Its id is made of era and event, so that every replica makes the same one, and another era another."""
    recorder, event = Recorder(), Event("1000-0", "scale_up", 1)
    one, same = (recorder.replica(lambda: 0.0).pass_on(event).context for _ in range(2))
    assert is_traceparent(one.traceparent)
    assert (one, one.flags) == (same, 1)
    other = recorder.replica(lambda: 0.0, PLACE._replace(era="era-2")).pass_on(event).context
    assert {one.trace_id, one.span_id}.isdisjoint({other.trace_id, other.span_id})


@pytest.mark.parametrize(
    ("context", "sampler", "is_recorded"),
    [
        (SAMPLED, None, True),
        (UNSAMPLED, None, False),
        (NO_CONTEXT, None, True),
        (UNSAMPLED, ALWAYS_ON, True),
        (SAMPLED, ALWAYS_OFF, False),
    ],
)
def test_the_sampler_decides_for_all_below(context: TraceContext, sampler: Sampler | None, is_recorded: bool) -> None:
    """The producer's flag is respected unless a sampler was chosen; workers and result are told what was decided."""
    recorder, event = Recorder(sampler), replace(EVENT, context=context)
    traces = recorder.replica(lambda: 2.0)
    entry = tuple((n.encode(), v.encode()) for n, v in context.pairs())
    traces.event_refused(BadEntry(event.id, "BadSpec", "r", entry))
    assert len(recorder.spans) == is_recorded
    assert (traces.gaps(event) is not None) == is_recorded
    assert [traces.pass_on(event).context.flags, traces.of_worker(event, 1, 1).flags] == [is_recorded] * 2


def test_each_attempt_has_a_context_of_its_own() -> None:
    """In the event's trace, with its tracestate, and another span for every index and attempt."""
    traces = Recorder().replica(lambda: 0.0)
    made = [traces.of_worker(EVENT, index, attempt) for index in (1, 2, 12) for attempt in (1, 2)]
    assert len({context.span_id for context in made}) == 6
    assert {(context.trace_id, context.tracestate, context.flags) for context in made} == {(TRACE, "a=1", 1)}


def test_a_context_passes_unchanged_where_nobody_records() -> None:
    """Without OpenTelemetry workers and results get exactly what the producer said."""
    traces: Traces = NO_TRACES
    assert traces.of_worker(EVENT, 1, 1) == traces.pass_on(EVENT).context == SAMPLED
    assert traces.gaps(EVENT) is None
