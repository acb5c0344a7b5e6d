"""The trace context of a gRPC call, from its headers or its metadata to the event."""

from __future__ import annotations

from typing import Any

import pytest

from ottoscaler.calls.asking import scale_down_pairs, scale_up_pairs
from ottoscaler.calls.pipeline_entry import pipeline_pairs
from ottoscaler.events import Event, Limits, parse_entry
from ottoscaler.rpc.door import PipelineCall, ScaleAnswer, ScaleDownCall, ScaleUpCall, StageCall
from ottoscaler.rpc.http2.heads import Head
from ottoscaler.rpc.trace_headers import with_trace
from ottoscaler.rpc.v1 import scaling_pb2
from tests.rpc.stage import call, open_door

ONE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
GIVEN = ("traceparent", ONE)
CALLS: dict[str, Any] = {
    "up": lambda metadata: scale_up_pairs(ScaleUpCall(worker_count=1, metadata=metadata), Limits(), 0.0),
    "down": lambda metadata: scale_down_pairs(ScaleDownCall(target=1, metadata=metadata), Limits(), 0.0),
    "pipeline": lambda metadata: pipeline_pairs(
        PipelineCall(pipeline_id="p", stages=(StageCall(stage_id="s", worker_count=1),), metadata=metadata),
        Limits(),
        0.0,
    ),
}


async def pairs_of(kind: str, metadata: dict[str, str]) -> Any:
    """The entry of a call."""
    pairs = CALLS[kind](metadata)
    return await pairs if kind == "pipeline" else pairs


@pytest.mark.parametrize("kind", CALLS)
async def test_metadata_becomes_the_fields_of_the_event(kind: str) -> None:
    """A trace context in a call's metadata is that of its event, and no metadata of it."""
    pairs = await pairs_of(kind, {"traceparent": ONE, "tracestate": "a=1", "b": "2"})
    event = parse_entry("1-0", tuple((name.encode(), value.encode()) for name, value in pairs), Limits())
    assert isinstance(event, Event)
    assert (event.context, event.metadata) == ((ONE, "a=1"), (("b", "2"),))


@pytest.mark.parametrize("kind", CALLS)
async def test_a_malformed_context_refuses_no_call(kind: str) -> None:
    """It is left out of the entry."""
    assert (
        not {"traceparent", "tracestate"} & dict(await pairs_of(kind, {"traceparent": "x", "tracestate": "a=1"})).keys()
    )


@pytest.mark.slow_clock
@pytest.mark.parametrize(
    ("headers", "metadata", "expected"),
    [
        ((GIVEN, ("tracestate", "a=1")), {}, {"traceparent": ONE, "tracestate": "a=1"}),
        ((GIVEN, ("tracestate", "a=1")), {"traceparent": OTHER}, {"traceparent": OTHER}),
        ((("tracestate", "a=1"),), {}, {}),
        ((GIVEN, ("tracestate", "a=1"), ("tracestate", "b=2")), {}, {"traceparent": ONE, "tracestate": "a=1,b=2"}),
    ],
)
async def test_headers_are_heard(
    headers: tuple[tuple[str, str], ...], metadata: dict[str, str], expected: dict[str, str]
) -> None:
    """What instrumented clients send as headers reaches the service, several of one name as one list, as HTTP has it;
    the message's own metadata wins.
    """
    async with open_door() as scene:
        scene.door.answer = ScaleAnswer(status="success")
        request = scaling_pb2.ScaleRequest(worker_count=1, metadata=metadata)
        await call(scene.stub.ScaleUp, request, metadata=headers)
        (asked,) = scene.door.asked
        assert asked.metadata == expected


def test_a_context_that_is_given_twice_in_headers_counts_as_not_given() -> None:
    """As in an entry: whichever of the two was meant, neither is taken."""
    head = Head((GIVEN, ("traceparent", OTHER), ("tracestate", "a=1")))
    asked = with_trace(ScaleUpCall(worker_count=1), head)
    assert not {"traceparent", "tracestate"} & dict(scale_up_pairs(asked, Limits(), 0.0)).keys()
