"""A handler whose gRPC server takes smaller messages than the client was told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any

import anyio
import grpc
import pytest

from ottoscaler.client import Handler, Statistics, Worker, open_log_stream
from ottoscaler.rpc.v1 import log_streaming_pb2 as pb
from tests.rpc.narrow_server import open_narrow_server

LIMIT = 50_000


@contextmanager
def open_narrow_handler(got: list[Any]) -> Iterator[int]:
    """A handler that takes no message above `LIMIT` bytes, and does not say so when a worker registers; its port."""

    def stream(entries: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for entry in entries:
            got.append(entry)
            yield pb.LogResponse()

    def register(registration: Any, context: grpc.ServicerContext) -> Any:
        return pb.RegistrationResponse()

    handlers: dict[str, Any] = {
        "RegisterWorker": grpc.unary_unary_rpc_method_handler(
            register, pb.WorkerRegistration.FromString, lambda message: message.SerializeToString()
        ),
        "StreamLogs": grpc.stream_stream_rpc_method_handler(
            stream, pb.LogEntry.FromString, lambda message: message.SerializeToString()
        ),
    }
    with open_narrow_server("ottoscaler.v1.LogStreamingService", handlers, LIMIT) as port:
        yield port


async def program(port: int, lines: list[str], metadata: Mapping[str, str] = MappingProxyType({})) -> Statistics:
    """Send these lines; all but the last say this beside their text."""
    async with open_log_stream(Handler(f"127.0.0.1:{port}"), Worker("otto-agent-1")) as logs:
        with anyio.fail_after(30):
            for line in lines[:-1]:
                await logs.send(line, level="warn", metadata=metadata)
            await logs.send(lines[-1], level="warn", metadata={"kept": "yes"})
            await logs.flush()
    return logs.statistics()


def join(got: list[Any]) -> list[str]:
    """The lines, of which some came in parts."""
    whole, said = list[str](), ""
    for entry in got:
        said += entry.message
        if "continued" not in entry.metadata:
            whole.append(said)
            said = ""
    return whole


@pytest.mark.slow_clock
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_lines_go_in_parts_that_the_handler_takes(backend: str) -> None:
    """Where a stream ends because a line was too large, it goes again in smaller parts; no line stands in the way."""
    got: list[Any] = []
    lines = ["first", "a" * 200_000, "between", "b" * 300_000, "last"]
    with open_narrow_handler(got) as port:
        statistics = anyio.run(partial(program, port, lines), backend=backend)
    assert statistics == Statistics(acknowledged=5, dropped=0, left_out=0, waiting=0)
    assert list(dict.fromkeys(join(got))) == lines


@pytest.mark.slow_clock
def test_lines_that_say_too_much_beside_their_text_go_without_it() -> None:
    """What a line says beside its text is left out, and that is said, where it alone is more than the handler takes."""
    got: list[Any] = []
    lines = ["first", "second " * 500, "last"]
    with open_narrow_handler(got) as port:
        statistics = anyio.run(program, port, lines, {"much": "x" * 200_000})
    assert statistics == Statistics(acknowledged=3, dropped=0, left_out=0, waiting=0)
    assert list(dict.fromkeys(join(got))) == lines
    said = [(entry.message, entry.level, entry.metadata.get("left_out", "")) for entry in got]
    assert said[0] == ("first", "", "TooLarge")
    assert {left_out for message, _, left_out in said if message != "last"} == {"TooLarge"}
    assert said[-1] == ("last", "warn", "")
    assert got[-1].metadata["kept"] == "yes"
