"""HTTPS for the routes: hypercorn's protocols (HTTP/1.1 and HTTP/2) over our own listener, so that faults reach the
connection itself. Every connection is a task of the server's nursery; at the end all are reset, so nothing lingers.
"""

from __future__ import annotations

import logging
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, unquote

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from .exchange import Request, Response, error_response
from .faults import Fault
from .refusals import ApiError
from .routes import Routes

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[Any], Awaitable[None]]

_log = logging.getLogger(__name__)

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: close sends RST
_LATE_LIMIT = 3600.0  # how long a late request waits for its client to leave


class Connection:
    """One client's connection: its socket, which a fault or the end of the server can reset."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream

    def reset(self) -> None:
        """Close at once, without a goodbye: the client sees a reset."""
        with suppress(OSError):  # it may be closed already
            self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.stream.socket.close()


class ApiServer:
    """The server: `serve` runs it; all its connections and late requests live in the nursery given there."""

    def __init__(self, routes: Routes, tls: ssl.SSLContext) -> None:
        self._routes, self._tls = routes, tls
        self._connections: set[Connection] = set()
        self._config = Config()
        self._config.accesslog = self._config.errorlog = None
        self._config.include_server_header = self._config.include_date_header = False
        self._config.keep_alive_timeout = 90.0
        self._config.keep_alive_max_requests = 10**9  # a real API server does not end a connection for its age
        self._config.h2_max_concurrent_streams = 1000
        self._context = WorkerContext(None)

    async def serve(
        self, listener: trio.SocketListener, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            handler = partial(self._handle, nursery)
            try:
                task_status.started()
                await trio.serve_listeners(handler, [listener], handler_nursery=nursery)
            finally:  # hypercorn shields what it sends: a client that does not read would hold the end up for ever
                for connection in tuple(self._connections):
                    connection.reset()

    async def _handle(self, nursery: trio.Nursery, stream: trio.SocketStream) -> None:
        connection = Connection(stream)
        self._connections.add(connection)
        try:
            if self._routes.control.faults.take_connection():
                while await stream.receive_some():
                    pass  # what the client says is read and not answered, until it leaves
                return
            tls = trio.SSLStream(stream, self._tls, server_side=True, https_compatible=True)
            app = ASGIWrapper(partial(self._answer, nursery, connection))
            await TCPServer(app, self._config, self._context, ConnectionState({}), tls).run()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            _log.debug("a client is gone, or a fault sent it away")
        finally:
            self._connections.discard(connection)

    async def _answer(
        self, nursery: trio.Nursery, connection: Connection, scope: Any, receive: _Receive, send: _Send
    ) -> None:
        """The ASGI application of one connection."""
        if scope["type"] != "http":
            return
        request = await _read_request(scope, receive)
        if request is None:
            return
        verb = self._routes.describe(request)
        for fault in self._routes.control.faults.take(verb, request.path):
            if not request.path.startswith("/faults") and await self._suffer(
                fault, nursery, connection, request, receive, send
            ):
                return
        try:
            await _respond(self._carry_out(request), receive, send)
        except Exception:  # noqa: BLE001 - one broken stream must not end the server: its client sees a reset
            _log.exception("%s %s broke while it was answered", request.method, request.path)
            connection.reset()

    def _carry_out(self, request: Request) -> Response:
        """The answer; a bug in finding it is logged and answered 500, and harms no other request."""
        try:
            return self._routes.answer(request)
        except Exception as error:  # noqa: BLE001 - one broken request must not end the server
            _log.exception("%s %s failed", request.method, request.path)
            return error_response(ApiError(500, "InternalError", f"Internal error occurred: {error!r}", details={}))

    async def _suffer(
        self,
        fault: Fault,
        nursery: trio.Nursery,
        connection: Connection,
        request: Request,
        receive: _Receive,
        send: _Send,
    ) -> bool:
        """Let a fault happen to a request; whether that was its end."""
        match fault.kind:
            case "latency":
                return await _delay(fault.seconds, request, receive, send)
            case "reject":
                await _respond(_rejection(fault), receive, send)
            case "silence":
                await _wait_gone(receive)
            case "late":
                with trio.move_on_after(_LATE_LIMIT):
                    await _wait_gone(receive)
                nursery.start_soon(self._carry_out_late, request, fault.seconds)
            case "reset_before":
                connection.reset()
            case "reset_after":
                self._carry_out(request)
                connection.reset()
        return True

    async def _carry_out_late(self, request: Request, seconds: float) -> None:
        await trio.sleep(seconds)
        self._carry_out(request)


async def _read_request(scope: Any, receive: _Receive) -> Request | None:
    """The whole request, or None where the client left before its end."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    query = dict(reversed(parse_qsl(scope["query_string"].decode(), keep_blank_values=True)))
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    path = scope.get("raw_path", scope["path"].encode()).decode("latin-1").partition("?")[0]
    return Request(scope["method"], path if "%2F" in path.upper() else unquote(path), query, headers, body)


async def _respond(response: Response, receive: _Receive, send: _Send) -> None:
    headers = [(b"cache-control", b"no-cache, private"), (b"content-type", response.content_type.encode())]
    headers += [(name.encode(), value.encode()) for name, value in response.headers]
    if response.stream is None:
        if response.status != 204:
            headers.append((b"content-length", str(len(response.body)).encode()))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})
        return
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    async with trio.open_nursery() as nursery:

        async def end_with_client() -> None:
            await _wait_gone(receive)
            nursery.cancel_scope.cancel(reason="the client left")

        async def send_piece(piece: bytes) -> None:
            await send({"type": "http.response.body", "body": piece, "more_body": True})

        nursery.start_soon(end_with_client)
        await response.stream(send_piece)
        nursery.cancel_scope.cancel(reason="the stream has ended")
    await send({"type": "http.response.body", "body": b""})


async def _wait_gone(receive: _Receive) -> None:
    """Wait until the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _delay(seconds: float, request: Request, receive: _Receive, send: _Send) -> bool:
    """Wait as a slow server would; whether the request's own `timeout` ended it before it was carried out."""
    allowed = request.query.get("timeout", "")
    limit = float(allowed[:-1]) if allowed.endswith("s") and allowed[:-1].isdecimal() else float("inf")
    await trio.sleep(min(seconds, limit))
    if seconds <= limit:
        return False
    message = "Timeout: request did not complete within the allotted timeout"
    await _respond(error_response(ApiError(504, "Timeout", message, details={})), receive, send)
    return True


_REASONS = {429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout"}
_SENTENCES = {429: "the server has received too many requests and has asked us to try again later"}


def _rejection(fault: Fault) -> Response:
    details: dict[str, Any] = {}
    headers: tuple[tuple[str, str], ...] = ()
    if fault.retry_after is not None:
        details["retryAfterSeconds"] = fault.retry_after
        headers = (("retry-after", str(fault.retry_after)),)
    message = _SENTENCES.get(fault.status, "the server is currently unable to handle the request")
    reason = _REASONS.get(fault.status, "")
    return error_response(ApiError(fault.status, reason, message, details=details, headers=headers))
