"""A handler that takes smaller messages than gRPC servers do by default."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
import trio

from ottoscaler.errors import MessageTooLarge, Unavailable
from ottoscaler.logs.backlog import Backlog, Room
from ottoscaler.logs.forwarding import HandlerReceiver
from ottoscaler.logs.lane import Sender
from ottoscaler.logs.lines import LogLine
from ottoscaler.logs.mark import Gap, Mark
from ottoscaler.logs.messages import Who, Wording
from ottoscaler.logs.outbox import Outbox
from ottoscaler.rpc.handler_link import _unavailable, open_handler
from ottoscaler.rpc.v1 import worker_logs_pb2 as pb
from tests.rpc.narrow_server import open_narrow_server

STAMP = "2026-11-20T20:41:21.000000000Z"
LIMIT = 100_000


@contextmanager
def open_narrow_handler(got: list[Any]) -> Iterator[int]:
    """An otto-handler that takes no message above `LIMIT` bytes; its port."""

    def forward(entries: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for entry in entries:
            got.append(entry)
            yield pb.LogForwardResponse()

    serve: Any = grpc.stream_stream_rpc_method_handler(
        forward, pb.WorkerLogEntry.FromString, lambda message: message.SerializeToString()
    )
    with open_narrow_server("ottoscaler.v1.OttoHandlerLogService", {"ForwardWorkerLogs": serve}, LIMIT) as port:
        yield port


class Worker:
    """A worker with all that it said."""

    def __init__(self, receiver: HandlerReceiver, name: str) -> None:
        self.gaps: list[Gap] = []
        self.backlog = Backlog(Room(1 << 30), lambda: self.sender.stir())
        self.outbox = Outbox(self.backlog, Mark())
        wording = Wording(Who(name, "task-1", "5-0", 1, 1, "otto"))
        self.sender = Sender(self.outbox, self.backlog, wording.encode, lambda: None)
        self.sender.left_out = self.gaps.append
        receiver.attach(self.sender)

    async def say(self, *sizes: int) -> None:
        """A line of each size."""
        await self.backlog.put([LogLine(STAMP, b"x" * size, at, at) for at, size in enumerate(sizes, start=1)])


@pytest.mark.slow_clock
async def test_a_line_that_is_too_large_for_the_handler_is_one_gap() -> None:
    """All lines come but those that the handler cannot take, in whose places a gap goes; other workers on the stream
    lose none, and nobody waits for the grace.
    """
    got: list[Any] = []
    with open_narrow_handler(got) as port, trio.fail_after(45):
        async with open_handler(f"127.0.0.1:{port}", tls=False, ca=None, token=None) as handler:
            receiver = HandlerReceiver(handler, trio.lowlevel.checkpoint)
            loud, quiet = Worker(receiver, "loud"), [Worker(receiver, f"quiet-{at}") for at in range(8)]
            async with trio.open_nursery() as nursery:
                await nursery.start(receiver.run)
                await loud.say(10, 90_000, 200_000, 10, 150_000, 10)
                for worker in quiet:
                    await worker.say(*[10] * 50)
                while not all(worker.outbox.is_empty for worker in (loud, *quiet)):  # noqa: ASYNC110 - nothing says so
                    await trio.sleep(0.05)
                nursery.cancel_scope.cancel(reason="all is said")
    for name, numbers in [("loud", [1, 2, 4, 6]), *((f"quiet-{at}", range(1, 51)) for at in range(8))]:
        lines = {int(one.metadata["line"]) for one in got if one.worker_id == name and one.metadata["line"]}
        assert sorted(lines) == list(numbers)
    told = {(one.metadata["gap"], one.metadata["from"], one.metadata["certain"]) for one in got if one.metadata["gap"]}
    assert told == {("TooLarge", STAMP, "true")}
    assert [gap.why for gap in loud.gaps] == ["TooLarge"] * 2
    assert loud.outbox.mark.line == 6


@pytest.mark.parametrize(
    ("words", "is_for_its_size"),
    [
        ("RESOURCE_EXHAUSTED: SERVER: Received message larger than max (1048622 vs. 100000)", True),
        ("RESOURCE_EXHAUSTED: Received message larger than max (1048622 vs 100000)", True),
        ("RESOURCE_EXHAUSTED: grpc: received message larger than max (1048622 vs. 100000)", True),
        ("RESOURCE_EXHAUSTED: gRPC message exceeds maximum size 100000: 1048622", True),
        ("RESOURCE_EXHAUSTED: Received message exceeds the maximum configured message size.", True),
        ("OUT_OF_RANGE: Error, decoded message length too large: found 1048622 bytes, the limit is: 100000", True),
        ("RESOURCE_EXHAUSTED: out of quota", False),
        ("RESOURCE_EXHAUSTED: Sent message larger than max (1048622 vs. 100000)", False),
        ("UNAVAILABLE: the message broker has too large a queue", False),
    ],
)
def test_servers_words_for_a_message_that_is_too_large(words: str, is_for_its_size: bool) -> None:
    """What servers of six makes say of a message's size is told from all else that ends a stream."""
    error = _unavailable("here:1", words)
    assert isinstance(error, Unavailable)
    assert isinstance(error, MessageTooLarge) is is_for_its_size
