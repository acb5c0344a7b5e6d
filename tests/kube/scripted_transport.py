"""An httpx transport that plays a script, and says to the client what httpcore says about each step."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx
import trio


@dataclass
class Answer:
    """One answer: its body is JSON, bytes, or chunks; an exception in the chunks cuts the stream there."""

    code: int = 200
    body: Any = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def chunks(self) -> Iterable[bytes | Exception]:
        """The body as the network would bring it."""
        if isinstance(self.body, bytes):
            return [self.body]
        return self.body if isinstance(self.body, list) else [json.dumps(self.body).encode()]


@dataclass
class Broken:
    """No answer: `error` happens before anything was sent, or after."""

    error: Exception
    after_sending: bool = True


class _Stream(httpx.AsyncByteStream):
    def __init__(self, chunks: Iterable[bytes | Exception]) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            await trio.lowlevel.checkpoint()
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk


class ScriptedTransport(httpx.AsyncBaseTransport):
    """Gives the answers of a script in turn; `asked` are all requests, `sent` those whose bytes were let go."""

    def __init__(self, *script: Answer | Broken) -> None:
        self._script = deque(script)
        self.asked: list[httpx.Request] = []
        self.sent: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Play the next step."""
        self.asked.append(request)
        step = self._script.popleft()
        await trio.lowlevel.checkpoint()
        if isinstance(step, Broken) and not step.after_sending:
            raise step.error
        await request.extensions["trace"]("http11.send_request_headers.started", {})
        self.sent.append(request)
        if isinstance(step, Broken):
            raise step.error
        return httpx.Response(step.code, headers=step.headers, stream=_Stream(step.chunks()))

    def urls(self) -> list[str]:
        """Method and path of every request."""
        return [f"{request.method} {request.url.raw_path.decode()}" for request in self.asked]
