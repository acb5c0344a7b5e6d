"""What a call asks for, as an event: every text where it belongs, and a clear word on what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottoscaler.calls.asking import scale_down_pairs, scale_up_pairs
from ottoscaler.events import Event, Limits, parse_entry
from ottoscaler.repeats import content_of
from ottoscaler.rpc.door import InvalidCall, PolicyRefused, ScaleDownCall, ScaleUpCall

NOW = 1_756_659_802.25


def up(number: int = 1, limits: Limits | None = None, **words: Any) -> tuple[tuple[str, str], ...]:
    """The entry of a ScaleUp."""
    return scale_up_pairs(ScaleUpCall(worker_count=number, **words), limits or Limits(), NOW)


def event_of(pairs: tuple[tuple[str, str], ...]) -> Event:
    """The event that the stream's reader sees."""
    event = parse_entry("1-0", tuple((name.encode(), value.encode()) for name, value in pairs), Limits())
    assert isinstance(event, Event)
    return event


def test_everything_reaches_the_event() -> None:
    """Task, number and request id in fields of their own, every other text as metadata."""
    words: dict[str, Any] = {
        "repository": "https://x/y",
        "commit_sha": "abc",
        "triggered_by": "me",
        "reason": "why not",
    }
    event = event_of(up(3, task_id="t", request_id="r", build_config={"a": "1"}, metadata={"b": ""}, **words))
    assert (event.type, event.pod_count, event.task_id, event.request_id) == ("scale_up", 3, "t", "r")
    assert event.timestamp == "1756659802.250"
    assert dict(event.metadata) == {**words, "a": "1", "b": ""}


def test_texts_that_are_not_given_are_not_there() -> None:
    """A call with nothing but a number has no metadata, no task and no request id."""
    event = event_of(up(1))
    assert (event.metadata, event.task_id, event.request_id) == ((), "", "")


def test_a_target_is_what_may_remain() -> None:
    """ScaleDown becomes otto.remain, 0 included."""
    event = event_of(scale_down_pairs(ScaleDownCall(target=0, task_id="t"), Limits(), NOW))
    assert (event.type, event.remain, event.pod_count, event.task_id) == ("scale_down", 0, 0, "t")


@pytest.mark.parametrize(
    ("words", "field", "expected"),
    [
        ({"number": 0}, "worker_count", "a whole number from 1 to 10000"),
        ({"number": -1}, "worker_count", "a whole number from 1 to 10000"),
        ({"number": 10_001}, "worker_count", "MAX_PODS_PER_EVENT"),
        ({"metadata": {"otto.spec": "{}"}}, 'metadata["otto.spec"]', "does not begin with otto."),
        ({"build_config": {"otto.x": ""}}, 'build_config["otto.x"]', "does not begin with otto."),
        ({"metadata": {"pod_count": "7"}}, 'metadata["pod_count"]', "none of event_id, pod_count, task_id"),
        ({"metadata": {"template": "big"}}, 'metadata["template"]', "none of"),
        ({"metadata": {"a.b": ""}, "build_config": {"A_B": ""}}, 'metadata["a.b"]', 'as that of build_config["A_B"]'),
        ({"repository": "x", "metadata": {"repository": "y"}}, 'metadata["repository"]', "as that of repository does"),
        ({"repository": "a\0b"}, "repository", "without a NUL byte"),
        ({"metadata": {"a\0": "b"}}, 'metadata["a\0"]', "without a NUL byte"),
        ({"task_id": "\0"}, "task_id", "without a NUL byte"),
        ({"request_id": "r" * 201}, 'metadata["request_id"]', "at most 200 characters"),
        ({"request_id": "pipeline:p"}, 'metadata["request_id"]', "does not begin with pipeline:"),
        ({"metadata": {str(number): "" for number in range(1001)}}, "metadata", "at most 1000"),
        ({"metadata": {"a": "x" * 70_000}}, "metadata", "MAX_METADATA_BYTES"),
    ],
)
def test_what_is_wrong_is_named(words: dict[str, Any], field: str, expected: str) -> None:
    """Field as in the call, value as given, and what was expected."""
    with pytest.raises(InvalidCall) as refused:
        up(**words)
    assert refused.value.field == field
    assert expected in refused.value.expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"metadata": {"a": "s3cret\0"}}, 'metadata["a"] holds a NUL byte, expected text without a NUL byte'),
        ({"metadata": {"a.b": "s3cret", "a_b": "s3cret"}}, 'metadata["a_b"] has a name that is taken, expected a name'),
        ({"metadata": {"otto.spec": "s3cret"}}, 'metadata["otto.spec"] has a reserved name, expected a name that does'),
        ({"build_config": {"type": "s3cret"}}, 'build_config["type"] has a reserved name, expected a name that is'),
    ],
)
def test_a_value_that_may_be_a_secret_is_not_shown(words: dict[str, Any], said: str) -> None:
    """What is wrong with a name, or with a byte of a value, is said without that value: refusals are logged."""
    with pytest.raises(InvalidCall) as refused:
        up(**words)
    assert str(refused.value).startswith(said)
    assert "s3cret" not in str(refused.value)


