"""Traces of whole scalers that are killed again and again, in virtual time."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
import trio
from trio.testing import MockClock

from tests.pipelines.theatre import Theatre, stage
from tests.spine.scaler import Scaler
from tests.spine.world import Plan
from tests.tracing.recorder import PLACE, Recorder, Span, judge, named

TRACE, PRODUCER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
EVENT = f"scale_up {PLACE.stream}"


UNSENT_SECONDS = 1.0
"""What a killed replica had not sent yet."""


class Collector:
    """What replicas sent, and what they took with them when they were killed."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.lost: list[Span] = []

    def bury(self, recorder: Recorder, now: float) -> None:
        """A replica was killed."""
        for span in recorder.spans:
            (self.lost if span.ended > now - UNSENT_SECONDS else self.spans).append(span)


async def live(theatre: Theatre, collector: Collector, dice: random.Random, name: str, kills: int) -> None:
    """Replicas one after the other, each killed after some seconds; the last one lives on."""
    for number in range(kills + 1):
        scaler, recorder = Scaler(theatre.world, theatre.server, f"{name}-{number}", lease_seconds="1"), Recorder()
        scaler.open_traces = lambda era, now, to=recorder: to.replica(now, PLACE._replace(era=era))  # type: ignore[misc]  # bound now
        is_last = number == kills
        with trio.move_on_after(120 if is_last else dice.uniform(0.3, 4)):
            await scaler.run()
        collector.bury(recorder, math.inf if is_last else theatre.server.now() / 1000)


@pytest.mark.parametrize("seed", range(8))
async def test_a_pipeline_is_one_trace_whoever_is_killed(autojump_clock: MockClock, seed: int) -> None:
    """Its stages are events beneath it, their workers beneath those, and every parent is known, though each killed
    owner took its last second of spans along; but for events that closed in such a second. Only workers may be told
    twice, under one id.
    """
    dice, collector = random.Random(seed), Collector()
    theatre = Theatre()
    theatre.world.plan = lambda labels: Plan(duration=0.8 * int(labels["ottoscaler/index"]))
    async with trio.open_nursery() as nursery:
        await nursery.start(theatre.world.run)
        for name in ("one", "two"):
            nursery.start_soon(live, theatre, collector, dice, name, 4)
        needs = (stage("build", workers=6), stage("test", "build", workers=2), stage("lint", "build"))
        event_id = await theatre.send(*needs, traceparent=f"00-{TRACE}-{PRODUCER}-01")
        result = await theatre.wait_result(event_id)
        await trio.sleep(200)
        nursery.cancel_scope.cancel(reason="the test is over")
    assert result["status"] == "succeeded"
    twice = [each for each, number in Counter((span.id, span.name) for span in collector.spans).items() if number > 1]
    assert {name for _, name in twice} <= {"worker"}
    spans = list({span.id: span for span in collector.spans}.values())
    untold = {
        span.attributes["ottoscaler.event_id"] for span in collector.lost if "messaging.system" in span.attributes
    }
    lost = frozenset(span.id for span in collector.lost if span.attributes.get("ottoscaler.event_id") in untold)
    judge(spans, TRACE, PRODUCER, lost=lost, roots=event_id not in untold)
    told = {each["event_id"]: each["succeeded"] for each in result["stages"].values() if each["event_id"] not in untold}
    for stage_event, number in told.items():
        (event,) = (span for span in named(spans, EVENT) if span.attributes["ottoscaler.event_id"] == stage_event)
        assert sum(span.parent == event.id for span in named(spans, "worker")) == number
    assert len({span.parent for span in named(spans, EVENT)}) <= 1
