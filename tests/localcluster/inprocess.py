"""The local cluster without a network: an httpx transport straight into its routes, for tests under a virtual clock.

Faults work as over sockets, but for `accept_silent`, which needs one.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl

import httpx
import trio

from ottoscaler.localcluster.cluster import LocalCluster
from ottoscaler.localcluster.exchange import Request, Send
from ottoscaler.localcluster.faulty import FaultyRoutes


@asynccontextmanager
async def open_transport(cluster: LocalCluster) -> AsyncIterator[InProcessTransport]:
    """A transport into the cluster; streams that are still open when it is left are cut."""
    async with trio.open_nursery() as nursery:
        yield InProcessTransport(FaultyRoutes(cluster.routes, nursery), nursery)
        nursery.cancel_scope.cancel(reason="the transport is being left")


class _LocalClient:
    """The sender of one request inside the process."""

    def __init__(self) -> None:
        self.gone = trio.Event()
        self.is_reset = False

    def reset(self) -> None:
        """Remember that no answer may be given."""
        self.is_reset = True

    async def wait_gone(self) -> None:
        """Wait until whoever asked gives up."""
        try:
            await trio.sleep_forever()
        finally:
            self.gone.set()


class _Stream(httpx.AsyncByteStream):
    """A streamed answer: the pieces of a task that ends with it."""

    def __init__(self, pieces: trio.MemoryReceiveChannel[bytes], scope: trio.CancelScope) -> None:
        self._pieces, self._scope = pieces, scope

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._pieces:
            yield piece

    async def aclose(self) -> None:
        """Leave: the server's side is cancelled, as by a closed connection."""
        self._scope.cancel(reason="the client left")
        self._pieces.close()


class InProcessTransport(httpx.AsyncBaseTransport):
    """Hands requests to the routes; `nursery` holds the streams that are open."""

    def __init__(self, routes: FaultyRoutes, nursery: trio.Nursery) -> None:
        self._routes, self._nursery = routes, nursery

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request; a reset is a ReadError, the request's read timeout a ReadTimeout."""
        query = dict(reversed(parse_qsl(request.url.query.decode(), keep_blank_values=True)))
        headers = {name.lower(): value for name, value in request.headers.items()}
        ours = Request(request.method, request.url.path, query, headers, await request.aread())
        client = _LocalClient()
        await trio.lowlevel.checkpoint()  # as any request, it is a place to be cancelled at
        with trio.move_on_after(request.extensions.get("timeout", {}).get("read") or math.inf):
            answer = await self._routes.answer(ours, client)
            if answer is None:
                raise httpx.ReadError("the server reset the connection", request=request)
            sent = {"content-type": answer.content_type, **dict(answer.headers)}
            if answer.stream is None:
                return httpx.Response(answer.status, headers=sent, content=answer.body, request=request)
            stream = self._open_stream(answer.stream)
            return httpx.Response(answer.status, headers=sent, stream=stream, request=request)
        raise httpx.ReadTimeout("no answer came in time", request=request)

    def _open_stream(self, write: Callable[[Send], Awaitable[None]]) -> _Stream:
        send, receive = trio.open_memory_channel[bytes](math.inf)
        scope = trio.CancelScope()

        async def run() -> None:
            with scope, send:
                await write(send.send)

        self._nursery.start_soon(run)
        return _Stream(receive, scope)
