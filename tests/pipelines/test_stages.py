"""What a pipeline may ask for, and how refusals read."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ottoscaler.events import BadEntry, Event, Limits, parse_entry
from ottoscaler.spec import Retry, Spec
from ottoscaler.stages import WrongPipeline, parse_pipeline, stage_entry


def stage(stage_id: str = "a", **more: Any) -> dict[str, Any]:
    """A stage of one worker."""
    return {"stage_id": stage_id, "worker_count": 1, **more}


def text_of(*stages: dict[str, Any], pipeline_id: str = "p") -> str:
    """The text of `otto.pipeline`."""
    return json.dumps({"pipeline_id": pipeline_id, "stages": stages})


def parse(text: str, *more: tuple[str, str], limits: Limits | None = None) -> Event | BadEntry:
    """An entry of type pipeline."""
    pairs = (("type", "pipeline"), ("otto.pipeline", text), *more)
    return parse_entry("1-1", tuple((name.encode(), value.encode()) for name, value in pairs), limits or Limits())


@pytest.mark.parametrize(
    ("text", "field", "value", "expected"),
    [
        ("no json", "", "no json", "a JSON object of pipeline_id, name, stages"),
        (json.dumps({"stages": [stage()]}), "pipeline_id", "", "a text of 1 to 150 characters that can be printed"),
        (text_of(), "stages", [], "at least one stage"),
        (text_of(*(stage(str(n)) for n in range(201))), "stages", "201 stages", "at most 200"),
        (text_of(stage(worker_count=0)), "stages[0].worker_count", 0, "a whole number from 1 to 20"),
        (text_of(stage(worker_count=21)), "stages[0].worker_count", 21, "a whole number from 1 to 20"),
        (text_of(stage(worker_count=1.5)), "stages[0].worker_count", 1.5, "a whole number from 1 to 20"),
        (
            text_of(stage(timeout_seconds=-1)),
            "stages[0].timeout_seconds",
            -1,
            "a whole number from 0 (none) to 2147483647",
        ),
        (
            text_of(stage(retry_policy={"max_attempts": 0})),
            "stages[0].retry_policy.max_attempts",
            0,
            "a whole number from 1 to 100",
        ),
        (text_of(stage(retry_policy={"attempts": 2})), "stages[0].retry_policy.attempts", 2, "no such field"),
        (text_of(stage(image="two words")), "stages[0].image", "two words", "an image name without spaces"),
        (text_of(stage(extra=True)), "stages[0].extra", True, "no such field"),
        (text_of(stage(), stage()), "stages[1].stage_id", "a", "an id of its own: stages[0] has this one"),
        (
            text_of(stage(), stage("b", depends_on=["a", "c"])),
            "stages[1].depends_on[1]",
            "c",
            "the id of a stage of this pipeline: 'a, b'",
        ),
        (text_of(stage(depends_on=["a"])), "stages[0].depends_on", ["a"], "no cycle (a → a)"),
    ],
)
def test_refusals_name_field_value_and_expectation(text: str, field: str, value: object, expected: str) -> None:
    """What is wrong is named as in the call's messages, with the value that was given."""
    with pytest.raises(WrongPipeline) as caught:
        parse_pipeline(text, most_workers=20)
    assert (caught.value.field, caught.value.value, caught.value.expected) == (field, value, expected)
    bad = parse(text, limits=Limits(max_pods=20))
    assert isinstance(bad, BadEntry)
    assert (bad.cause, bad.reason) == ("BadPipeline", str(caught.value))


