"""Serving: the port, the server with its limits, and the drain.

grpcio's server answers in threads; its asyncio twin does not run on Trio. The order of the drain: health says
NOT_SERVING, calls are answered on for a while (balancers and clients learn late), then the server sends GOAWAY and
closes the port, calls that wait go on until the drain's time is over, and what is left is told UNAVAILABLE.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

import grpc
import trio
import trio_util

from ottoscaler.errors import SettingsError
from ottoscaler.log import log
from ottoscaler.rpc.access import Access, bind_address, is_local
from ottoscaler.rpc.bridge import Bridge, open_bridge
from ottoscaler.rpc.door import Door
from ottoscaler.rpc.health import Health
from ottoscaler.rpc.lanes import Lane
from ottoscaler.rpc.patience import Patience
from ottoscaler.rpc.servicer import SERVICE, Lanes, Servicer
from ottoscaler.rpc.tls import load_credentials
from ottoscaler.settings import Settings

ANSWER_ON_SECONDS = 3.0
"""After a SIGTERM endpoints still lead here for a while; and a call is no more than an entry on the stream. A door that
only this machine reaches has no endpoints.
"""
CONNECTION_SECONDS = 1.5
"""A connection is closed at this age, in the way that loses no call: the client is told to begin its next calls on a
new one. `stop` tells it too, but cancels calls that were sent before the client heard of it; so all connections have to
be gone when it comes, and endpoints that lead here for a second after a SIGTERM leave 2 of the 3 s.
"""
LINGER_SECONDS, QUIET_SECONDS = 2.0, 0.3
"""So much longer calls are answered at most where some are still begun: endpoints lag more than they should. It ends
when none was begun for the second of these.
"""
FLUSH_SECONDS = 0.2
"""For the last answers to leave, when everything that waited has been ended."""
SHORT_CALLS, HEALTH_CALLS, WATCHING_CALLS = 16, 8, 32
QUEUED_CALLS = 1000
"""Calls beyond those being answered that the server takes in, to refuse each with its reason."""


class Ending(Protocol):
    """The part of a `Drain` that the door needs."""

    requested: trio.Event
    deadline: float

    async def wait_deadline(self) -> None:
        """Return when the time of a requested drain is over."""


class RpcServer:
    """A server on its port, which nobody answers at until `serve`.

    Raises `SettingsError` for files that cannot be used and for a port that is taken.
    """

    def __init__(self, settings: Settings) -> None:
        self._access, credentials = Access(settings), load_credentials(settings)
        self._lanes = Lanes(
            Lane("waiting", waiting := settings.grpc_max_waiting_calls, share=half(waiting)),
            Lane("short", SHORT_CALLS),
            Lane("health", HEALTH_CALLS),
            Lane("watching", WATCHING_CALLS, share=half(WATCHING_CALLS)),
        )
        at_once = sum(lane.limit for lane in self._lanes) + QUEUED_CALLS
        no_thread = ThreadPoolExecutor(1)  # every rpc has the pool of its lane; this one never starts a thread
        self._server = grpc.server(no_thread, options=_options(settings, at_once), maximum_concurrent_rpcs=at_once)
        self.address = bind_address(settings, credentials is not None)
        self._health = Health(SERVICE)
        self._bind(credentials)

    def _bind(self, credentials: grpc.ServerCredentials | None) -> None:
        try:
            if credentials is None:
                self._server.add_insecure_port(self.address)
            else:
                self._server.add_secure_port(self.address, credentials)
        except RuntimeError as error:
            host, _, port = self.address.rpartition(":")
            problem = f"GRPC_PORT is '{port}', expected a port that is free on {host} (gRPC cannot listen there)"
            raise SettingsError([problem]) from error

    async def serve(
        self, door: Door, drain: Ending, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Answer calls until a drain is over, or until cancelled; once. Ready when calls are answered."""
        async with open_bridge() as bridge, trio.open_nursery() as nursery:
            patience = Patience()
            servicer = Servicer(door, bridge, self._access, self._health, self._lanes, patience)
            try:
                nursery.start_soon(patience.run)
                self._start(servicer)
                task_status.started()
                await drain.requested.wait()
                await self._drain(servicer, drain)
            finally:
                await self._close(bridge)
            nursery.cancel_scope.cancel(reason="the door is closed")

    def _start(self, servicer: Servicer) -> None:
        for service, handlers in servicer.handlers().items():
            handler = grpc.method_handlers_generic_handler(service, handlers)
            self._server.add_generic_rpc_handlers((handler,))
        self._server.add_generic_rpc_handlers((_Unknown(servicer),))  # the last: it takes what is left
        self._server.start()
        log.info("gRPC door open", address=self.address)

    async def _drain(self, servicer: Servicer, drain: Ending) -> None:
        self._health.stop_serving()
        if not is_local(self.address):
            with trio.move_on_after(ANSWER_ON_SECONDS):
                await drain.wait_deadline()
            with trio.move_on_after(LINGER_SECONDS):
                await trio_util.wait_any(partial(servicer.wait_quiet, QUIET_SECONDS), drain.wait_deadline)
        left = max(0.0, drain.deadline - trio.current_time())
        ended = self._server.stop(left + FLUSH_SECONDS)
        await trio_util.wait_any(lambda: _wait(ended), drain.wait_deadline)

    async def _close(self, bridge: Bridge) -> None:
        """End what is left, with an answer where there is time for one."""
        bridge.close("the door is closed")
        ended = self._server.stop(FLUSH_SECONDS)
        with trio.move_on_after(2 * FLUSH_SECONDS, shield=True):
            await _wait(ended)
        self._lanes.close()


class _Unknown(grpc.GenericRpcHandler):
    """Takes every call."""

    def __init__(self, servicer: Servicer) -> None:
        self._servicer = servicer

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return self._servicer.unknown(handler_call_details)


async def serve_rpc(
    door: Door,
    settings: Settings,
    drain: Ending,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Take the port and serve until a drain is over, or until cancelled. Raises what `RpcServer` raises."""
    await RpcServer(settings).serve(door, drain, task_status=task_status)


def wrong_files(settings: Settings) -> list[str]:
    """What is wrong with the files that the settings name, as problems of the settings."""
    problems = []
    for load in (Access, load_credentials):
        try:
            load(settings)
        except SettingsError as error:
            problems += error.problems
    return problems


def half(places: int) -> int:
    """What one client may have of the places for calls that last, so that the others still get in."""
    return (places + 1) // 2


async def _wait(event: threading.Event) -> None:
    await trio.to_thread.run_sync(event.wait, abandon_on_cancel=True)


def _options(settings: Settings, at_once: int) -> list[tuple[str, int]]:
    """gRPC's own settings: https://github.com/grpc/grpc/blob/master/include/grpc/impl/channel_arg_names.h."""
    return [
        ("grpc.so_reuseport", 0),  # a second process on the port is told so, and takes no calls in silence
        ("grpc.max_receive_message_length", settings.grpc_max_message_bytes),
        ("grpc.max_concurrent_streams", at_once),
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.keepalive_time_ms", 60_000),  # a client whose machine is gone is noticed
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),  # clients may ping this often
        ("grpc.max_connection_age_ms", int(CONNECTION_SECONDS * 1000)),
    ]
