"""Every answer that is no success, and every failure to get one, turned into one of our errors; the one place for it.

What matters to the caller of a write is whether it may have been carried out. Before the first byte it was not; from
then on only an answer of Kubernetes itself says so, and not every one: a timeout or an internal error in the middle
(etcd slow, a proxy's 502) leaves it open.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import msgspec

from ottoscaler.errors import Ambiguous, Conflict, Expired, NotFound, OttoscalerError, Refused, Unavailable
from ottoscaler.kube.requests import Request

PASSING = frozenset({408, 425, 429})
LONGEST_TEXT = 300


class Status:
    """The Kubernetes `Status` of an answer, as far as there is one; anything else gives its first words as message."""

    def __init__(self, code: int, body: bytes) -> None:
        document = _decode(body)
        self.is_kubernetes = isinstance(document, dict) and document.get("kind") == "Status"
        said: dict[str, Any] = document if self.is_kubernetes else {}
        self.code = code
        self.reason = str(said.get("reason") or "")
        self.message = str(said.get("message") or "") or _first_words(body)
        details = said.get("details")
        self.details: dict[str, Any] = details if isinstance(details, dict) else {}


def _decode(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None


def _first_words(body: bytes) -> str:
    return " ".join(body[: 4 * LONGEST_TEXT].decode(errors="replace").split())[:LONGEST_TEXT]


def error_of_answer(
    request: Request, code: int, body: bytes, headers: Mapping[str, str], address: str
) -> OttoscalerError:
    """The error that an answer of 300 or above stands for."""
    status = Status(code, body)
    if code >= 500 or code in PASSING or code == 401 or _is_passing_conflict(request, status):
        kind = Ambiguous if request.is_write and not _was_surely_not_done(status) else Unavailable
        said = status.message or status.reason or "no reason given"
        if code == 401:
            said = f"credentials refused: {said}"
        return kind(
            f"{address} answered {code} to {request.verb} of {request.target}: {said}",
            address=address,
            retry_after=_retry_after(headers, status),
            status=code,
        )
    if code == 410:
        return Expired(status.message)
    kind_of_no = {404: NotFound, 409: Conflict}.get(code, Refused)
    return kind_of_no(status.message, status=code, reason=status.reason, details=status.details, target=request.target)


def error_of_event(request: Request, status: Mapping[str, Any], address: str) -> OttoscalerError:
    """The error that an ERROR event of a watch stands for; its object is a Status."""
    code = status.get("code")
    return error_of_answer(request, code if isinstance(code, int) else 500, msgspec.json.encode(status), {}, address)


def _is_passing_conflict(request: Request, status: Status) -> bool:
    """A create's 409 that is not about its name: two creates that counted the same quota at the same time."""
    return request.verb == "create" and status.code == 409 and status.reason == "Conflict"


def _was_surely_not_done(status: Status) -> bool:
    """Whether the answer itself says that a write was not carried out."""
    if not status.is_kubernetes:
        return status.code in (401, 429)
    if status.code == 500:
        return "failed calling webhook" in status.message
    return status.code != 504


def _retry_after(headers: Mapping[str, str], status: Status) -> float | None:
    """Seconds, from the header or the Status; None where neither says a number (a date is not used by Kubernetes)."""
    for value in (headers.get("retry-after"), status.details.get("retryAfterSeconds")):
        try:
            if value is not None and 0 <= float(value) < 86_400:
                return float(value)
        except (TypeError, ValueError):
            continue
    return None


def error_of_failure(request: Request, error: httpx.HTTPError, was_sent: bool, address: str) -> Unavailable:
    """The error that a connection, a timeout or a broken answer stands for."""
    kind = Ambiguous if request.is_write and was_sent else Unavailable
    what = "did not answer" if isinstance(error, httpx.TimeoutException) else "cannot be reached"
    if was_sent and not isinstance(error, httpx.TimeoutException):
        what = "broke off"
    return kind(f"{address} {what} ({request.verb} of {request.target}): {_cause(error)}", address=address)


def _cause(error: BaseException) -> str:
    """The words of the innermost system error: Connection refused says more than that all attempts failed."""
    inner = [each for each in _chain(error) if isinstance(each, OSError) and each.strerror]
    if inner and isinstance(inner[-1], (ssl.SSLError, socket.gaierror)):  # their numbers are not the system's
        return str(inner[-1].strerror)
    if inner and inner[-1].errno:
        return os.strerror(inner[-1].errno)
    unsaid = {"ReadTimeout": "timed out", "ConnectTimeout": "timed out", "PoolTimeout": "no free connection"}
    return str(error) or unsaid.get(type(error).__name__, type(error).__name__)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all that caused it, outermost first; at most 20."""
    queue = [error]
    for _ in range(20):
        current = queue.pop(0) if queue else None
        if current is None:
            return
        yield current
        inner = current.exceptions if isinstance(current, BaseExceptionGroup) else ()
        queue += [each for each in (*inner, current.__cause__ or current.__context__) if each is not None]
