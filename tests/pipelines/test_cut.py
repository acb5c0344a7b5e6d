"""Pipelines cut at every step: whoever goes on starts no stage twice, and what comes out is what the graph says."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.pipelines.graph import StageState
from ottoscaler.stages import Stage
from tests.pipelines.test_graph import evaluate
from tests.pipelines.theatre import FAILING, Theatre, changes, stage, states
from tests.spine.determinism import schedule_from
from tests.spine.scaler import Scaler
from tests.spine.test_cut import CutAtStep, suppress_stop
from tests.spine.world import Plan

STAGES = (stage("a"), stage("b", "a", workers=2), stage("bad"), stage("c", "bad"), stage("d", "b", "c"))
OUTCOME = {"a": "completed", "b": "completed", "bad": "failed", "c": "skipped", "d": "skipped"}
ENDED = {"completed", "failed", "cancelled", "skipped"}


async def live(theatre: Theatre, name: str, event_id: str, step: int = 0, how: str = "") -> int:
    """A scaler until the pipeline has ended, or until the cut; the number of its steps."""
    scaler = Scaler(theatre.world, theatre.server, name, drain_seconds="1")
    with trio.CancelScope() as life:

        def cut() -> None:
            if how == "kill":
                life.cancel(reason="kill -9")
            elif hasattr(scaler, "drain"):
                scaler.drain.request("SIGTERM")

        async def end() -> None:
            await trio.sleep(1)  # a scaler that has nothing to do is let start, too
            await theatre.wait_result(event_id)
            while await theatre.producer.live_events():  # noqa: ASYNC110 - virtual time
                await trio.sleep(0.5)
            scaler.drain.request("the pipeline has ended")

        instrument = CutAtStep(step, cut)
        trio.lowlevel.add_instrument(instrument)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(end)
                with suppress_stop():
                    await scaler.run()
                nursery.cancel_scope.cancel(reason="it has ended")
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return instrument.steps


def play(step: int, how: str) -> int:
    """One pipeline, cut at a step and finished by another scaler; how many steps the first had."""
    schedule_from(1)

    async def main() -> int:
        theatre = Theatre(bad=FAILING)
        async with trio.open_nursery() as nursery:
            await nursery.start(theatre.world.run)
            event_id = await theatre.send(*STAGES)
            steps = await live(theatre, "first", event_id, step, how)
            with trio.fail_after(400):
                await live(theatre, "second", event_id)
            await judge(theatre, event_id, OUTCOME, len(STAGES) - 2)
            nursery.cancel_scope.cancel(reason="judged")
        return steps

    return trio.run(main, clock=MockClock(autojump_threshold=0))


async def judge(theatre: Theatre, event_id: str, outcome: Mapping[str, str], started: int) -> None:
    """Every promise that can be seen from outside."""
    result, news = await theatre.wait_result(event_id), await theatre.news(event_id)
    assert states(result) == outcome
    for stage_id, state in outcome.items():
        told = changes(news, stage_id)
        assert told == ["pending", *(["running"] if state in ("completed", "failed") else []), state]
        assert sum(each["status"] in ENDED for each in news if each["stage_id"] == stage_id) == 1
    kinds = Counter(dict(fields)[b"type"] for fields in theatre.server.results.entries.values())
    assert kinds == {b"scale_up": started, b"pipeline": 1}
    assert max(Counter(theatre.world.runs).values()) == 1
    assert len(theatre.server.events) == 0
    assert not theatre.server.progress


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs_with_kills_in_between(seed: int) -> None:
    """Whatever the graph, whoever is killed and whenever: the ends are those of a plain evaluation, each told once."""
    dice = random.Random(seed)
    names = "abcdefgh"[: dice.randint(2, 8)]
    needs = {name: dice.sample(names[:at], dice.randint(0, min(at, 2))) for at, name in enumerate(names)}
    fate: dict[str, StageState] = {name: dice.choice(["completed", "completed", "failed"]) for name in names}
    plans = {name: Plan(0.2, dice.choice([0.1, 1.0, 5.0]), int(fate[name] == "failed")) for name in names}
    stages = [stage(name, *needs[name], workers=dice.randint(1, 3)) for name in dice.sample(names, len(names))]
    outcome = evaluate(tuple(Stage(name, 1, depends_on=tuple(needs[name])) for name in names), fate)

    async def keep(theatre: Theatre, name: str) -> None:
        for life in range(10):
            with trio.move_on_after(dice.choice([0.3, 2.0, 6.0]) if life < 4 else float("inf")):
                await Scaler(theatre.world, theatre.server, f"{name}-{life}", drain_seconds="1").run()

    async def main() -> None:
        theatre = Theatre(**plans)
        async with trio.open_nursery() as nursery:
            await nursery.start(theatre.world.run)
            event_id = await theatre.send(*stages)
            nursery.start_soon(keep, theatre, "one")
            nursery.start_soon(keep, theatre, "two")
            await theatre.wait_result(event_id)
            await trio.sleep(60)
            await judge(theatre, event_id, outcome, sum(state != "skipped" for state in outcome.values()))
            nursery.cancel_scope.cancel(reason="judged")

    schedule_from(seed)
    trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("how", ["kill", "drain"])
def test_cut_at_every_step(how: str) -> None:
    """Killed or drained at any step, the next scaler finishes the pipeline; each worker runs once, each end is told
    once.
    """
    for step in range(1, 9000, 11):
        try:
            steps = play(step, how)
        except BaseException as error:
            error.add_note(f"cut ({how}) at step {step}")
            raise
        if steps < step:
            return
    pytest.fail("the uncut run has more steps than were tried")
