"""The order of stages, against a plain evaluation of the same graph."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ottoscaler.pipelines.graph import ENDED, Graph, StageState, status_of
from ottoscaler.stages import Stage

NAMES = "abcdefghij"


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Stage, ...]:
    """Stages of which each may need any that were drawn before it, given in any order."""
    names = NAMES[: draw(st.integers(1, len(NAMES)))]
    stages = [
        Stage(name, 1, depends_on=tuple(draw(st.sets(st.sampled_from(names[:at]))))) if at else Stage(name, 1)
        for at, name in enumerate(names)
    ]
    return tuple(draw(st.permutations(stages)))


fates = st.fixed_dictionaries({name: st.sampled_from(["completed", "failed", "cancelled"]) for name in NAMES})


def evaluate(stages: tuple[Stage, ...], fate: dict[str, StageState]) -> dict[str, StageState]:
    """What must come out: a stage meets its fate where all that it needs is completed, else it is skipped."""
    by_id = {stage.stage_id: stage for stage in stages}

    def end_of(stage_id: str) -> StageState:
        needs = by_id[stage_id].depends_on
        return fate[stage_id] if all(end_of(needed) == "completed" for needed in needs) else "skipped"

    return {stage_id: end_of(stage_id) for stage_id in by_id}


@settings(deadline=None)  # a busy machine breaks no promise
@given(graphs(), fates, st.randoms(use_true_random=False))
def test_any_order_of_ends_gives_what_the_graph_says(
    stages: tuple[Stage, ...], fate: dict[str, StageState], dice: object
) -> None:
    """Whichever running stage ends first: each begins after what it needs and ends once, and the ends are the same."""
    graph, states = Graph(stages), dict[str, StageState]({stage.stage_id: "pending" for stage in stages})
    needs = {stage.stage_id: stage.depends_on for stage in stages}
    running: list[str] = []
    while not ENDED.issuperset(states.values()):
        for stage_id, needed in graph.doomed(states).items():
            assert needed in needs[stage_id]
            assert states[needed] in ENDED - {"completed"}
            states[stage_id] = "skipped"
        for stage_id in graph.startable(states):
            assert all(states[needed] == "completed" for needed in needs[stage_id])
            states[stage_id] = "running"
            running.append(stage_id)
        if running:
            ended = running.pop(dice.randrange(len(running)))  # type: ignore[attr-defined]  # hypothesis' random
            states[ended] = fate[ended]
    assert states == evaluate(stages, fate)


@settings(deadline=None)  # a busy machine breaks no promise
@given(graphs())
def test_independent_stages_begin_side_by_side(stages: tuple[Stage, ...]) -> None:
    """At the start exactly those may begin that need nothing, in the order in which they were given."""
    states = dict[str, StageState]({stage.stage_id: "pending" for stage in stages})
    assert Graph(stages).startable(states) == [stage.stage_id for stage in stages if not stage.depends_on]


def test_the_status_says_how_the_stages_ended() -> None:
    """Skipped stages leave the word to those that began."""
    assert status_of(["completed", "completed"]) == "succeeded"
    assert status_of(["completed", "failed", "skipped"]) == "partial"
    assert status_of(["completed", "cancelled"]) == "partial"
    assert status_of(["failed", "skipped"]) == "failed"
    assert status_of(["failed", "cancelled"]) == "failed"
    assert status_of(["cancelled", "skipped"]) == "terminated"
