"""The headers of calls: what a client says at the beginning, and what it is told at the end. Pure.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from math import inf
from typing import NamedTuple
from urllib.parse import quote

from ottoscaler.rpc.door import InvalidCall
from ottoscaler.rpc.http2.codes import Code

Headers = list[tuple[bytes, bytes]]
ENCODINGS = "identity,deflate,gzip"
BEGINNING: Headers = [
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", ENCODINGS.encode()),
]
"""Of every answer that is gRPC."""
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])", re.ASCII)


class Head(NamedTuple):
    """What a call begins with, names in lower case."""

    fields: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str:
        """The one value of a header; empty where there is none, or more than one."""
        found = [value for key, value in self.fields if key == name]
        return found[0] if len(found) == 1 else ""

    @property
    def is_grpc(self) -> bool:
        """Whether this is a call, and not some other request."""
        kind = self.get("content-type").lower()
        return kind == "application/grpc" or kind.startswith(("application/grpc+", "application/grpc;"))

    @property
    def timeout(self) -> float:
        """The seconds that the client gives it. Raises `InvalidCall`."""
        text = self.get("grpc-timeout")
        if not text:
            return inf
        found = _TIMEOUT.fullmatch(text)
        if found is None:
            raise InvalidCall("grpc-timeout", text, "up to 8 digits and one of H, M, S, m, u, n")
        return int(found[1]) * _UNITS[found[2]]


def read_head(headers: Iterable[tuple[bytes, bytes]]) -> Head:
    """A request's headers as text; what is no ASCII has no meaning in them."""
    return Head(tuple([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]))


def trailers_of(code: Code, message: str = "", details: bytes = b"") -> Headers:
    """The end of a call; `details` is a `google.rpc.Status` in bytes."""
    trailers: Headers = [(b"grpc-status", b"%d" % code)]
    if message:
        trailers.append((b"grpc-message", quote(message, safe=_PLAIN).encode()))
    if details:
        trailers.append((b"grpc-status-details-bin", b64encode(details).rstrip(b"=")))
    return trailers
