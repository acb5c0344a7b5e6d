"""Errors, grouped by what the caller can do about them: try again, give up on this object, fix the call.

Foreign errors (of httpx, of Redis) are translated into these once, at the boundary, with the original as their cause.
An error names the object it is about, and carries the server's own words where there was an answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


class OttoscalerError(Exception):
    """Base of every error that Ottoscaler raises on purpose."""


# try again: what stood in the way passes


class TryAgain(OttoscalerError):
    """What stood in the way passes by itself; the same call may go through later."""


class Unavailable(TryAgain):
    """A server is away, or refuses for now.

    `address` is the server that was tried, without secrets; `retry_after` the seconds it asked to wait, None where it
    said nothing; `status` the HTTP code of its answer, None where there was none.
    """

    def __init__(
        self, message: str, *, address: str = "", retry_after: float | None = None, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.address = address
        self.retry_after = retry_after
        self.status = status


class Ambiguous(Unavailable):
    """A write was sent and its end is unknown: it was carried out, or not, or will be later."""


class MessageTooLarge(Unavailable):
    """A server ended a stream because it takes no message as large as one of those that it was sent."""


class WritesSuspended(TryAgain):
    """Our lease has run out, so nothing was sent; a renewal that goes through ends it."""


class Expired(TryAgain):
    """The resource version is too old to go on from (410): list again."""


# give up: final for this object


class GiveUp(OttoscalerError):
    """Final for this object: repeating the same call gives the same answer."""


class Answered(GiveUp):
    """The API answered no.

    `message` is the server's own sentence, `reason` its one word (empty where it has none), `status` the HTTP code,
    `details` what else its Kubernetes `Status` says, `target` the object in words such as `pod otto/otto-agent-1-5-0`.
    """

    def __init__(
        self,
        message: str = "",
        *,
        status: int = 0,
        reason: str = "",
        details: Mapping[str, Any] | None = None,
        target: str = "",
    ) -> None:
        self.message = message
        self.status = status
        self.reason = reason
        self.details = details or {}
        self.target = target
        said = message or reason or "refused without a reason"
        super().__init__((f"{target}: " if target else "") + said + (f" ({status})" if status else ""))


class NotFound(Answered):
    """The object, or the namespace it was to be created in, does not exist (404)."""


class Conflict(Answered):
    """The name is taken, or a precondition (uid, resource version) does not hold (409)."""


class Refused(Answered):
    """Forbidden, invalid, or refused for good in another way (400, 403, 413, 415, 422, ...)."""


# fix your call: settings, templates, arguments


class FixYourCall(OttoscalerError):
    """The caller gave something that can never work; repeating it is useless."""


class SettingsError(FixYourCall):
    """Wrong settings: every problem at once, each naming the variable, its value and what was expected."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class UnknownTemplate(FixYourCall):
    """An event names a template that is not there; the message lists those that are."""
