"""Putting a call's event on the stream: once, whatever gets lost on the way."""

from __future__ import annotations

import secrets

import trio

from ottoscaler.backoff import Backoff
from ottoscaler.calls.asking import Pairs
from ottoscaler.errors import Unavailable
from ottoscaler.repeats import content_of
from ottoscaler.rpc.door import RequestMismatch
from ottoscaler.stream.requests import Requested, Requests

PATIENCE_SECONDS = 10.0
"""So long a call waits for a Redis that does not answer, before its client is told to come again."""


def new_token() -> str:
    """What one call adds its event under."""
    return secrets.token_hex(8)


async def submit(stream: Requests, pairs: Pairs, request_id: str, token: str) -> Requested:
    """Add the event, or find the one that the request id means. Raises `RequestMismatch`, `Unavailable`.

    A call to Redis without an answer is repeated under the same `token`, so that it adds nothing twice. When even that
    has no answer, the event may stand on the stream or not: asking again under a request id is safe.
    """
    content = content_of(pairs)
    give_up_at = trio.current_time() + PATIENCE_SECONDS
    for delay in Backoff(0.1, 1.0).delays():
        try:
            requested = await stream.request(pairs, request_id, content, token)
        except Unavailable:
            if trio.current_time() + delay > give_up_at:
                raise
            await trio.sleep(delay)
        else:
            if requested.how == "other":
                raise RequestMismatch('metadata["request_id"]', request_id)
            return requested
    raise AssertionError("a backoff has no end")
