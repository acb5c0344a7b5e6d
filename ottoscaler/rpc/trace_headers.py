"""The trace context of a call: in its headers, where instrumented clients put it, or in its message's metadata."""

from __future__ import annotations

from typing import Any, TypeVar

import grpc
import msgspec

from ottoscaler.trace_context import FIELDS, TRACEPARENT

Call = TypeVar("Call")


def with_trace(call: Call, context: grpc.ServicerContext) -> Call:
    """The call with the trace context of its headers in its metadata; one that is there already stays."""
    metadata: Any = getattr(call, "metadata", None)
    if metadata is None or TRACEPARENT in metadata:
        return call
    headers: Any = context.invocation_metadata() or ()
    given = {name: value for name, value in headers if name in FIELDS and isinstance(value, str)}
    return msgspec.structs.replace(call, metadata={**metadata, **given}) if TRACEPARENT in given else call  # type: ignore[type-var]  # what has metadata is a Struct
