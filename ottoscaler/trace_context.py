"""The W3C trace context that an event carries: which trace it belongs to, and which span of it asked for the event.

Read as https://www.w3.org/TR/trace-context/ says (sections 3.2 and 3.3): what is malformed counts as not given, and
harms nothing else. Pure; knows nothing of OpenTelemetry.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
FIELDS = frozenset({TRACEPARENT, TRACESTATE})
MOST_MEMBERS = 32
"""Of a tracestate."""
EXPECTED = "a W3C traceparent such as 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

_TRACEPARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?",
    re.ASCII,
)
_KEY = r"[a-z][-_*/a-z0-9]{0,255}|[a-z0-9][-_*/a-z0-9]{0,240}@[a-z][-_*/a-z0-9]{0,13}"
_VALUE = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER = re.compile(rf"(?P<key>{_KEY})={_VALUE}")


class TraceContext(NamedTuple):
    """A valid traceparent with its tracestate, as they came; both are empty where no trace is known."""

    traceparent: str = ""
    tracestate: str = ""

    @property
    def trace_id(self) -> str:
        """32 hex digits, or empty."""
        return self.traceparent[3:35]

    @property
    def span_id(self) -> str:
        """16 hex digits, or empty."""
        return self.traceparent[36:52]

    @property
    def flags(self) -> int:
        """Bit 0: whether the trace is recorded."""
        return int(self.traceparent[53:55] or "0", 16)

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """What of it is known, by name: fields of an entry, of a result."""
        return tuple((name, value) for name, value in zip(self._fields, self, strict=True) if value)


NO_CONTEXT = TraceContext()


def is_traceparent(text: str) -> bool:
    """Whether it names a trace and a span; what versions after 00 append is not looked at."""
    read = _TRACEPARENT.fullmatch(text)
    if not read or read["version"] == "ff" or (read["version"] == "00" and read["more"]):
        return False
    return bool(read["trace"].strip("0")) and bool(read["span"].strip("0"))


def is_tracestate(text: str) -> bool:
    """Whether it lists at most 32 members, each key once."""
    members = [member.strip(" \t") for member in text.split(",")]
    read = [_MEMBER.fullmatch(member) for member in members if member]
    keys = {match["key"] for match in read if match}
    return len(keys) == len(read) <= MOST_MEMBERS


def read_context(pairs: Iterable[tuple[str, str]]) -> tuple[TraceContext, str]:
    """The context among these pairs, and in a sentence what is odd about it, if anything.

    A traceparent that is malformed or given more than once begins no trace; a tracestate counts only beside a good
    one, and where it is well-formed itself. Several are one list, in their order.
    """
    given: dict[str, list[str]] = {name: [] for name in FIELDS}
    for name, value in pairs:
        if name in FIELDS:
            given[name].append(value)
    match given[TRACEPARENT]:
        case [] | [""]:
            return NO_CONTEXT, ""
        case [traceparent] if is_traceparent(traceparent):
            tracestate = ",".join(given[TRACESTATE])
            return TraceContext(traceparent, tracestate if is_tracestate(tracestate) else ""), ""
        case [traceparent]:
            shown = traceparent if len(traceparent) <= 80 else f"{traceparent[:77]}..."
            return NO_CONTEXT, f"traceparent is {shown!r}, expected {EXPECTED}; ignored"
    return NO_CONTEXT, "traceparent is given twice, expected once; ignored"
