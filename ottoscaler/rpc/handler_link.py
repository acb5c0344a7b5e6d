"""The calls to otto-handler: grpcio's threads on one side, Trio on the other.

A log stream takes encoded entries and gives the answers as they come, without waiting: who owns it is woken by a
callback. Entries travel as bytes, so that what is the same for all lines of a worker is encoded once.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, NamedTuple

import grpc
import trio

from ottoscaler.errors import Unavailable
from ottoscaler.rpc.v1.worker_logs_pb2 import LogForwardResponse, WorkerStatusAck
from ottoscaler.secret import Secret

_SERVICE = "/ottoscaler.v1.OttoHandlerLogService"
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
)
_STATUS = {LogForwardResponse.ACK: "ACK", LogForwardResponse.RETRY: "RETRY", LogForwardResponse.DROP: "DROP"}


class Answer(NamedTuple):
    """What the handler said to one entry: ACK, RETRY or DROP, and for how many seconds it wants no more of the worker.

    A status that is none of these counts as RETRY: nothing is lost by it.
    """

    status: str
    throttle: float
    message: str = ""


class LogStream:
    """One ForwardWorkerLogs call; made by `Handler.open_log_stream`."""

    def __init__(self, address: str, call: Any, requests: queue.SimpleQueue[bytes | None], wake: Callable[[], None]):
        self._address = address
        self._call = call
        self._requests = requests
        self._wake = wake
        self._answers: deque[Any] = deque()
        self._failure = ""
        self._is_posted = False
        self._token = trio.lowlevel.current_trio_token()

    def send(self, entry: bytes) -> None:
        """Send an entry, behind those before it. Never waits; who sends limits how many are under way."""
        self._requests.put(entry)

    def take(self) -> list[Answer]:
        """The answers that came since, in order. Raises `Unavailable` once the stream has ended and all were taken."""
        if not self._answers and self._failure:
            raise Unavailable(f"otto-handler at {self._address}: {self._failure}", address=self._address)
        self._is_posted = False
        if self._failure:
            self._wake()  # the news of the end may have come together with that of the last answers
        taken = [self._answers.popleft() for _ in range(len(self._answers))]
        return [Answer(_STATUS.get(one.status, "RETRY"), one.throttle_ms / 1000, one.message) for one in taken]

    def read(self) -> None:
        """In a thread: take in answers until the call ends."""
        try:
            for answer in self._call:
                self._answers.append(answer)
                self._post()
            self._failure = "it ended the stream"
        except grpc.RpcError as error:
            self._failure = _words(error)
        self._post()

    def _post(self) -> None:
        if self._is_posted:  # waking Trio for each answer would cost more than all else
            return
        self._is_posted = True
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._wake, idempotent=True)


class Handler:
    """A connection to otto-handler; made by `open_handler`."""

    def __init__(self, address: str, channel: grpc.Channel, token: Secret | None) -> None:
        self.address = address
        self._metadata = (("authorization", f"Bearer {token.reveal()}"),) if token else ()
        self._forward: Any = channel.stream_stream(
            f"{_SERVICE}/ForwardWorkerLogs",
            request_serializer=None,
            response_deserializer=LogForwardResponse.FromString,
        )
        self._notify: Any = channel.unary_unary(
            f"{_SERVICE}/NotifyWorkerStatus", request_serializer=None, response_deserializer=WorkerStatusAck.FromString
        )
        self._threads = trio.CapacityLimiter(16)

    @asynccontextmanager
    async def open_log_stream(self, wake: Callable[[], None]) -> AsyncIterator[LogStream]:
        """A stream for the time of the block; `wake` is called in Trio's thread whenever there is news."""
        requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        call: Any = self._forward(iter(requests.get, None), metadata=self._metadata)
        stream = LogStream(self.address, call, requests, wake)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, stream)
            try:
                yield stream
            finally:
                call.cancel()
                requests.put(None)

    async def _read(self, stream: LogStream) -> None:
        await trio.to_thread.run_sync(stream.read, abandon_on_cancel=True, limiter=self._threads)

    async def notify(self, notification: bytes, seconds: float = 10.0) -> bool:
        """Tell of a worker's state; False where the handler says ERROR. Raises `Unavailable` without an answer."""
        answered, token = trio.Event(), trio.lowlevel.current_trio_token()

        def post(_: object) -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(answered.set)

        future: Any = self._notify.future(notification, timeout=seconds, metadata=self._metadata)
        future.add_done_callback(post)
        try:
            await answered.wait()
        finally:
            future.cancel()
        try:
            ack = future.result()
        except grpc.RpcError as error:
            raise Unavailable(f"otto-handler at {self.address}: {_words(error)}", address=self.address) from error
        return bool(ack.status != WorkerStatusAck.ERROR)


def _words(error: Any) -> str:
    return f"{error.code().name}: {error.details()}"


@contextmanager
def open_handler(address: str, *, tls: bool, ca: bytes | None, token: Secret | None) -> Iterator[Handler]:
    """A channel to otto-handler, `host:port`, for the time of the block; nothing is connected before the first call.

    `ca` (PEM) is whom to trust with TLS, None: whom gRPC trusts by default.
    """
    if tls:
        credentials = grpc.ssl_channel_credentials(ca)
        channel = grpc.secure_channel(address, credentials, options=_OPTIONS)
    else:
        channel = grpc.insecure_channel(address, options=_OPTIONS)
    with channel:
        yield Handler(address, channel, token)
