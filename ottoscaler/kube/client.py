"""The API as methods: each sends one request (a list: one per page) and gives its answer or one of our errors.

Owned by whoever opens it. Few requests are in flight at a time, for httpx's pool collapses with many; watches have
connections of their own, so that they never keep a write waiting. Requests go straight to httpx's transport: what its
client adds (redirects, cookies, a log line each) costs time and is not wanted. A write asks `may_write` right before
its first byte, and says afterwards whether it may have been carried out.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import httpx
import msgspec
import trio

from ottoscaler import __version__
from ottoscaler.errors import Ambiguous, Expired, NotFound, Unavailable
from ottoscaler.kube import requests
from ottoscaler.kube.access import Access
from ottoscaler.kube.answers import error_of_answer, error_of_event, error_of_failure
from ottoscaler.kube.requests import Request
from ottoscaler.kube.slim import slim_event, slim_pod

CONNECT_SECONDS = 5.0
KEEPALIVE_SECONDS = 30.0
"""Idle connections are closed by us first (the API does so after 90 s), so that no write meets one that is closing."""
CLOSE_SECONDS = 1.0
LONGEST_ERROR = 65_536
LIST_TRIES = 3

OnRequest = Callable[[str, int | None, float], None]
"""Called after each request: verb, HTTP code (None where there was no answer), seconds."""


class WatchEvent(NamedTuple):
    """ADDED, MODIFIED, DELETED or BOOKMARK, with the pod (of a bookmark only the resource version)."""

    type: str
    object: dict[str, Any]


class _Sending:
    """What is known of one request on its way: whether its first byte was let go."""

    def __init__(self, may_write: Callable[[], None] | None) -> None:
        self._may_write = may_write
        self._connection: Any = None
        self.was_sent = False

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Called by httpcore at each step; the lease is asked here, not when the task began."""
        if event == "connection.connect_tcp.complete":
            self._connection = info["return_value"]
        elif event == "connection.start_tls.failed" and self._connection is not None:
            # httpcore leaves the socket of a handshake that is cancelled to the garbage collector
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_SECONDS):
                await self._connection.aclose()
        elif event == "http11.send_request_headers.started" and not _is_connect(info):
            if self._may_write is not None:
                self._may_write()
            self.was_sent = True


def _is_connect(info: Mapping[str, Any]) -> bool:
    """Whether this is a proxy's CONNECT, which carries nothing of the request itself."""
    return getattr(info.get("request"), "method", b"") == b"CONNECT"


