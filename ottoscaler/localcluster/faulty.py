"""Routes with faults before them: what befalls a request on its way, whatever carries it here.

A server over sockets and a transport inside the process share this; each brings its own `Client`, the other end of one
request, which can be reset and which can leave.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

import trio

from .exchange import Request, Response, error_response
from .faults import Fault
from .refusals import ApiError
from .routes import Routes

_log = logging.getLogger(__name__)

_REASONS = {429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout"}
_SENTENCES = {429: "the server has received too many requests and has asked us to try again later"}


class Client(Protocol):
    """The other end of one request; `gone` is set once it has left."""

    gone: trio.Event

    def reset(self) -> None:
        """Cut the connection without an answer."""

    async def wait_gone(self) -> None:
        """Wait until the client has left, and set `gone`."""


class FaultyRoutes:
    """The API as it is on a bad day. What happens after a client left happens in `nursery`."""

    def __init__(self, routes: Routes, nursery: trio.Nursery) -> None:
        self._routes, self._nursery = routes, nursery
        self.faults = routes.control.faults

    async def answer(self, request: Request, client: Client) -> Response | None:
        """The answer after all faults that happen to the request; None where there is nothing to answer."""
        if request.path.startswith("/faults"):  # the switch itself always works
            return self._carry_out(request)
        for fault in self.faults.take(self._routes.describe(request), request.path):
            if fault.kind != "latency":
                return await self._suffer(fault, request, client)
            if await _is_too_slow(fault.seconds, request):
                message = "Timeout: request did not complete within the allotted timeout"
                return error_response(ApiError(504, "Timeout", message, details={}))
        return self._carry_out(request)

    async def _suffer(self, fault: Fault, request: Request, client: Client) -> Response | None:
        match fault.kind:
            case "reject":
                return _rejection(fault)
            case "silence":
                await client.wait_gone()
            case "late":
                self._nursery.start_soon(self._carry_out_late, request, client.gone, fault.seconds)
                await client.wait_gone()
            case "reset_before":
                client.reset()
            case "reset_after":
                self._carry_out(request)
                client.reset()
        return None

    def _carry_out(self, request: Request) -> Response:
        """The plain answer; a bug in finding it is logged and answered 500, and harms no other request."""
        try:
            return self._routes.answer(request)
        except Exception as error:  # noqa: BLE001 - one broken request must not end the server
            _log.exception("%s %s failed", request.method, request.path)
            return error_response(ApiError(500, "InternalError", f"Internal error occurred: {error!r}", details={}))

    async def _carry_out_late(self, request: Request, gone: trio.Event, seconds: float) -> None:
        await gone.wait()
        await trio.sleep(seconds)
        self._carry_out(request)


async def _is_too_slow(seconds: float, request: Request) -> bool:
    """Wait as a slow server would; whether the request's own `timeout` ended it before it was carried out."""
    allowed = request.query.get("timeout", "")
    limit = float(allowed[:-1]) if allowed.endswith("s") and allowed[:-1].isdecimal() else float("inf")
    await trio.sleep(min(seconds, limit))
    return seconds > limit


def _rejection(fault: Fault) -> Response:
    details: dict[str, Any] = {}
    headers: tuple[tuple[str, str], ...] = ()
    if fault.retry_after is not None:
        details["retryAfterSeconds"] = fault.retry_after
        headers = (("retry-after", str(fault.retry_after)),)
    message = _SENTENCES.get(fault.status, "the server is currently unable to handle the request")
    reason = _REASONS.get(fault.status, "")
    return error_response(ApiError(fault.status, reason, message, details=details, headers=headers))
