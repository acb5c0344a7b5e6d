"""The trace context of a call: in its headers, where instrumented clients put it, or in its message's metadata."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from ottoscaler.rpc.http2.heads import Head
from ottoscaler.trace_context import FIELDS, TRACEPARENT

Call = TypeVar("Call")


def with_trace(call: Call, head: Head) -> Call:
    """The call with the trace context of its headers in its metadata; one that is there already stays. Several headers
    of one name are one list (RFC 9110, section 5.3): of `tracestate` that is one, of `traceparent` it is none.
    """
    metadata: Any = getattr(call, "metadata", None)
    if metadata is None or TRACEPARENT in metadata:
        return call
    given: dict[str, str] = {}
    for name, value in head.fields:
        if name in FIELDS:
            given[name] = f"{given[name]},{value}" if name in given else value
    return msgspec.structs.replace(call, metadata={**metadata, **given}) if TRACEPARENT in given else call  # type: ignore[type-var]  # what has metadata is a Struct
