"""The trace context of an entry, read by the rules of the W3C."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ottoscaler.events import Event, Limits, parse_entry
from ottoscaler.trace_context import NO_CONTEXT, TraceContext, is_traceparent, is_tracestate, read_context

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"
HEX = st.text("0123456789abcdef", min_size=2, max_size=2)


def hexes(length: int) -> st.SearchStrategy[str]:
    """So many lower-case hex digits, not all zero."""
    return st.text("0123456789abcdef", min_size=length, max_size=length).filter(lambda text: bool(text.strip("0")))


@given(hexes(32), hexes(16), HEX)
def test_version_00_is_read(trace: str, span: str, flags: str) -> None:
    """Whatever a producer of version 00 names is found again, digit by digit."""
    text = f"00-{trace}-{span}-{flags}"
    context = TraceContext(text)
    assert is_traceparent(text)
    assert (context.trace_id, context.span_id, context.flags) == (trace, span, int(flags, 16))


@given(HEX, st.text(max_size=5).map(lambda more: f"-{more}"))
@example("01", "-what the future will be like")
def test_later_versions_may_append(version: str, more: str) -> None:
    """A version after 00 may append fields behind a dash; 00 may not, and ff is no version."""
    is_later = version not in ("00", "ff") and "\n" not in more
    assert is_traceparent(f"{version}-{TRACE}-{SPAN}-01{more}") == is_later
    assert is_traceparent(f"{version}-{TRACE}-{SPAN}-01") == (version != "ff")


@pytest.mark.parametrize(
    "text",
    [
        GOOD.upper(),
        f" {GOOD}",
        f"{GOOD}\n",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-",
        f"01-{TRACE}-{SPAN}-01x",
        f"0g-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-０1",
    ],
)
def test_what_is_malformed_counts_as_not_given(text: str) -> None:
    """A traceparent that breaks a rule gives no context, and a sentence about it; the event is good all the same."""
    assert not is_traceparent(text)
    pairs = [("type", "scale_up"), ("pod_count", "1"), ("traceparent", text), ("tracestate", "a=1")]
    event = parse_entry("1-0", tuple((name.encode(), value.encode()) for name, value in pairs), Limits())
    assert isinstance(event, Event)
    assert (event.context, event.metadata) == (NO_CONTEXT, ())
    assert event.note.startswith("traceparent is ")
    assert event.note.endswith("ignored")


@given(st.lists(st.tuples(st.sampled_from(["traceparent", "tracestate", "other"]), st.text() | st.just(GOOD))))
def test_any_pairs_give_a_valid_context_or_none(pairs: list[tuple[str, str]]) -> None:
    """What is given on is valid, and was given exactly so; nothing is taken from a field that is there twice."""
    context, odd = read_context(pairs)
    parents = [value for name, value in pairs if name == "traceparent"]
    assert bool(context.traceparent) == (parents == [GOOD])
    assert bool(odd) == (parents not in ([], [""], [GOOD]))
    assert not context.tracestate or (context.traceparent and is_tracestate(context.tracestate))


@pytest.mark.parametrize(
    ("text", "is_good"),
    [
        ("", True),
        ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", True),
        ("a=1 , \t,b=2", True),
        ("fw529a3039@dt=FfFfFfFf", True),
        ("a=with spaces inside", True),
        (",".join(f"k{number}=v" for number in range(32)), True),
        (",".join(f"k{number}=v" for number in range(33)), False),
        ("a=1,a=2", False),
        ("A=1", False),
        ("1a=1", False),
        ("a=", False),
        ("a", False),
        ("a=b=c", False),
        ("a=ü", False),
        (f"{'k' * 256}={'v' * 256}", True),
        (f"{'k' * 257}=v", False),
        (f"k={'v' * 257}", False),
    ],
)
def test_tracestate_is_taken_whole_or_not_at_all(text: str, is_good: bool) -> None:
    """At most 32 members with keys and values as the W3C defines them, each key once; else there is none."""
    assert is_tracestate(text) == is_good
    assert read_context([("traceparent", GOOD), ("tracestate", text)]) == ((GOOD, text if is_good else ""), "")
