"""The reserved fields: what an event may say of its own workers and of itself, and why it is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottoscaler.events import BadEntry, Event, Limits, parse_entry
from ottoscaler.spec import LONGEST_SPEC, Retry, Spec, WrongSpec, dump_spec, parse_spec
from ottoscaler.spine.handler import NO_LIMITS

WORDS = 'expected a list of texts such as ["sh", "-c", "make test"]'
FIELDS = "a JSON object of image, command, args, timeout_seconds, retry"
CLASSES = "a cause of failure, or a class (own, platform)"


def read(type: str = "scale_up", **fields: str) -> Event | BadEntry:
    """An entry for one pod with these reserved fields."""
    pairs = {"type": type, "pod_count": "1"} | {name.replace("otto_", "otto."): value for name, value in fields.items()}
    return parse_entry("5-0", tuple((name.encode(), value.encode()) for name, value in pairs.items()), Limits())


def good(type: str = "scale_up", **fields: str) -> Event:
    """An entry that is an event."""
    event = read(type, **fields)
    assert isinstance(event, Event), event
    return event


def refusal(type: str = "scale_up", **fields: str) -> tuple[str, str]:
    """Cause and reason of an entry that is none."""
    bad = read(type, **fields)
    assert isinstance(bad, BadEntry), bad
    return bad.cause, bad.reason


def test_a_whole_spec_is_read() -> None:
    """Every field of otto.spec reaches the event."""
    text = (
        '{"image": "mine:1", "command": ["make"], "args": ["test", "-j2"], "timeout_seconds": 600, "retry": '
        '{"max_attempts": 3, "retry_delay_seconds": 1.5, "retryable_failures": ["OutOfMemory", "platform"]}}'
    )
    assert good(otto_spec=text).spec == Spec(
        image="mine:1",
        command=("make",),
        args=("test", "-j2"),
        timeout_seconds=600,
        retry=Retry(max_attempts=3, retry_delay_seconds=1.5, retryable_failures=("OutOfMemory", "platform")),
    )


def test_what_is_not_given_is_not_asked() -> None:
    """An empty object and fields that are null ask for nothing; an empty list asks for the image's own command."""
    assert good().spec is None
    assert good(otto_spec="{}").spec == good(otto_spec='{"image": null, "retry": {}}').spec == Spec()
    assert good(otto_spec='{"command": []}').spec == Spec(command=())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", f"field otto.spec is '', expected {FIELDS}"),
        ("[1]", f"field otto.spec is '[1]', expected {FIELDS}"),
        ('{"image": "a"', f'field otto.spec is \'{{"image": "a"\', expected {FIELDS}'),
        (
            '{"cpu": "64"}',
            'field otto.spec is \'{"cpu": "64"}\', expected only image, command, args, timeout_seconds, retry in it',
        ),
        ('{"image": "a b"}', "field otto.spec.image is 'a b', expected an image name without spaces"),
        ('{"image": ""}', "field otto.spec.image is '', expected an image name without spaces"),
        (
            '{"image": " %s"}' % ("x" * 99),
            f"field otto.spec.image is ' {'x' * 75}..., expected an image name without spaces",
        ),
        ('{"image": 7}', "field otto.spec.image is 7, expected an image name without spaces"),
        ('{"command": "make test"}', f"field otto.spec.command is 'make test', {WORDS}"),
        ('{"args": ["a", 1]}', f'field otto.spec.args is ["a", 1], {WORDS}'),
        (
            '{"args": ["a\\u0000"]}',
            f'field otto.spec.args is ["a\\u0000"], {WORDS}, without a NUL character',
        ),
        (
            '{"timeout_seconds": -1}',
            "field otto.spec.timeout_seconds is -1, expected a whole number from 0 (none) to 2147483647",
        ),
        (
            '{"timeout_seconds": "60"}',
            "field otto.spec.timeout_seconds is '60', expected a whole number from 0 (none) to 2147483647",
        ),
        (
            '{"retry": 3}',
            "field otto.spec.retry is 3, expected a JSON object of max_attempts, retry_delay_seconds, "
            "retryable_failures",
        ),
        (
            '{"retry": {"max_attempts": 0}}',
            "field otto.spec.retry.max_attempts is 0, expected a whole number from 1 to 100",
        ),
        (
            '{"retry": {"retry_delay_seconds": 1e9}}',
            "field otto.spec.retry.retry_delay_seconds is 1e9, expected a number of seconds from 0 to 86400",
        ),
        (
            '{"retry": {"retryable_failures": []}}',
            "field otto.spec.retry.retryable_failures is [], expected at least one cause or class",
        ),
        (
            '{"retry": {"retryable_failures": ["outofmemory"]}}',
            f"field otto.spec.retry.retryable_failures is 'outofmemory', expected {CLASSES}; did you mean OutOfMemory?",
        ),
        (
            '{"retry": {"retryable_failures": ["Stopped"]}}',
            f"field otto.spec.retry.retryable_failures is 'Stopped', expected {CLASSES}",
        ),
    ],
)
def test_a_wrong_spec_is_a_dead_letter(text: str, reason: str) -> None:
    """The reason names the field with its path, its value in quotes where it is a text, and what was expected."""
    assert refusal(otto_spec=text) == ("BadSpec", reason)


@pytest.mark.parametrize(
    "text", ["[" * 30_000, '{"image": ' + "[" * 30_000, '{"timeout_seconds": ' + "9" * 9_000 + "}"]
)
def test_a_spec_made_to_break_its_reader_is_a_dead_letter(text: str) -> None:
    """Depth and length end in a short sentence, not in an exception."""
    cause, reason = refusal(otto_spec=text)
    assert cause == "BadSpec"
    assert len(reason) < 300


