"""One request and its answer, between the wire and what decides: plain records and what can be read from headers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import yaml

from .protobuf import PROTOBUF, decode_protobuf
from .refusals import ApiError, bad_request
from .resources import Resource
from .store import Published

Send = Callable[[bytes], Awaitable[None]]

_PREVIEW_BYTES = 30  # of a body that cannot be read, as the API quotes it


@dataclass(frozen=True, slots=True)
class User:
    """Who asks: a name and whether everything is allowed."""

    name: str
    is_admin: bool = False


@dataclass(slots=True)
class Request:
    """A whole request. Query parameters are the first of each name, header names are lower case."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    user: User = field(default_factory=lambda: User("system:anonymous"))

    def has_flag(self, name: str) -> bool:
        """Whether a boolean query parameter is set."""
        return self.query.get(name, "").lower() in ("1", "true")

    @property
    def media_type(self) -> str:
        """The content type of the body, without parameters."""
        return self.headers.get("content-type", "application/json").partition(";")[0].strip()

    def wants(self, kind: str) -> bool:
        """Whether the answer is wanted transformed, as `Table` or `PartialObjectMetadataList`."""
        return f"as={kind};" in self.headers.get("accept", "").replace(",", ";,") + ";"


@dataclass(frozen=True, slots=True)
class Response:
    """An answer: all at once in `body`, or in pieces by `stream`, which is given the way to send them."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    stream: Callable[[Send], Awaitable[None]] | None = None


def json_response(value: Any, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """An answer of any JSON value."""
    return Response(status, msgspec.json.encode(value), headers=headers)


def object_bytes(resource: Resource, obj: Published) -> bytes:
    """One object as JSON with its kind, from the bytes encoded once."""
    return f'{{"kind":"{resource.kind}","apiVersion":"{resource.api_version}",'.encode() + obj.json[1:]


def error_response(error: ApiError) -> Response:
    """The answer to a request refused."""
    return json_response(error.status(), error.code, error.headers)


def decode_body(request: Request, resource: Resource) -> dict[str, Any]:
    """The object in a body of JSON or YAML; raises ApiError 400 or 415."""
    value: Any
    if request.media_type in ("application/yaml", "application/apply-patch+yaml"):
        try:
            value = yaml.safe_load(request.body)
        except yaml.YAMLError as error:
            raise bad_request(f"error decoding YAML: {error}") from None
    elif request.media_type in ("application/json", ""):
        value = _decode_json(request.body, resource)
    elif request.media_type == PROTOBUF:
        value = decode_protobuf(request.body, resource.kind)
    else:
        message = (
            "the body of the request was in an unknown format - accepted media types include: "
            "application/json, application/yaml, application/vnd.kubernetes.protobuf"
        )
        raise ApiError(415, "UnsupportedMediaType", message)
    if not isinstance(value, dict):
        raise _unrecognized(request.body, resource, "cannot unmarshal it into an object")
    return value


def decode_json(body: bytes) -> Any:
    """Any JSON value of a body; raises ApiError 400."""
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise bad_request(f"json parse error: {_json_problem(body, error)}") from None


def _decode_json(body: bytes, resource: Resource) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise _unrecognized(body, resource, _json_problem(body, error)) from None


def _unrecognized(body: bytes, resource: Resource, why: str) -> ApiError:
    preview = body[:_PREVIEW_BYTES].decode(errors="replace") + (" ..." if len(body) > _PREVIEW_BYTES else "")
    message = f"couldn't get version/kind; json parse error: {why} ({preview})"
    return bad_request(f"the object provided is unrecognized (must be of type {resource.kind}): {message}")


def _json_problem(body: bytes, error: msgspec.DecodeError) -> str:
    """The words in which the API's own parser would say it."""
    if not body.strip() or "truncated" in str(error):
        return "unexpected end of JSON input"
    first = body.strip()[:1].decode(errors="replace")
    return str(error) if first in '{["' else f"invalid character '{first}' looking for beginning of value"