def test_a_negative_target_is_refused() -> None:
    """0 is the least that may remain."""
    with pytest.raises(InvalidCall, match="worker_count is -1, expected a whole number from 0"):
        scale_down_pairs(ScaleDownCall(target=-1), Limits(), NOW)


def test_the_policy_is_asked() -> None:
    """What it says of the event is said of the call, in the call's words."""

    def judge(event: Event) -> str | None:
        return f"field pod_count is '{event.pod_count}', expected at most 2 (ceilings.workers)"

    with pytest.raises(PolicyRefused) as refused:
        up(3, Limits(policy=judge))
    assert (refused.value.field, refused.value.value, refused.value.allowed) == (
        "worker_count",
        "3",
        "at most 2 (ceilings.workers)",
    )


TEXT = st.text(max_size=12)
WORDS = st.fixed_dictionaries(
    {},
    optional={
        "task_id": TEXT,
        "repository": TEXT,
        "reason": TEXT,
        "request_id": TEXT,
        "metadata": st.dictionaries(TEXT, TEXT, max_size=4),
        "build_config": st.dictionaries(TEXT, TEXT, max_size=4),
    },
)


@given(st.integers(-2, 12_000), WORDS)
def test_any_call_is_an_event_or_refused(number: int, words: dict[str, Any]) -> None:
    """Whatever texts a call holds, it becomes an event that says the same, or is refused as invalid."""
    try:
        pairs = up(number, **words)
    except InvalidCall:
        return
    event = event_of(pairs)
    assert event.pod_count == number
    given_texts = {**words.get("build_config", {}), **words.get("metadata", {})}
    assert given_texts.items() <= dict(event.metadata).items()


@given(st.dictionaries(TEXT, TEXT), st.randoms(use_true_random=False))
def test_content_is_what_is_asked_for(fields: dict[str, str], dice: Any) -> None:
    """The order of fields and what is about the sending make no difference; any other change does."""
    pairs = list(fields.items())
    dice.shuffle(pairs)
    sent = [*pairs, ("timestamp", "7"), ("otto.request_id", "r"), ("traceparent", "x"), ("tracestate", "y")]
    assert content_of(sent) == content_of(fields.items() - {("timestamp", fields.get("timestamp", ""))})
    assert content_of([*pairs, ("more", "")]) != content_of(pairs)


def test_long_names_are_refused_in_short_words() -> None:
    """Names of thousands of characters that clash, even where they begin and end alike, are named by both ends."""
    name, other = f"{'a' * 3000}-{'b' * 3000}", f"{'a' * 3000}_{'b' * 3000}"
    with pytest.raises(
        InvalidCall, match=r"a name that does not become OTTO_META_AAA.*, as that of metadata"
    ) as refused:
        scale_up_pairs(ScaleUpCall(worker_count=1, metadata={name: "1", other: "2"}), Limits(), 0)
    assert refused.value.field.startswith('metadata["aaa')
    assert refused.value.field.endswith('bbb"]')
    assert len(str(refused.value)) < 1000