def test_a_cycle_is_named_in_the_direction_of_its_needs() -> None:
    """Of a longer cycle each stage is followed by one that it needs."""
    needs = {"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]}
    with pytest.raises(WrongPipeline) as caught:
        parse_pipeline(text_of(*(stage(id_, depends_on=needed) for id_, needed in needs.items())))
    way = caught.value.expected.removeprefix("no cycle (").removesuffix(")").split(" → ")
    assert len(way) == 4
    assert all(after in needs[before] for before, after in pairwise(way))
    assert caught.value.value == needs[way[0]]


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_stage_becomes_an_event_of_its_own() -> None:
    """It has the stage's number of workers, what it asks of its container, and the metadata of pipeline and stage."""
    asked = stage(
        type="build",
        config={"level": "stage"},
        image="busybox:1",
        command=["make"],
        timeout_seconds=5,
        retry_policy={"max_attempts": 2, "retryable_failures": ["ExitCode"]},
    )
    event = parse(
        text_of(asked), ("level", "pipeline"), ("repository", "r"), ("traceparent", TRACE), ("tracestate", "a=1")
    )
    assert isinstance(event, Event)
    assert event.request_id == "pipeline:p"
    assert event.pipeline is not None
    pairs = stage_entry(event, event.pipeline.stages[0])
    made = parse_entry("2-1", tuple((name.encode(), value.encode()) for name, value in pairs), Limits())
    assert isinstance(made, Event)
    assert (made.type, made.pod_count, made.task_id, made.parent) == ("scale_up", 1, "p", "1-1")
    assert made.context == (TRACE, "a=1")
    retry = Retry(max_attempts=2, retryable_failures=("ExitCode",))
    assert made.spec == Spec("busybox:1", ("make",), None, 5, retry)
    assert dict(made.metadata) == {
        "pipeline_id": "p",
        "stage_id": "a",
        "stage_type": "build",
        "level": "stage",
        "repository": "r",
    }


@pytest.mark.parametrize(
    ("asked", "cause", "reason"),
    [
        (
            stage(config={"otto.spec": "x"}),
            "BadPipeline",
            ".config has 'otto.spec', expected no reserved name",
        ),
        (
            stage(config={"type": "x"}),
            "BadPipeline",
            ".config has 'type', expected no reserved name",
        ),
        (
            stage(config={"b-c": "1", "b.c": "2"}),
            "DuplicateName",
            " makes an event that is refused: metadata 'b-c' and 'b.c' both",
        ),
        (
            stage(image="evil"),
            "PolicyRefused",
            " makes an event that is refused: no evil here",
        ),
    ],
)
def test_each_stage_must_be_a_good_event(asked: dict[str, Any], cause: str, reason: str) -> None:
    """What would be refused as an event is refused as a stage, before any stage begins; the policy judges it, too."""

    def judge(event: Event) -> str | None:
        return "no evil here" if event.spec and event.spec.image == "evil" else None

    bad = parse(text_of(asked), limits=Limits(policy=judge))
    assert isinstance(bad, BadEntry)
    assert bad.cause == cause
    assert bad.reason.startswith(f"field otto.pipeline.stages[0]{reason}")


def test_a_pipeline_is_its_own_request() -> None:
    """Another request id is refused, and so is a pipeline's field with another type."""
    bad = parse(text_of(stage()), ("otto.request_id", "r"))
    assert isinstance(bad, BadEntry)
    assert bad.cause == "BadRequestId"
    pairs = ((b"type", b"scale_up"), (b"pod_count", b"1"), (b"otto.pipeline", text_of(stage()).encode()))
    other = parse_entry("1-1", pairs, Limits())
    assert isinstance(other, BadEntry)
    assert "otto.pipeline is given with type scale_up" in other.reason


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
some_stage = st.fixed_dictionaries(
    {},
    optional={
        "stage_id": st.sampled_from("abc") | json_values,
        "worker_count": st.integers(-1, 5) | json_values,
        "depends_on": st.lists(st.sampled_from("abcd"), max_size=3) | json_values,
        "config": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3) | json_values,
        "retry_policy": json_values,
        "command": st.lists(st.text(max_size=3), max_size=2) | json_values,
        "timeout_seconds": json_values,
    },
)


@settings(deadline=None)  # a busy machine breaks no promise
@given(st.lists(some_stage, max_size=4) | json_values, st.text(max_size=4) | json_values)
def test_any_json_is_a_pipeline_or_says_why_not(stages: object, pipeline_id: object) -> None:
    """Whatever stands in the field, the entry is an event or a dead letter with a reason."""
    text = json.dumps({"pipeline_id": pipeline_id, "stages": stages})
    made = parse(text)
    assert isinstance(made, Event) or made.reason


@settings(deadline=None)  # a busy machine breaks no promise
@given(st.binary(max_size=60))
def test_any_bytes_are_a_pipeline_or_say_why_not(raw: bytes) -> None:
    """The same for bytes that are no JSON."""
    made = parse_entry("1-1", ((b"type", b"pipeline"), (b"otto.pipeline", raw)), Limits())
    assert isinstance(made, BadEntry)
