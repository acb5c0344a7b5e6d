"""What an error of a call becomes on the wire: code, sentence, and the details that a program can read.

The details are a `google.rpc.Status` in the trailer `grpc-status-details-bin`, as the gRPC error model has them:
BadRequest for a wrong field, ErrorInfo for who may not do what, RetryInfo for what passes by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from ottoscaler.errors import TryAgain, Unavailable
from ottoscaler.log import log
from ottoscaler.rpc.door import DeadLetter, InvalidCall, PolicyRefused, RequestMismatch, TooMany
from ottoscaler.rpc.http2.call import TooLarge
from ottoscaler.rpc.http2.codes import Code
from ottoscaler.rpc.http2.heads import Headers, trailers_of

DOMAIN = "ottoscaler"
RETRY_SECONDS = 1.0
LONGEST_MESSAGE, LONGEST_DETAILS = 1024, 3072
"""Bytes, before percent signs and base64: with these all trailers are below 8 KiB, as much as clients let through."""


class NotKnown(Exception):
    """The caller did not show who it is (UNAUTHENTICATED)."""


class NotAllowed(Exception):
    """The caller is known and may not do this (PERMISSION_DENIED)."""


class NotServed(Exception):
    """What was asked for is not here (NOT_FOUND)."""


class NotOffered(Exception):
    """There is no such rpc (UNIMPLEMENTED)."""


class NotRead(Exception):
    """The call had no message in time (CANCELLED), or did not take its answer."""


_BARE = {
    NotServed: Code.NOT_FOUND,
    NotOffered: Code.UNIMPLEMENTED,
    NotRead: Code.CANCELLED,
    TooLarge: Code.RESOURCE_EXHAUSTED,
}
"""Errors without details."""


class Answer(NamedTuple):
    """How a call ends, as it goes over the wire."""

    code: Code
    message: str = ""
    details: tuple[Message, ...] = ()

    def trailers(self) -> Headers:
        """The end of the call in headers, which have a limit whatever is in the message and the details."""
        message = _first_bytes(self.message)
        if not self.details:
            return trailers_of(self.code, message)
        status = _status(self.code, message, self.details)
        if status.ByteSize() > LONGEST_DETAILS:
            status = _status(self.code, message, map(_bare, self.details))
        return trailers_of(self.code, message, status.SerializeToString())


OK = Answer(Code.OK)


def _first_bytes(text: str) -> str:
    raw = text.encode(errors="replace")
    return text if len(raw) <= LONGEST_MESSAGE else raw[: LONGEST_MESSAGE - 3].decode(errors="ignore") + "…"


def _status(code: Code, message: str, details: Iterable[Message]) -> status_pb2.Status:
    status = status_pb2.Status(code=code, message=message)
    for detail in details:
        status.details.add().Pack(detail)
    return status


def _bare(detail: Message) -> Message:
    """A detail without what may be of any size, so that it is still of its kind."""
    bare = type(detail)()
    bare.CopyFrom(detail)
    for field in ("field_violations", "metadata"):
        if field in bare.DESCRIPTOR.fields_by_name:
            bare.ClearField(field)
    return bare


def answer_to(error: BaseException) -> Answer:
    """The answer to a call that ended with `error`; what we did not expect is logged and kept to ourselves."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    code, details = _known(error)
    if code is not None:
        return Answer(code, _first_bytes(str(error)), details)
    log.error("a call broke", error=error)
    return Answer(Code.INTERNAL, "a fault of Ottoscaler's own; its log says more")


def _known(error: BaseException) -> tuple[Code | None, tuple[Message, ...]]:
    match error:
        case InvalidCall():
            return Code.INVALID_ARGUMENT, (_bad_request(error.field, _first_bytes(str(error))),)
        case PolicyRefused():
            return Code.PERMISSION_DENIED, (_info("POLICY", field=error.field, value=str(error.value)),)
        case NotAllowed():
            return Code.PERMISSION_DENIED, (_info("ROLE"),)
        case NotKnown():
            return Code.UNAUTHENTICATED, (_info("TOKEN"),)
        case RequestMismatch():
            return Code.ALREADY_EXISTS, (_info("OTHER_CONTENT", field=error.field, value=error.value),)
        case DeadLetter():
            return Code.FAILED_PRECONDITION, (_info("DEAD_LETTER", event_id=error.event_id, cause=error.cause),)
        case TooMany():
            return Code.RESOURCE_EXHAUSTED, (_retry(error.retry_after),)
        case Unavailable():
            return Code.UNAVAILABLE, (_retry(error.retry_after or RETRY_SECONDS),)
        case TryAgain():
            return Code.UNAVAILABLE, (_retry(RETRY_SECONDS),)
    return next((code for kind, code in _BARE.items() if isinstance(error, kind)), None), ()


def _bad_request(field: str, description: str) -> Message:
    violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
    return error_details_pb2.BadRequest(field_violations=[violation])


def _info(reason: str, **metadata: str) -> Message:
    shown = {name: value[:200] for name, value in metadata.items()}
    return error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=shown)


def _retry(seconds: float) -> Message:
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromMilliseconds(max(1, int(seconds * 1000)))
    return info
