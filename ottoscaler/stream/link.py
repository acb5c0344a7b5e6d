"""One connection to Redis, driven by one thread at a time, and given up within 0.2 s when its caller is cancelled.

The thread is never abandoned: it could take an entry that nobody handles. On a cancel it gets a moment to finish (and
what it brings back is still returned); then its socket is shut down, which makes it return at once.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import outcome
import trio
from redis.exceptions import RedisError

from ottoscaler.errors import FixYourCall, Unavailable
from ottoscaler.parsing import RedisAddress
from ottoscaler.stream.failures import translated
from ottoscaler.stream.wire import Breaker, RedisConnection, make_connection

T = TypeVar("T")
Exchange = Callable[..., Any]
GRACE = 0.15  # seconds from a cancel until the socket is shut down


class Link:
    """One connection; calls queue for it.

    `timeout` (seconds) bounds connecting and each wait for an answer. `greet` is called in the thread after each
    connect, with the function that sends a command and returns its answer.
    """

    def __init__(
        self,
        address: RedisAddress,
        *,
        timeout: float,
        greet: Callable[[Exchange], None] | None = None,
        grace: float = GRACE,
    ) -> None:
        self._address = address
        self._timeout = timeout
        self._greet = greet
        self._grace = grace
        self._breaker = Breaker()
        self._connection: RedisConnection = make_connection(address, self._breaker, timeout)
        self.connects = 0
        """How often it was connected."""
        self._turn = trio.Lock()
        self._limiter = trio.CapacityLimiter(1)

    async def command(self, *words: str | bytes | int | float) -> Any:
        """Send one command; its raw answer (bytes, numbers, lists). Raises as `translated` says."""
        return await self.run(lambda exchange: exchange(*words))

    async def run(self, work: Callable[[Exchange], T], interrupt: Callable[[], Awaitable[None]] | None = None) -> T:
        """Let `work` talk to Redis in the thread.

        On a cancel `interrupt` runs beside it until the grace is over. A result that arrives all the same is
        returned, so that nothing delivered is lost; the caller's next checkpoint is the one that is cancelled.
        """
        async with self._turn:
            with translated(str(self._address)):
                await self._resolve()
                answer = await self._run_in_thread(work, interrupt)
                if isinstance(answer, outcome.Error):
                    await trio.lowlevel.checkpoint_if_cancelled()
                return answer.unwrap()

    def disconnect(self) -> None:
        """Close the connection; the next call opens it again. Not while a call is under way."""
        self._connection.disconnect()
        self._breaker.release()

    async def _resolve(self) -> None:
        connection = self._connection
        if self._address.scheme == "unix" or _is_open(connection):
            return
        with trio.move_on_after(self._timeout):
            try:
                found = await trio.socket.getaddrinfo(self._address.host, self._address.port, type=socket.SOCK_STREAM)
            except UnicodeError as error:
                raise FixYourCall(f"{self._address} cannot be resolved, expected a host name: {error}") from error
            connection.addresses = [(family, address) for family, _, _, _, address in found]
            return
        raise Unavailable(f"the name {self._address.host} was not resolved in time", address=str(self._address))

    async def _run_in_thread(
        self, work: Callable[[Exchange], T], interrupt: Callable[[], Awaitable[None]] | None
    ) -> outcome.Outcome[T]:
        answers: list[outcome.Outcome[T]] = []
        done = trio.Event()

        async def drive_thread() -> None:
            with trio.CancelScope(shield=True):  # its limit: the socket's timeout, and the breaker after a cancel
                answers.append(await trio.to_thread.run_sync(outcome.capture, self._talk, work, limiter=self._limiter))
            done.set()

        self._breaker.arm()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drive_thread)
            try:
                await done.wait()
            except trio.Cancelled:  # kept for the caller's next checkpoint: an answer may still arrive
                nursery.cancel_scope.shield = True  # its limit: the grace, then the breaker
                await self._wait_a_moment(done, interrupt)
        return answers[0]

    async def _wait_a_moment(self, done: trio.Event, interrupt: Callable[[], Awaitable[None]] | None) -> None:
        with trio.move_on_after(self._grace):
            async with trio.open_nursery() as nursery:
                if interrupt is not None:
                    nursery.start_soon(interrupt)
                await done.wait()
                nursery.cancel_scope.cancel(reason="the thread has returned")
        if not done.is_set():
            self._breaker.shut()
            await done.wait()

    def _talk(self, work: Callable[[Exchange], T]) -> T:
        connection = self._connection
        if _is_open(connection) and _is_dead(connection):
            connection.disconnect()  # it died while idle; nothing was sent, so opening another repeats nothing
        try:
            if not _is_open(connection):
                connection.connect()
                self.connects += 1
                if self._greet is not None:
                    self._greet(self._exchange)
            return work(self._exchange)
        finally:
            if not _is_open(connection):
                self._breaker.release()

    def _exchange(self, *words: str | bytes | int | float) -> Any:
        self._connection.send_command(*words)
        return self._connection.read_response()


def _is_open(connection: RedisConnection) -> bool:
    return connection._sock is not None  # the public property came with redis-py 7


def _is_dead(connection: RedisConnection) -> bool:
    """Whether an idle connection has something to read: its end, or an answer that belongs to nobody."""
    try:
        return bool(connection.can_read(0))
    except (OSError, RedisError):
        return True
