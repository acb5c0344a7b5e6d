"""Serving: the port, the limits, and the drain.

The order of the drain: health says NOT_SERVING, calls are answered on for a while (balancers and clients learn late),
every client is told to begin its next calls elsewhere, the port is closed, calls that wait go on until the drain's time
is over, and what is left is told UNAVAILABLE.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

import trio
import trio_util

from ottoscaler.errors import SettingsError
from ottoscaler.log import log
from ottoscaler.rpc.access import Access, bind_address, is_local
from ottoscaler.rpc.door import Door
from ottoscaler.rpc.health import Health
from ottoscaler.rpc.http2.connection import FLUSH_SECONDS, Connection
from ottoscaler.rpc.http2.listening import Entrance, open_listeners, raise_file_limit
from ottoscaler.rpc.http2.peers import Peer, Refusals
from ottoscaler.rpc.lanes import Lane
from ottoscaler.rpc.servicer import SERVICE, Lanes, Servicer
from ottoscaler.rpc.tls import load_certificates
from ottoscaler.settings import Settings

ANSWER_ON_SECONDS = 3.0
"""After a SIGTERM endpoints still lead here for a while; and a call is no more than an entry on the stream. A door that
only this machine reaches has no endpoints.
"""
LINGER_SECONDS, QUIET_SECONDS = 2.0, 0.3
"""So much longer calls are answered at most where some are still begun: endpoints lag more than they should. It ends
when none was begun for the second of these.
"""
SHORT_CALLS, HEALTH_CALLS, WATCHING_CALLS, HALF_OPEN_CALLS = 32, 32, 32, 64
MORE_CALLS = 1000
"""Calls beyond all places that a client may begin on one connection, to be refused each with its reason."""


class Ending(Protocol):
    """The part of a `Drain` that the door needs."""

    requested: trio.Event
    deadline: float

    async def wait_deadline(self) -> None:
        """Return when the time of a requested drain is over."""


class RpcServer:
    """A server for `door`, made before it has its port. Raises `SettingsError` for files that cannot be used."""

    def __init__(self, door: Door, settings: Settings) -> None:
        access, certificates = Access(settings), load_certificates(settings)
        lanes = Lanes(
            Lane("waiting", settings.grpc_max_waiting_calls),
            Lane("short", SHORT_CALLS, Lane("half-open short", HALF_OPEN_CALLS)),
            Lane("health", HEALTH_CALLS, Lane("half-open health", HALF_OPEN_CALLS)),
            Lane("watching", WATCHING_CALLS),
        )
        self.address = bind_address(settings, certificates is not None)
        self._most_calls = sum(lane.limit for lane in lanes) + MORE_CALLS
        self._health, self._refusals = Health(SERVICE), Refusals()
        self._servicer = Servicer(
            door, access, self._health, lanes, self._refusals, largest=settings.grpc_max_message_bytes
        )
        self._secure = certificates.context if certificates else None
        self._connections: dict[Connection, None] = {}
        self._is_closed = False
        self._all_gone = trio.Event()

    async def serve(self, drain: Ending, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer calls until a drain is over, or until cancelled; once. Ready when calls are answered.

        Raises `SettingsError` for a port that is taken.
        """
        raise_file_limit()
        listeners = await open_listeners(self.address)
        try:
            await self._serve(listeners, drain, task_status)
        finally:
            self._refusals.tell()

    async def _serve(
        self, listeners: list[trio.SocketListener], drain: Ending, task_status: trio.TaskStatus[None]
    ) -> None:
        entrance = Entrance(self._secure, self._refusals, self._converse, self._dismiss)
        async with trio.open_nursery() as connections:
            connections.start_soon(self._refusals.run)
            async with trio.open_nursery() as port:
                accept = partial(trio.serve_listeners, entrance.handle, listeners, handler_nursery=connections)
                await port.start(accept)
                log.info("gRPC door open", address=self.address)
                task_status.started()
                await drain.requested.wait()
                await self._answer_on(drain)
                port.cancel_scope.cancel(reason="the port is closed")
            await self._end(drain)
            connections.cancel_scope.cancel(reason="the door is closed")

    async def _converse(self, stream: trio.abc.Stream, peer: Peer, first: bytes) -> None:
        connection = Connection(stream, peer, self._most_calls, self._servicer.begin, self._refusals)
        self._connections[connection] = None
        if self._is_closed:
            connection.leave()
        try:
            await connection.run(first)
        finally:
            del self._connections[connection]
            if not self._connections:
                self._all_gone.set()

    def _dismiss(self, host: str, reason: str) -> bool:
        idle = [each for each in self._connections if each.is_idle and host in ("", each.peer.host)]
        if idle:
            min(idle, key=lambda each: each.idle_since).dismiss(reason)
        return bool(idle)

    async def _answer_on(self, drain: Ending) -> None:
        self._health.stop_serving()
        if is_local(self.address):
            return
        with trio.move_on_after(ANSWER_ON_SECONDS):
            await drain.wait_deadline()
        self._send_away()
        with trio.move_on_after(LINGER_SECONDS):
            await trio_util.wait_any(partial(self._servicer.wait_quiet, QUIET_SECONDS), drain.wait_deadline)

    async def _end(self, drain: Ending) -> None:
        """Let calls come to their ends, and end what is left."""
        self._is_closed = True
        self._send_away()
        self._servicer.end_watching("the port is closed")
        await trio_util.wait_any(self._wait_gone, drain.wait_deadline)
        for connection in self._connections:
            connection.end_calls("the door is closed")
        with trio.move_on_after(FLUSH_SECONDS):
            await self._wait_gone()

    def _send_away(self) -> None:
        for connection in self._connections:
            connection.leave()

    async def _wait_gone(self) -> None:
        while self._connections:
            self._all_gone = trio.Event()
            await self._all_gone.wait()


async def serve_rpc(
    door: Door,
    settings: Settings,
    drain: Ending,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Take the port and serve until a drain is over, or until cancelled. Raises what `RpcServer` raises."""
    await RpcServer(door, settings).serve(drain, task_status=task_status)


def wrong_files(settings: Settings) -> list[str]:
    """What is wrong with the files that the settings name, as problems of the settings."""
    problems = []
    for load in (Access, load_certificates):
        try:
            load(settings)
        except SettingsError as error:
            problems += error.problems
    return problems
