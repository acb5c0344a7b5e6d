"""The calls to otto-handler: a gRPC client of our own on Trio, which takes many lines for one write and one wake-up.

grpcio's client costs a hop between threads and a DATA frame for each line, twice what all else of forwarding costs.
Here lines that are sent together leave together, and answers are read as many at a time as have come. Entries travel
as bytes, so that what is the same for all lines of a worker is encoded once.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NamedTuple
from urllib.parse import unquote

import trio
from google.protobuf.message import DecodeError
from hpack import NeverIndexedHeaderTuple

from ottoscaler.errors import MessageTooLarge, Unavailable
from ottoscaler.rpc.http2.client import Connection, Exchange, Header, client_tls, open_connection
from ottoscaler.rpc.http2.framing import MessageReader, prefixed
from ottoscaler.rpc.v1.worker_logs_pb2 import LogForwardResponse, WorkerStatusAck
from ottoscaler.secret import Secret

_SERVICE = "/ottoscaler.v1.OttoHandlerLogService"
_HEADERS: tuple[Header, ...] = (
    ("te", "trailers"),
    ("content-type", "application/grpc+proto"),
    ("grpc-accept-encoding", "identity"),
    ("user-agent", "grpc-python-ottoscaler/1"),
)
_STATUS = {LogForwardResponse.ACK: "ACK", LogForwardResponse.RETRY: "RETRY", LogForwardResponse.DROP: "DROP"}
_HEARD = (WorkerStatusAck.RECEIVED, WorkerStatusAck.IGNORED)
_CODES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)


class Answer(NamedTuple):
    """What the handler said to one entry: ACK, RETRY or DROP, and for how many seconds it wants no more of the worker.

    A status that is none of these counts as RETRY: nothing is lost by it.
    """

    status: str
    throttle: float
    message: str = ""


class LogStream:
    """One ForwardWorkerLogs call; made by `Handler.open_log_stream`."""

    def __init__(self, address: str, exchange: Exchange, wake: Callable[[], None]) -> None:
        self._address = address
        self._exchange = exchange
        self._wake = wake
        self._messages = MessageReader()

    @property
    def is_leaving(self) -> bool:
        """The handler will end it: send nothing more, take what is answered still, and open another one."""
        return self._exchange.is_leaving

    def send(self, entries: Sequence[bytes]) -> None:
        """Send entries, behind those before them. Never waits; who sends limits how many are under way."""
        self._exchange.send(b"".join(map(prefixed, entries)))

    def take(self) -> list[Answer]:
        """The next answers that came, in order, and a wake for those behind. Raises `Unavailable` once the stream has
        ended and all were taken.
        """
        try:
            answers = [_read_answer(raw) for raw in self._messages.feed(self._exchange.take())]
        except (ValueError, DecodeError) as error:
            raise _unavailable(self._address, f"it answers what is no LogForwardResponse: {error}") from error
        if self._exchange.has_more or (answers and self._exchange.ended):
            self._wake()  # the news of the end came together with that of the last answers
        elif self._exchange.ended:
            raise _unavailable(self._address, _words(self._exchange))
        return answers


class Handler:
    """The way to otto-handler; made by `open_handler`. Each log stream has its own connection, states share one."""

    def __init__(self, address: str, tls: ssl.SSLContext | None, token: Secret | None, nursery: trio.Nursery) -> None:
        self.address = address
        host, _, port = address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._tls = tls
        self._token = token
        self._nursery = nursery
        self._shared: Connection | None = None
        self._turn = trio.Lock()

    @asynccontextmanager
    async def open_log_stream(self, wake: Callable[[], None]) -> AsyncIterator[LogStream]:
        """A stream for the time of the block; `wake` is called whenever there is news. Raises `Unavailable`."""
        async with self._open_connection() as connection:
            exchange = connection.open_exchange(f"{_SERVICE}/ForwardWorkerLogs", self._headers(), wake)
            yield LogStream(self.address, exchange, wake)

    async def notify(
        self,
        notification: bytes,
        seconds: float = 10.0,
        *,
        wait_open: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
    ) -> bool:
        """Tell of a worker's state; False where the handler neither received nor ignored it. Raises `Unavailable`
        without a connection, or an answer, in so many seconds each.

        `wait_open` returns when sending is allowed: it is asked last, for connecting may take long.
        """
        connection = await self._share_within(seconds)
        await wait_open()
        with trio.move_on_after(seconds):
            path = f"{_SERVICE}/NotifyWorkerStatus"
            exchange = connection.open_exchange(path, self._headers(seconds), lambda: None)
            try:
                exchange.send_last(prefixed(notification))
                await exchange.over.wait()
            finally:
                exchange.cancel()
            return self._read_ack(exchange)
        raise self._late("answer", seconds)

    async def _share_within(self, seconds: float) -> Connection:
        with trio.move_on_after(seconds):
            return await self._share()
        raise self._late("connection", seconds)

    def _late(self, what: str, seconds: float) -> Unavailable:
        return _unavailable(self.address, f"DEADLINE_EXCEEDED: no {what} within {seconds:g} s")

    def _read_ack(self, exchange: Exchange) -> bool:
        try:
            messages = MessageReader().feed(b"".join(iter(exchange.take, b"")))
            if exchange.headers.get("grpc-status") == "0" and messages:
                return WorkerStatusAck.FromString(messages[0]).status in _HEARD
        except (ValueError, DecodeError) as error:
            raise _unavailable(self.address, f"it answers what is no WorkerStatusAck: {error}") from error
        raise _unavailable(self.address, _words(exchange))

    async def _share(self) -> Connection:
        """The connection for states, opened where there is none that can be used."""
        async with self._turn:
            if self._shared is None or self._shared.failure or self._shared.is_leaving:
                self._shared = await self._nursery.start(self._keep)
            return self._shared

    async def _keep(self, *, task_status: trio.TaskStatus[Connection]) -> None:
        async with self._open_connection() as connection:
            task_status.started(connection)
            await connection.closed.wait()

    def _headers(self, seconds: float | None = None) -> list[Header]:
        headers = list(_HEADERS)
        if seconds is not None:
            headers.append(("grpc-timeout", f"{max(1, int(seconds * 1000))}m"))
        if self._token:  # never kept in a table of headers, on neither side
            headers.append(NeverIndexedHeaderTuple("authorization", f"Bearer {self._token.reveal()}"))
        return headers

    def _open_connection(self) -> AbstractAsyncContextManager[Connection]:
        return open_connection(f"otto-handler at {self.address}", self._host, self._port, self._tls)


ACKED = Answer("ACK", 0.0)
_is_plain_ack = re.compile(rb"(?:\x18[\x80-\xff]*[\x00-\x7f])?", re.DOTALL).fullmatch
"""Nothing, or a `sequence` alone: what nearly all answers are."""


def _read_answer(raw: bytes) -> Answer:
    if _is_plain_ack(raw):
        return ACKED
    one = LogForwardResponse.FromString(raw)
    return Answer(_STATUS.get(one.status, "RETRY"), one.throttle_ms / 1000, one.message)


def _words(exchange: Exchange) -> str:
    """How a call ended that should not have: by gRPC's status, by HTTP's, or by the connection's end."""
    headers = exchange.headers
    code = headers.get("grpc-status", "")
    if code == "0":
        return exchange.ended
    if code:
        name = _CODES[int(code)] if code.isdigit() and int(code) < len(_CODES) else f"code {code}"
        return f"{name}: {unquote(headers.get('grpc-message', ''))}"
    if headers.get(":status", "200") != "200":
        return f"it answers HTTP {headers[':status']}"
    return exchange.ended


_is_too_large = re.compile(
    r"(received|grpc) message (larger than|exceeds)( the)? max|decoded message length too large", re.IGNORECASE
).search
"""The words of gRPC's core, Node, Go, Java, .NET and Rust; the code is that of a quota that is used up, too."""


def _unavailable(address: str, words: str) -> Unavailable:
    kind = MessageTooLarge if _is_too_large(words) else Unavailable
    return kind(f"otto-handler at {address}: {words}", address=address)


@asynccontextmanager
async def open_handler(address: str, *, tls: bool, ca: bytes | None, token: Secret | None) -> AsyncIterator[Handler]:
    """The way to otto-handler, `host:port`, for the time of the block; nothing is connected before the first call.

    `ca` (PEM) is whom to trust with TLS, None: whom the system trusts. Raises ssl.SSLError for a `ca` that is none.
    """
    context = client_tls(ca) if tls else None
    async with trio.open_nursery() as nursery:
        yield Handler(address, context, token, nursery)
        nursery.cancel_scope.cancel(reason="otto-handler is called no more")