def test_a_spec_has_a_longest_length() -> None:
    """Each pod of the event carries its command and arguments."""
    text = '{"args": ["%s"]}' % ("x" * LONGEST_SPEC)
    assert refusal(otto_spec=text) == (
        "BadSpec",
        f"field otto.spec is {len(text)} bytes long, expected at most {LONGEST_SPEC} bytes",
    )


@given(st.text() | st.text(alphabet='{}[]":,imagecomdrgst 0123456789null.-e'))
def test_any_text_is_a_spec_or_a_reason(text: str) -> None:
    """Whatever stands in the field, it is read or refused with a sentence, and what is read is written the same."""
    problem: WrongSpec | None = None
    try:
        spec = parse_spec(text)
    except WrongSpec as wrong:
        problem = wrong
    if problem is None:
        assert parse_spec(dump_spec(spec)) == spec
    else:
        assert problem.field.startswith("otto.spec")
        assert "expected" in str(problem)


WORD_LISTS = st.none() | st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), max_size=4).map(tuple)
SPECS = st.builds(
    Spec,
    image=st.sampled_from(["", "busybox:latest", "registry.example.com/team/app@sha256:0"]),
    command=WORD_LISTS,
    args=WORD_LISTS,
    timeout_seconds=st.integers(0, 2**31 - 1),
    retry=st.builds(
        Retry,
        max_attempts=st.none() | st.integers(1, 100),
        retry_delay_seconds=st.none() | st.floats(0, 86_400),
        retryable_failures=st.none() | st.just(("own", "Evicted")),
    ),
)


@given(SPECS)
def test_a_spec_is_read_as_it_was_written(spec: Spec) -> None:
    """What one part of the service writes for a stage, another reads the same."""
    assert parse_spec(dump_spec(spec)) == spec


def test_only_a_scale_up_has_workers_to_speak_of() -> None:
    """A spec on another type is a mistake, and told."""
    assert refusal("scale_down", otto_spec="{}") == (
        "BadSpec",
        "field otto.spec is given with type scale_down, expected only with scale_up",
    )


def test_parent_and_request_id_are_read() -> None:
    """Both reach the event, and are no metadata."""
    event = good(otto_parent="7-1", otto_request_id="ü" * 200)
    assert (event.parent, event.request_id, event.metadata) == ("7-1", "ü" * 200, ())
    assert (good().parent, good().request_id) == ("", "")


@pytest.mark.parametrize(
    ("fields", "cause", "reason"),
    [
        (
            {"otto_parent": "mine"},
            "BadParent",
            "field otto.parent is 'mine', expected an event's id such as 1756659802903-0",
        ),
        (
            {"otto_request_id": ""},
            "BadRequestId",
            "field otto.request_id is '', 0 characters long, expected 1 to 200",
        ),
        (
            {"otto_request_id": "pipeline:p"},
            "BadRequestId",
            "field otto.request_id is 'pipeline:p', expected one that does not begin with pipeline:, as those of "
            "pipelines do",
        ),
    ],
)
def test_wrong_ids_are_dead_letters(fields: dict[str, str], cause: str, reason: str) -> None:
    """The reason names field, value and expectation."""
    assert refusal(**fields) == (cause, reason)


def test_an_event_taken_over_keeps_its_request_id() -> None:
    """An event that 0.1.0 accepted under a request id of the form of pipelines is finished, not refused."""
    pairs = ((b"type", b"scale_up"), (b"pod_count", b"1"), (b"otto.request_id", b"pipeline:p"))
    event = parse_entry("5-0", pairs, NO_LIMITS)
    assert isinstance(event, Event)
    assert event.request_id == "pipeline:p"


def test_a_request_id_has_a_longest_length() -> None:
    """200 characters, whatever their bytes."""
    cause, reason = refusal(otto_request_id="x" * 201)
    assert cause == "BadRequestId"
    assert reason.endswith("..., 201 characters long, expected 1 to 200")


def test_a_scale_down_may_say_how_many_remain() -> None:
    """otto.remain stands in place of pod_count; 0 means none may stay."""
    for text in ("0", "12"):
        event = parse_entry("5-0", ((b"type", b"scale_down"), (b"otto.remain", text.encode())), Limits())
        assert isinstance(event, Event)
        assert (event.remain, event.pod_count) == (int(text), 0)
    assert good("scale_down").remain is None


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        (
            ((b"type", b"scale_down"), (b"pod_count", b"2"), (b"otto.remain", b"1")),
            "fields pod_count and otto.remain are both given ('2' and '1'), expected one of them",
        ),
        (
            ((b"type", b"scale_down"), (b"otto.remain", b"-1")),
            "field otto.remain is '-1', expected a whole number from 0",
        ),
        (
            ((b"type", b"scale_up"), (b"otto.remain", b"1")),
            "field otto.remain is given with type scale_up, expected only with scale_down",
        ),
    ],
)
def test_a_wrong_remain_is_a_dead_letter(pairs: tuple[tuple[bytes, bytes], ...], reason: str) -> None:
    """Exactly one of pod_count and otto.remain, on a scale_down, from 0."""
    bad = parse_entry("5-0", pairs, Limits())
    assert isinstance(bad, BadEntry)
    assert (bad.cause, bad.reason) == ("BadRemain", reason)
