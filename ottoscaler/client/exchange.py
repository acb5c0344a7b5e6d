"""One connection to the handler: gRPC's blocking calls in threads on one side, tasks on the other.

Lines go into a queue that gRPC reads in a thread of its own. A second thread reads the answers, a third hands them to
the task that asks for them, all that are there at a time: so a thousand answers cost few changes between thread and
task. Whatever cancels a task here cancels the gRPC call, which ends the threads.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import grpc

from ottoscaler.client.place import Handler
from ottoscaler.rpc.v1 import log_streaming_pb2, log_streaming_pb2_grpc

T = TypeVar("T")
_is_too_large = re.compile(
    r"(received|grpc) message (larger than|exceeds)( the)? max|decoded message length too large", re.IGNORECASE
).search
"""The words of gRPC's core, Node, Go, Java, .NET and Rust; the code is that of a quota that is used up, too."""


class Cut(Exception):
    """The connection is gone, or there was none; `code` is gRPC's name of what happened."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(f"{code}: {message}" if message else code)

    @property
    def is_for_size(self) -> bool:
        """Whether the handler takes no message as large as one that it was sent."""
        return _is_too_large(str(self)) is not None


class Exchange:
    """A channel with, at most, one stream of lines. Used by tasks of one event loop."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        try:
            self._channel = handler.open_channel()
        except OSError as error:
            raise Cut("NO_CERTIFICATE", f"{error.filename}: {error.strerror}") from error
        self._stub: Any = log_streaming_pb2_grpc.LogStreamingServiceStub(self._channel)
        self._threads = anyio.CapacityLimiter(2)  # not from those that the program may need
        self._lines: SimpleQueue[Any] = SimpleQueue()
        self._answers: deque[Any] = deque()
        self._ended: Cut | None = None
        self._news = threading.Condition()

    def close(self) -> None:
        """Cancel what runs; all threads end."""
        self._lines.put(None)
        self._channel.close()

    async def register(self, registration: log_streaming_pb2.WorkerRegistration, seconds: float) -> Any:
        """The answer to a registration. Raises Cut."""
        call = self._stub.RegisterWorker.future(registration, timeout=seconds, metadata=self._handler.metadata)
        return await self._in_thread(call.result, call.cancel)

    def open_stream(self) -> Callable[[], Coroutine[Any, Any, None]]:
        """Open the stream of lines; to be run in a task beside: what reads its answers, until the stream ends."""
        call = self._stub.StreamLogs(iter(self._lines.get, None), metadata=self._handler.metadata)

        async def read() -> None:
            await self._in_thread(partial(self._read, call), call.cancel)

        return read

    def send(self, lines: Iterable[log_streaming_pb2.LogEntry]) -> None:
        """Have the lines sent, in order."""
        for line in lines:
            self._lines.put(line)

    async def take_answers(self, seconds: float) -> list[Any]:
        """All answers that came since; none only if none came for so long. Raises Cut when the stream has ended."""
        return await self._in_thread(partial(self._wait_answers, seconds), self._wake)

    def _read(self, call: Iterable[Any]) -> None:
        """In a thread: collect answers until the stream ends."""
        ended = Cut("OK", "the handler has ended the stream")
        try:
            for answer in call:
                with self._news:
                    self._answers.append(answer)
                    self._news.notify()
        except grpc.RpcError as error:
            ended = _cut(error)
        finally:
            with self._news:
                self._ended = ended
                self._news.notify()

    def _wait_answers(self, seconds: float) -> list[Any]:
        """In a thread."""
        with self._news:
            self._news.wait_for(lambda: self._answers or self._ended is not None, seconds)
            answers = list(self._answers)
            self._answers.clear()
        if not answers and self._ended is not None:
            raise self._ended
        return answers

    def _wake(self) -> None:
        with self._news:
            self._ended = self._ended or Cut("CANCELLED", "")
            self._news.notify()

    async def _in_thread(self, function: Callable[[], T], cancel: Callable[[], object]) -> T:
        """Run a blocking function; `cancel` makes it return early, and is called where the task is cancelled."""
        try:
            return await anyio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=self._threads)
        except grpc.RpcError as error:
            raise _cut(error) from error
        except grpc.FutureCancelledError as error:
            raise Cut("CANCELLED", "") from error
        except BaseException:
            cancel()
            raise


def _cut(error: grpc.RpcError) -> Cut:
    """gRPC's error, which is also the call that failed, in our words."""
    code, details = getattr(error, "code", None), getattr(error, "details", None)
    return Cut(code().name if code else "UNKNOWN", (details() or "") if details else str(error))