class Kube:
    """One API server as one user; made by `open_kube`."""

    def __init__(
        self,
        access: Access,
        transport: httpx.AsyncBaseTransport,
        watching: httpx.AsyncBaseTransport,
        certify: Callable[[], None],
        may_write: Callable[[], None],
        in_flight: int,
        on_request: OnRequest | None,
    ) -> None:
        self.address = access.server
        self._access = access
        self._transport = transport
        self._watching = watching
        self._certify = certify
        self._may_write = may_write
        self._limiter = trio.CapacityLimiter(in_flight)
        self._on_request = on_request
        self._extensions = {"sni_hostname": access.trust.server_name} if access.trust.server_name else {}

    def __repr__(self) -> str:
        return f"<Kube at {self.address}, {self._limiter.borrowed_tokens} requests in flight>"

    async def create_pod(self, namespace: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create a pod; returns it as the API keeps it. Conflict where the name is taken."""
        return await self._call(requests.create_pod(namespace, body))

    async def delete_pod(
        self,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | int | None = None,
        grace_seconds: int | None = None,
    ) -> None:
        """Delete a pod; that it is gone already is success. Conflict where uid or version is another."""
        request = requests.delete_pod(namespace, name, uid, resource_version, grace_seconds)
        try:
            await self._drop(request)
        except NotFound:
            return

    async def delete_finished_pods(self, namespace: str, selector: str, *, limit: int = requests.PAGE) -> None:
        """Delete up to `limit` pods of the selector that neither wait nor run; one after the other, not atomic."""
        await self._drop(requests.delete_finished_pods(namespace, selector, limit))

    async def get_pod(self, namespace: str, name: str) -> dict[str, Any]:
        """Read one pod; NotFound where there is none."""
        return await self._call(requests.get_pod(namespace, name))

    async def list_pods(self, namespace: str, selector: str) -> tuple[list[dict[str, Any]], int]:
        """All pods of the selector and the version of the list, read in pages.

        Of each pod only what a PodRecord is read from stays: 10,000 whole pods would take 200 MB.
        """
        return await self._list(lambda proceed: requests.list_pods(namespace, selector, proceed=proceed), slim_pod)

    async def list_warnings(self, namespace: str) -> tuple[list[dict[str, Any]], int]:
        """All events that warn of pods and the version of the list, read in pages."""
        return await self._list(lambda proceed: requests.list_warnings(namespace, proceed), slim_event)

    async def _list(
        self, page_after: Callable[[str], Request], slim: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> tuple[list[dict[str, Any]], int]:
        for _ in range(LIST_TRIES):
            try:
                return await self._list_pages(page_after, slim)
            except Expired:  # the pages took longer than the server keeps a version: start again
                continue
        raise Unavailable(f"{self.address} let each of {LIST_TRIES} lists expire midway", address=self.address)

    async def _list_pages(
        self, page_after: Callable[[str], Request], slim: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> tuple[list[dict[str, Any]], int]:
        items: list[dict[str, Any]] = []
        proceed = ""
        while True:
            page = await self._call(page_after(proceed))
            items += map(slim, page.get("items") or ())
            metadata = page.get("metadata") or {}
            proceed = metadata.get("continue") or ""
            if not proceed:
                return items, int(metadata.get("resourceVersion") or 0)

    def watch_pods(
        self, namespace: str, selector: str, resource_version: int, timeout_seconds: int = 30
    ) -> AsyncGenerator[WatchEvent, None]:
        """Events after a version, until the server ends the watch; close it with `contextlib.aclosing`.

        Raises Expired where the version is too old, as a status or in the stream. That nothing comes is for the caller
        to notice: a quiet watch has no limit of its own.
        """
        return self._watch(requests.watch_pods(namespace, selector, resource_version, timeout_seconds))

    def watch_warnings(
        self, namespace: str, resource_version: int, timeout_seconds: int = 30
    ) -> AsyncGenerator[WatchEvent, None]:
        """As `watch_pods`, of the events that warn of pods."""
        return self._watch(requests.watch_warnings(namespace, resource_version, timeout_seconds))

    async def _watch(self, request: Request) -> AsyncGenerator[WatchEvent, None]:
        async with self._answer(request, self._watching, reading=None) as response:
            async with aclosing(_lines(response.aiter_raw())) as lines:
                async for line in lines:
                    yield self._event(request, line)

    def _event(self, request: Request, line: bytes) -> WatchEvent:
        """One line of a watch; an ERROR event is raised as what its Status stands for."""
        event = self._decode(request, line)
        kind, about = event.get("type"), event.get("object")
        if not isinstance(kind, str) or not isinstance(about, dict):
            raise self._odd_answer(request)
        if kind == "ERROR":
            raise error_of_event(request, about, self.address)
        return WatchEvent(kind, about)

    async def read_log(
        self,
        namespace: str,
        name: str,
        container: str,
        *,
        follow: bool,
        since: str = "",
        limit_bytes: int | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """The log with timestamps in pieces, over a connection of its own; close it with `contextlib.aclosing`.

        Unavailable where there is none yet (204: the pod has no node), Refused (400) while the container is not
        begun, NotFound without the pod. A followed log that is quiet has no limit.
        """
        request = requests.read_log(namespace, name, container, follow=follow, since=since, limit_bytes=limit_bytes)
        async with self._answer(request, self._watching, reading=None if follow else request.seconds) as response:
            if response.status_code == 204:
                raise Unavailable(f"{request.target} has no log yet", address=self.address, status=204)
            pieces = response.aiter_raw()
            try:
                yield b""  # the answer has begun, which a quiet log would not show
                async for piece in pieces:
                    yield piece
            finally:
                await _end(pieces)

    async def review_access(
        self, namespace: str, verb: str, resource: str, subresource: str = "", *, group: str = ""
    ) -> tuple[bool, str]:
        """Whether we may do this, and why (often empty)."""
        answer = await self._call(requests.review_access(namespace, verb, resource, subresource, group))
        status = answer.get("status") or {}
        return bool(status.get("allowed")), str(status.get("reason") or "")

    async def version(self) -> str:
        """The server's version, such as `v1.36.0`."""
        return str((await self._call(requests.version())).get("gitVersion", ""))

    async def _call(self, request: Request) -> dict[str, Any]:
        """Send, and decode the whole answer."""
        async with self._limiter, self._answer(request, self._transport, reading=request.seconds) as response:
            body = await response.aread()
        return self._decode(request, body)

    async def _drop(self, request: Request) -> None:
        """Send, and throw the answer away as it streams in: that of a collection holds every pod whole."""
        async with self._limiter, self._answer(request, self._transport, reading=request.seconds) as response:
            async for _ in response.aiter_raw():
                pass

    def _decode(self, request: Request, body: bytes) -> dict[str, Any]:
        try:
            document = msgspec.json.decode(body)
        except msgspec.DecodeError as error:
            raise self._odd_answer(request) from error
        if not isinstance(document, dict):
            raise self._odd_answer(request)
        return document

    def _odd_answer(self, request: Request) -> Unavailable:
        """Something that is no Kubernetes answered with success: a proxy's login page, say."""
        kind = Ambiguous if request.is_write else Unavailable
        return kind(
            f"{self.address} answered {request.verb} of {request.target} with something else than a JSON object",
            address=self.address,
        )

    @asynccontextmanager
    async def _answer(
        self, request: Request, transport: httpx.AsyncBaseTransport, *, reading: float | None
    ) -> AsyncIterator[httpx.Response]:
        """The open answer of a request, when it is a success; every failure until its end is translated."""
        sending = _Sending(self._may_write if request.is_write else None)
        started, code = time.perf_counter(), None
        try:
            async with aclosing(await self._send(request, transport, sending, reading)) as response:
                code = response.status_code
                if code >= 300:
                    body = await _read_some(response)
                    raise error_of_answer(request, code, body, response.headers, self.address)
                yield response
        except httpx.HTTPError as error:
            raise error_of_failure(request, error, sending.was_sent, self.address) from error
        finally:
            if self._on_request is not None:
                self._on_request(request.verb, code, time.perf_counter() - started)

    async def _send(
        self, request: Request, transport: httpx.AsyncBaseTransport, sending: _Sending, reading: float | None
    ) -> httpx.Response:
        """Send until the answer begins; once again with fresh credentials after a 401, which carries nothing out."""
        response = await self._send_once(request, transport, sending, reading, fresh=False)
        if response.status_code == 401:
            await _read_some(response)
            await response.aclose()
            sending.was_sent = False
            response = await self._send_once(request, transport, sending, reading, fresh=True)
        return response

    async def _send_once(
        self,
        request: Request,
        transport: httpx.AsyncBaseTransport,
        sending: _Sending,
        reading: float | None,
        *,
        fresh: bool,
    ) -> httpx.Response:
        token = await self._access.credentials.token(fresh=fresh)
        self._certify()
        accept = "*/*" if request.verb in ("log", "follow") else "application/json"
        headers = {"accept": accept, "user-agent": f"ottoscaler/{__version__}"}
        if request.body:
            headers["content-type"] = "application/json"
        if token:
            headers["authorization"] = f"Bearer {token.reveal()}"
        timeout = {"connect": CONNECT_SECONDS, "read": reading, "write": CONNECT_SECONDS, "pool": CONNECT_SECONDS}
        extensions = {"timeout": timeout, "trace": sending.trace, **self._extensions}
        url = _parse_url(self.address + request.url)
        sent = httpx.Request(request.method, url, headers=headers, content=request.body, extensions=extensions)
        return await transport.handle_async_request(sent)


@lru_cache(maxsize=64)
def _parse_url(text: str) -> httpx.URL:
    """Parsing takes a tenth of a request's time, and creates and lists ask for the same few again and again."""
    return httpx.URL(text)


async def _read_some(response: httpx.Response) -> bytes:
    """The beginning of a refusal's body; the rest is read and dropped, so that the connection can be used again."""
    kept = bytearray()
    async for chunk in response.aiter_raw():
        if len(kept) < LONGEST_ERROR:
            kept += chunk
    return bytes(kept[:LONGEST_ERROR])


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The lines of a stream, without their ends; a last line without an end was cut off and is dropped."""
    begun: list[bytes] = []
    try:
        async for chunk in chunks:
            first, *rest = chunk.split(b"\n")
            begun.append(first)
            for part in rest:
                if line := b"".join(begun):
                    yield line
                begun = [part]
    finally:
        await _end(chunks)


async def _end(chunks: AsyncIterator[bytes]) -> None:
    """End a stream that may have more to say.

    httpx and httpcore nest several async generators and close none of them; a cancel where they wait for the network
    unwinds them all in order, which dropping them would not.
    """
    with trio.CancelScope() as scope:
        scope.cancel(reason="the stream's reader has had enough")
        async for _ in chunks:
            pass


@asynccontextmanager
async def open_kube(
    access: Access,
    *,
    may_write: Callable[[], None],
    in_flight: int = 4,
    on_request: OnRequest | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[Kube]:
    """Open connections to the API for the time of the block.

    `may_write` is called right before the first byte of each write and raises WritesSuspended while there must be none;
    at most `in_flight` requests (watches aside) are under way, others wait. `transport` replaces the network in tests.
    """
    context = access.trust.open_context()
    if access.certificate is not None:
        access.certificate.load_into(context)
    few = httpx.Limits(
        max_connections=in_flight, max_keepalive_connections=in_flight, keepalive_expiry=KEEPALIVE_SECONDS
    )
    many = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    requesting = transport or _open_transport(access, context, few)
    watching = transport or _open_transport(access, context, many)
    async with requesting, watching:
        yield Kube(
            access,
            requesting,
            watching,
            lambda: access.credentials.certify(context),
            may_write,
            in_flight,
            on_request,
        )


def _open_transport(access: Access, context: ssl.SSLContext, limits: httpx.Limits) -> httpx.AsyncHTTPTransport:
    """A pool of connections; nothing of the environment (HTTPS_PROXY) has a say in it."""
    proxy = httpx.Proxy(access.proxy_url) if access.proxy_url else None
    return httpx.AsyncHTTPTransport(verify=context, limits=limits, proxy=proxy, trust_env=False)
