"""What an entry means: any bytes give an event or a reason, and the reason names field, value and what was expected."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottoscaler.events import BadEntry, Event, Limits, dump_entry, load_entry, parse_entry

LIMITS = Limits(max_pods=100, max_metadata_bytes=200, templates={"gpu", "small"})


def entry(**fields: str) -> tuple[tuple[bytes, bytes], ...]:
    """Pairs as Redis delivers them."""
    return tuple((name.replace("otto_", "otto.").encode(), value.encode()) for name, value in fields.items())


def refusal(pairs: tuple[tuple[bytes, bytes], ...]) -> BadEntry:
    """Parse what must be refused."""
    bad = parse_entry("1-0", pairs, LIMITS)
    assert isinstance(bad, BadEntry)
    return bad


def test_the_documented_command_is_an_event() -> None:
    """`XADD otto:scale:events * type scale_up pod_count 3 task_id task-123` asks for three workers of that task."""
    event = parse_entry("1-0", entry(type="scale_up", pod_count="3", task_id="task-123"), LIMITS)
    assert isinstance(event, Event)
    assert (event.type, event.pod_count, event.task_id, event.metadata) == ("scale_up", 3, "task-123", ())


def test_a_cancel_names_its_event() -> None:
    """A cancel needs no pod_count; for other types event_id is metadata like any other field."""
    cancel = parse_entry("2-0", entry(type="cancel", event_id="1-0"), LIMITS)
    other = parse_entry("2-0", entry(type="scale_up", pod_count="1", event_id="1-0"), LIMITS)
    assert isinstance(cancel, Event)
    assert isinstance(other, Event)
    assert (cancel.type, cancel.target, cancel.pod_count, cancel.metadata) == ("cancel", "1-0", 0, ())
    assert (other.target, other.metadata) == ("", (("event_id", "1-0"),))


def test_other_fields_are_metadata() -> None:
    """Every field without a meaning of its own is handed to the worker, in the order given."""
    event = parse_entry("1-0", entry(type="scale_up", pod_count="1", repo="a/b", branch="main"), LIMITS)
    assert isinstance(event, Event)
    assert event.metadata == (("repo", "a/b"), ("branch", "main"))


@pytest.mark.parametrize(
    ("pairs", "cause", "reason"),
    [
        (
            entry(pod_count="3"),
            "MissingType",
            "field type is missing, expected scale_up, scale_down, cancel or pipeline",
        ),
        (
            entry(type="explode", pod_count="3"),
            "UnknownType",
            "field type is 'explode', expected scale_up, scale_down, cancel or pipeline",
        ),
        (
            entry(type="cancel"),
            "BadEventId",
            "field event_id is missing, expected an event's id such as 1756659802903-0",
        ),
        (
            entry(type="cancel", event_id="that one"),
            "BadEventId",
            "field event_id is 'that one', expected an event's id such as 1756659802903-0",
        ),
        (
            entry(type="scale_up"),
            "BadPodCount",
            "field pod_count is missing, expected a whole number from 1 to 100",
        ),
        (
            entry(type="scale_up", pod_count="2.5"),
            "BadPodCount",
            "field pod_count is '2.5', expected a whole number from 1 to 100",
        ),
        (
            entry(type="scale_up", pod_count="٣"),
            "BadPodCount",
            "field pod_count is '٣', expected a whole number from 1 to 100",
        ),
        (
            entry(type="scale_down", pod_count="0"),
            "BadPodCount",
            "field pod_count is '0', expected a whole number from 1 to 100",
        ),
        (
            entry(type="scale_up", pod_count="101"),
            "TooManyPods",
            "field pod_count is '101', expected a whole number from 1 to 100 (MAX_PODS_PER_EVENT)",
        ),
        (
            entry(type="scale_up", pod_count="1", template="huge"),
            "UnknownTemplate",
            "field template is 'huge', expected gpu, small",
        ),
        (
            ((b"type", b"scale_up"), (b"pod_count", b"1"), (b"x", b"\xff")),
            "NotUtf8",
            "field 'x' holds b'\\xff', expected UTF-8 text",
        ),
        (
            entry(type="scale_up", pod_count="1", x="a\0b"),
            "BadMetadata",
            "field 'x' holds 'a\\x00b', expected text without a NUL byte",
        ),
        (
            (*entry(type="scale_up", pod_count="1"), (b"a-b", b"1"), (b"a.b", b"2")),
            "DuplicateName",
            "metadata 'a-b' and 'a.b' both become OTTO_META_A_B, expected names that differ in letters or digits",
        ),
        (
            (*entry(type="scale_up", pod_count="1"), (b"type", b"scale_down")),
            "DuplicateField",
            "field type is given twice ('scale_down' last), expected once",
        ),
        (
            entry(type="scale_up", pod_count="1", x="y" * 200),
            "MetadataTooLarge",
            "metadata and task_id are 201 bytes, expected at most 200 (MAX_METADATA_BYTES)",
        ),
        (
            (*entry(type="scale_up", pod_count="1"), *((b"%d" % number, b"") for number in range(3899))),
            "TooManyFields",
            "the entry has 3901 fields, expected at most 3900",
        ),
        (
            entry(type="scale_up", pod_count="1", otto_specs="{}"),
            "UnknownField",
            "field 'otto.specs' begins with the reserved otto., expected one of "
            "otto.parent, otto.pipeline, otto.remain, otto.replay_of, otto.request_id, otto.spec",
        ),
    ],
)
def test_refusals_name_field_value_and_expectation(
    pairs: tuple[tuple[bytes, bytes], ...], cause: str, reason: str
) -> None:
    """A refused entry says in one sentence what to mend."""
    assert (refusal(pairs).cause, refusal(pairs).reason) == (cause, reason)


def test_a_stage_with_more_fields_than_can_be_added_is_refused() -> None:
    """The pipeline's metadata and the stage's config make one entry, which a script adds in one command."""
    config = {f"c{number}": "" for number in range(1000)}
    pipeline = {"pipeline_id": "p", "stages": [{"stage_id": "s", "worker_count": 1, "config": config}]}
    fields = entry(type="pipeline", otto_pipeline=json.dumps(pipeline))
    bad = parse_entry("1-0", (*fields, *((b"%d" % number, b"") for number in range(2950))), Limits())
    assert isinstance(bad, BadEntry)
    assert bad.reason == (
        "field otto.pipeline.stages[0] makes an event that is refused: the entry has 3956 fields, expected at most 3900"
    )


def test_an_environment_string_that_no_program_could_get_is_refused() -> None:
    """Metadata whose JSON passes 128 KiB would make exec fail, even where its bytes are allowed."""
    pairs = (*entry(type="scale_up", pod_count="1"), (b"x", b"\x01" * 40_000))
    bad = parse_entry("1-0", pairs, Limits(max_metadata_bytes=65_536))
    assert isinstance(bad, BadEntry)
    assert bad.cause == "MetadataTooLarge"
    assert "environment string" in bad.reason


@pytest.mark.parametrize(
    "stamp",
    [
        *("1756659802", "1756659802.9", "0", "-1.5", "1.756659802e9"),
        *("2025-08-31T17:03:22Z", "2025-08-31T17:03:22+09:00", "2025-08-31t17:03:22.123456789z"),
        *("2025-08-31 17:03:22-00:00", "2024-02-29T00:00:00Z"),
    ],
)
def test_timestamps_are_kept(stamp: str) -> None:
    """Unix seconds and RFC 3339 are fine and kept as they came."""
    event = parse_entry("1-0", entry(type="scale_up", pod_count="1", timestamp=stamp), LIMITS)
    assert isinstance(event, Event)
    assert (event.timestamp, event.note) == (stamp, "")


@pytest.mark.parametrize(
    "stamp",
    [
        *("yesterday", "", " ", "nan", "-nan", "NaN", "inf", "-inf", "Infinity"),
        *("1_000", " 5", "5 ", "0x10", "1e", "\u0663"),
        *("2025-08-31", "2025-W35", "17:03:22", "2025-08-31T17:03:22", "2025-08-31T17:03Z"),
        *("20250831T170322", "2025-08-31T17Z", "2025-02-30T00:00:00Z", "2025-08-31T25:00:00Z"),
    ],
)
def test_an_odd_timestamp_refuses_nothing(stamp: str) -> None:
    """A timestamp that is neither is kept and noted."""
    event = parse_entry("1-0", entry(type="scale_up", pod_count="1", timestamp=stamp), LIMITS)
    assert isinstance(event, Event)
    assert event.timestamp == stamp
    assert event.note == f"timestamp is {stamp!r}, neither Unix seconds nor RFC 3339; kept as it is"


NAMES = st.one_of(
    st.sampled_from([b"type", b"event_id", b"pod_count", b"task_id", b"timestamp", b"template", b"otto.spec", b"x"]),
    st.binary(),
)
VALUES = st.one_of(
    st.sampled_from([b"scale_up", b"scale_down", b"cancel", b"1-0", b"1", b"-1", b"1e3", b"gpu"]),
    st.binary(max_size=300),
)
ENTRIES = st.lists(st.tuples(NAMES, VALUES), max_size=8).map(tuple)


@given(pairs=ENTRIES)
def test_any_bytes_give_an_event_or_a_reason(pairs: tuple[tuple[bytes, bytes], ...]) -> None:
    """Whatever stands in an entry, the answer is an event within the limits or a refusal with cause and reason."""
    verdict = parse_entry("5-1", pairs, LIMITS)
    if isinstance(verdict, Event):
        has_no_count = (verdict.type == "cancel" and verdict.target) or (verdict.remain is not None)
        assert 1 <= verdict.pod_count <= LIMITS.max_pods or has_no_count
        assert tuple((name.encode(), value.encode()) for name, value in verdict.entry) == pairs
    else:
        assert verdict.cause.isidentifier()
        assert "expected" in verdict.reason
        assert verdict.entry == pairs


@given(pairs=ENTRIES)
def test_a_dead_letter_restores_exactly_what_came_in(pairs: tuple[tuple[bytes, bytes], ...]) -> None:
    """Dumped and loaded again, the original pairs are the same bytes in the same order."""
    assert load_entry(dump_entry(pairs)) == pairs
