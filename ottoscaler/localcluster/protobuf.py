"""The few messages that kubectl insists on sending as protobuf: access reviews (`auth can-i`) and what `create` makes.

Kubernetes wraps a message in an envelope: the bytes "k8s" and NUL, then a runtime.Unknown whose field 2 is the message.
All else is spoken in JSON, which every client accepts and most send. Field numbers: `generated.proto` of k8s.io/api.
"""

from __future__ import annotations

import base64
from typing import Any

from .refusals import ApiError, bad_request

PROTOBUF = "application/vnd.kubernetes.protobuf"

_MAGIC = b"k8s\x00"

# A shape is a dict from field number to (name, shape) for messages, or one of these:
_TEXT, _BYTES, _TEXT_MAP, _BYTES_MAP = "text", "bytes", "map of texts", "map of bytes"
_METADATA = {
    1: ("name", _TEXT),
    2: ("generateName", _TEXT),
    3: ("namespace", _TEXT),
    11: ("labels", _TEXT_MAP),
    12: ("annotations", _TEXT_MAP),
}
_RESOURCE_ATTRIBUTES = dict(
    enumerate(
        ((name, _TEXT) for name in ("namespace", "verb", "group", "version", "resource", "subresource", "name")), 1
    )
)
_PATH_ATTRIBUTES = {1: ("path", _TEXT), 2: ("verb", _TEXT)}
_REVIEW_SPEC = {1: ("resourceAttributes", _RESOURCE_ATTRIBUTES), 2: ("nonResourceAttributes", _PATH_ATTRIBUTES)}
_SHAPES: dict[str, dict[int, tuple[str, Any]]] = {
    "SelfSubjectAccessReview": {2: ("spec", _REVIEW_SPEC)},
    "Namespace": {1: ("metadata", _METADATA)},
    "ServiceAccount": {1: ("metadata", _METADATA)},
    "ConfigMap": {1: ("metadata", _METADATA), 2: ("data", _TEXT_MAP), 3: ("binaryData", _BYTES_MAP)},
    "Secret": {1: ("metadata", _METADATA), 2: ("data", _BYTES_MAP), 3: ("type", _TEXT), 4: ("stringData", _TEXT_MAP)},
}


def decode_protobuf(body: bytes, kind: str) -> dict[str, Any]:
    """The object of that kind in its JSON form; raises ApiError 400, and 415 for kinds that are taken as JSON only."""
    if kind not in _SHAPES:
        message = f"the body of the request was in an unknown format - {kind} is accepted as application/json here"
        raise ApiError(415, "UnsupportedMediaType", message)
    if not body.startswith(_MAGIC):
        raise bad_request("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    try:
        envelope = dict(_fields(body[len(_MAGIC) :]))
        return _decode(envelope.get(2, b""), _SHAPES[kind])
    except (IndexError, ValueError) as error:
        raise bad_request(f"the protobuf message cannot be read: {error}") from None


def _decode(message: bytes, shape: dict[int, tuple[str, Any]]) -> dict[str, Any]:
    decoded: dict[str, Any] = {}
    for number, content in _fields(message):
        if number not in shape:
            continue
        name, kind = shape[number]
        if isinstance(kind, dict):
            decoded[name] = _decode(content, kind)
        elif kind in (_TEXT_MAP, _BYTES_MAP):
            entry = dict(_fields(content))
            value = entry.get(2, b"")
            key = entry.get(1, b"").decode()
            decoded.setdefault(name, {})[key] = _scalar(value, _BYTES if kind == _BYTES_MAP else _TEXT)
        elif content:
            decoded[name] = _scalar(content, kind)
    return decoded


def _scalar(content: bytes, kind: str) -> str:
    return base64.b64encode(content).decode() if kind == _BYTES else content.decode()


def _fields(message: bytes) -> list[tuple[int, bytes]]:
    """The length-delimited fields of a message with their numbers; other kinds are passed over."""
    fields: list[tuple[int, bytes]] = []
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == 2:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError(f"field {number} is longer than its message")
            fields.append((number, message[at : at + length]))
            at += length
        elif kind == 0:
            _, at = _varint(message, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(f"field {number} is of the unknown wire type {kind}")
    return fields


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A variable-length number and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
