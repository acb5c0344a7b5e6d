"""A small HTTP/1.1 server for short answers: h11 speaks the protocol, Trio the network, and everything has a limit.

One request per connection, which lives for at most `LIFE_SECONDS`; of `MOST` connections the oldest makes way for a
new one, so that slow clients never keep a probe out. What a client sends can harm nothing but its own connection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import NamedTuple

import h11
import trio

from ottoscaler.log import log

MOST = 32
LIFE_SECONDS = 5.0
LONGEST_HEAD = 16_384
PLAIN = "text/plain; charset=utf-8"


class Answer(NamedTuple):
    """What is sent back."""

    status: int
    body: bytes
    content_type: str = PLAIN


Page = Callable[[], Awaitable[Answer]]


class Server:
    """Answers GET and HEAD of the pages, by path; `handle` is for `trio.serve_listeners`."""

    def __init__(self, pages: Mapping[str, Page]) -> None:
        self._pages = pages
        self._open: dict[trio.CancelScope, None] = {}

    async def handle(self, stream: trio.abc.HalfCloseableStream) -> None:
        """One connection from its first byte to its end; nothing leaves it but a cancel from outside."""
        scope = trio.CancelScope(deadline=trio.current_time() + LIFE_SECONDS)
        if len(self._open) >= MOST:
            next(iter(self._open)).cancel(reason="a newer connection takes its place")
        self._open[scope] = None
        try:
            with scope, suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._converse(stream)
        except Exception as error:  # noqa: BLE001 - whatever a page's bug raises, the service goes on
            log.error("an HTTP request broke", error=error)
        finally:
            self._open.pop(scope, None)
            with trio.move_on_after(0):  # close without a wait
                await stream.aclose()

    async def _converse(self, stream: trio.abc.HalfCloseableStream) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LONGEST_HEAD)
        request: h11.Request | None = None
        try:
            request = await _read_request(connection, stream)
            if request is None:
                return
            answer = await self._answer(request)
        except h11.RemoteProtocolError as error:
            answer = _refusal(error.error_status_hint, f"{error}")
        if connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            has_body = request is None or request.method != b"HEAD"
            await stream.send_all(_encode(connection, answer, has_body=has_body))
            await stream.send_eof()

    async def _answer(self, request: h11.Request) -> Answer:
        if request.method not in (b"GET", b"HEAD"):
            return _refusal(405, "expected GET or HEAD")
        path = request.target.split(b"?")[0].decode("ascii", "replace")
        page = self._pages.get(path)
        if page is None:
            return _refusal(404, f"expected one of {', '.join(self._pages)}")
        return await page()


async def _read_request(connection: h11.Connection, stream: trio.abc.HalfCloseableStream) -> h11.Request | None:
    """The head of a request, None where the client goes before; a body is not read. Raises `RemoteProtocolError`."""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(LONGEST_HEAD)))
        else:
            return None


def _refusal(status: int, reason: str) -> Answer:
    return Answer(status, f"{status}: {reason}\n".encode())


def _encode(connection: h11.Connection, answer: Answer, *, has_body: bool) -> bytes:
    """The whole answer; of a HEAD only what stands before the body."""
    headers = [
        ("content-type", answer.content_type),
        ("content-length", str(len(answer.body))),
        ("cache-control", "no-store"),
        ("connection", "close"),
    ]
    if answer.status == 405:
        headers.append(("allow", "GET, HEAD"))
    reason = HTTPStatus(answer.status).phrase.encode()
    parts = [connection.send(h11.Response(status_code=answer.status, headers=headers, reason=reason))]
    if has_body:
        parts.append(connection.send(h11.Data(data=answer.body)))
    return b"".join(part for part in (*parts, connection.send(h11.EndOfMessage())) if part)
