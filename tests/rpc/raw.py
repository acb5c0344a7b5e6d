"""A client of the door in a test, at the level of HTTP/2 frames, on a connection in memory."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import pytest
import trio
import trio.testing

from ottoscaler.rpc.http2.codes import Code
from ottoscaler.rpc.http2.framing import FrameJoiner, GoAway, prefixed
from ottoscaler.rpc.http2.peers import Peer
from ottoscaler.rpc.server import RpcServer
from ottoscaler.rpc.v1 import scaling_pb2
from tests.rpc.stage import FakeDoor, settings_with

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SCALE_UP, CHECK = "/ottoscaler.v1.OttoscalerService/ScaleUp", "/grpc.health.v1.Health/Check"
PIPELINE = "/ottoscaler.v1.OttoscalerService/ExecutePipeline"
ONE = scaling_pb2.ScaleRequest(worker_count=1).SerializeToString()
PEER = Peer("10.0.0.7", 4711)
Headers = list[tuple[str, str]]


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    """One frame in bytes."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class Goodbyes(FrameJoiner):
    """Keeps every GOAWAY."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[GoAway] = []

    def feed(self, piece: bytes | bytearray) -> bytes:
        """As it is there, and notes what was taken out."""
        ready = super().feed(piece)
        if self.goaway is not None:
            self.heard.append(self.goaway)
            self.goaway = None
        return ready


@dataclass
class Stream:
    """What came of one call."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    pieces: list[int] = field(default_factory=list)
    is_ended: bool = False
    reset: int | None = None

    @property
    def code(self) -> Code | None:
        """How it ended; None: it has not."""
        return Code(int(self.headers["grpc-status"])) if "grpc-status" in self.headers else None


class Client:
    """Sends what the test says and takes in what comes."""

    def __init__(self, transport: Any, settings: dict[int, int], opens_windows: bool) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.local_settings = h2.settings.Settings(client=True, initial_values=cast(Any, settings))
        self.transport = transport
        self.goodbyes = Goodbyes()
        self.streams: dict[int, Stream] = {}
        self.echoes = 0
        self.closed = trio.Event()
        self.answers_pings = True
        self._opens_windows = opens_windows
        self._came = trio.Event()
        self._sending = trio.Lock()

    async def flush(self) -> None:
        """Send what h2 has."""
        async with self._sending:
            if data := self.h2.data_to_send():
                await self._send(data)

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        async with self._sending:
            await self._send(data)

    async def _send(self, data: bytes) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self.transport.send_all(data)

    async def begin(
        self, path: str, message: bytes | None = None, *, headers: Headers | None = None, is_whole: bool = True
    ) -> int:
        """Begin a call, with its message where one is given; its number."""
        number = self.h2.get_next_available_stream_id()
        words = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x", "te": "trailers"}
        words |= {"content-type": "application/grpc", **dict(headers or [])}
        self.h2.send_headers(number, [(name, value) for name, value in words.items() if value])
        self.streams[number] = Stream()
        if message is not None:
            self.h2.send_data(number, prefixed(message), end_stream=is_whole)
        await self.flush()
        return number

    async def call(self, path: str, message: bytes = b"", headers: Headers | None = None) -> Stream:
        """A call, and its answer."""
        number = await self.begin(path, message, headers=headers)
        return await self.wait_end(number)

    async def wait_end(self, number: int) -> Stream:
        """Until that call is over."""
        await self.wait(lambda: self.streams[number].is_ended or self.streams[number].reset is not None)
        return self.streams[number]

    async def wait(self, is_so: Any) -> None:
        """Until something that came makes it so."""
        with trio.fail_after(200):
            while not is_so() and not self.closed.is_set():
                self._came = trio.Event()
                await self._came.wait()
        assert is_so()

    async def run(self) -> None:
        """Take in what comes."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, h2.exceptions.ProtocolError):
            while data := await self.transport.receive_some(65536):
                for event in self.h2.receive_data(self.goodbyes.feed(data)):
                    self._take(event)
                if self.answers_pings:
                    await self.flush()
                self._came.set()
        self.closed.set()
        self._came.set()

    def _take(self, event: Any) -> None:
        stream = self.streams.get(getattr(event, "stream_id", None) or 0, Stream())
        if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
            stream.headers.update(cast(Any, event.headers))
        elif isinstance(event, h2.events.DataReceived):
            stream.body += event.data
            stream.pieces.append(len(event.data))
            if self._opens_windows:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            stream.is_ended = True
        elif isinstance(event, h2.events.StreamReset):
            stream.reset = int(event.error_code or 0)
        elif isinstance(event, h2.events.PingAckReceived):
            self.echoes += 1


@dataclass
class Stage:
    """A server without a port, and a client on one connection to it."""

    server: RpcServer
    door: FakeDoor
    client: Client
    over: trio.Event
    nursery: trio.Nursery

    async def connect(self, host: str) -> Client:
        """Another client, at an address of its own."""
        far, near = trio.testing.memory_stream_pair()
        client = Client(far, {}, opens_windows=True)
        self.nursery.start_soon(self.server._converse, near, Peer(host, 4711), b"")
        self.nursery.start_soon(client.run)
        client.h2.initiate_connection()
        await far.send_all(client.h2.data_to_send()[len(PREFACE) :])
        return client

    def connections(self) -> int:
        """How many there are."""
        return len(self.server._connections)

    def places(self) -> int:
        """How many calls hold a place."""
        methods = self.server._servicer._methods.values()
        lanes = {method.lane for method in methods}
        return sum(lane._in_use.total() for lane in lanes | {lane.hall for lane in lanes if lane.hall})


@asynccontextmanager
async def open_raw(
    *,
    settings: dict[int, int] | None = None,
    opens_windows: bool = True,
    transports: Sequence[Any] = (),
    **values: object,
) -> AsyncIterator[Stage]:
    """A client on a connection of the door that has `values` as its GRPC_ settings, until the end of the block."""
    door, over = FakeDoor(), trio.Event()
    server = RpcServer(door, settings_with(**values))
    far, near = transports or trio.testing.memory_stream_pair()
    client = Client(far, settings or {}, opens_windows)

    async def serve() -> None:
        await server._converse(near, PEER, b"")
        await near.aclose()
        over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        nursery.start_soon(client.run)
        client.h2.initiate_connection()
        await far.send_all(client.h2.data_to_send()[len(PREFACE) :])
        yield Stage(server, door, client, over, nursery)
        await trio.aclose_forcefully(far)
        with trio.fail_after(5):
            await over.wait()
        nursery.cancel_scope.cancel(reason="the test is over")


def logged(caplog: pytest.LogCaptureFixture, words: str = "connection refused") -> list[dict[str, Any]]:
    """The facts of the lines that say these words."""
    return [vars(record)["facts"] for record in caplog.records if record.message == words]


def codes() -> Any:
    """HTTP/2's error codes."""
    return h2.errors.ErrorCodes
