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

from .exchange import Request, Response
from .faulty import FaultyRoutes
from .routes import Routes

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[Any], Awaitable[None]]

_log = logging.getLogger(__name__)

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: close sends RST


class Connection:
    """One client's connection: its socket, which a fault or the end of the server can reset."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream

    def reset(self) -> None:
        """Close at once, without a goodbye: the client sees a reset."""
        with suppress(OSError):  # it may be closed already
            self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.stream.socket.close()


class _RemoteClient:
    """The sender of one request on a connection."""

    def __init__(self, connection: Connection, receive: _Receive) -> None:
        self.gone = trio.Event()
        self._connection, self._receive = connection, receive

    def reset(self) -> None:
        """Reset the whole connection."""
        self._connection.reset()

    async def wait_gone(self) -> None:
        """Wait until the client has left."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone.set()


class ApiServer:
    """The server: `serve` runs it; its connections, and what is carried out late, live in a nursery there."""

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
            handler = partial(self._handle, FaultyRoutes(self._routes, nursery))
            try:
                task_status.started()
                await trio.serve_listeners(handler, [listener], handler_nursery=nursery)
            finally:  # hypercorn shields what it sends: a client that does not read would hold the end up for ever
                for connection in tuple(self._connections):
                    connection.reset()

    async def _handle(self, routes: FaultyRoutes, stream: trio.SocketStream) -> None:
        connection = Connection(stream)
        self._connections.add(connection)
        try:
            if routes.faults.take_connection():
                while await stream.receive_some():
                    pass  # what the client says is read and not answered, until it leaves
                return
            tls = trio.SSLStream(stream, self._tls, server_side=True, https_compatible=True)
            app = ASGIWrapper(partial(_answer, routes, connection))
            await TCPServer(app, self._config, self._context, ConnectionState({}), tls).run()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            _log.debug("a client is gone, or a fault sent it away")
        finally:
            self._connections.discard(connection)


async def _answer(routes: FaultyRoutes, connection: Connection, scope: Any, receive: _Receive, send: _Send) -> None:
    """The ASGI application of one connection."""
    if scope["type"] != "http":
        return
    request = await _read_request(scope, receive)
    if request is None:
        return
    client = _RemoteClient(connection, receive)
    response = await routes.answer(request, client)
    if response is None:
        return
    try:
        await _respond(response, client, send)
    except Exception:  # noqa: BLE001 - one broken stream must not end the server: its client sees a reset
        _log.exception("%s %s broke while it was answered", request.method, request.path)
        connection.reset()


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


async def _respond(response: Response, client: _RemoteClient, send: _Send) -> None:
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
            await client.wait_gone()
            nursery.cancel_scope.cancel(reason="the client left")

        async def send_piece(piece: bytes) -> None:
            await send({"type": "http.response.body", "body": piece, "more_body": True})

        nursery.start_soon(end_with_client)
        await response.stream(send_piece)
        nursery.cancel_scope.cancel(reason="the stream has ended")
    await send({"type": "http.response.body", "body": b""})
