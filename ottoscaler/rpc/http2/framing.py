"""What stands between bytes and messages: HTTP/2 frames as they come, and gRPC's messages inside them. Pure.

Servers send one DATA frame for every answer, and h2 takes about 30 µs for each frame, however small. So DATA frames
that follow one another are joined before h2 sees them, which is the same to HTTP/2. GOAWAY is taken out: h2 would hold
the connection to be over, while the streams that are open may go on.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_FRAME = struct.Struct(">BHBBI")  # RFC 9113, section 4.1: length (24 bits), type, flags, stream
_PREFIX = struct.Struct(">BI")  # gRPC over HTTP/2: whether compressed, length
_DATA, _HEADERS, _GOAWAY = 0, 1, 7
_END_STREAM = 1  # beside it a DATA frame has only the flag for padding, which nobody needs


class GoAway(NamedTuple):
    """The server wants no new streams, and forgets those above `last_stream`."""

    last_stream: int
    code: int
    words: str


class FrameJoiner:
    """Bytes of a connection on their way to h2; `goaway` is the last that came. `largest`: bytes of a frame."""

    def __init__(self, largest: int = 16384) -> None:
        self.goaway: GoAway | None = None
        self._largest = largest
        self._rest = b""
        self._small = 0

    def take_small(self) -> int:
        """How many frames came since that hold neither data nor the beginning of a request."""
        small, self._small = self._small, 0
        return small

    def feed(self, piece: bytes | bytearray) -> bytes:
        """The frames that are complete with this piece, fewer and larger. Raises ValueError for what is no HTTP/2."""
        raw, at = self._rest + piece, 0
        ready: list[bytes] = []
        joined: list[bytes] = []
        size = of = 0
        while len(raw) - at >= _FRAME.size:
            high, low, kind, flags, stream = _FRAME.unpack_from(raw, at)
            length = high << 16 | low
            if length > self._largest:
                raise ValueError("it does not speak HTTP/2")
            end = at + _FRAME.size + length
            if end > len(raw):
                break
            is_plain = kind == _DATA and not flags
            self._small += kind != _HEADERS and (kind != _DATA or length == 0 or flags > _END_STREAM)
            if joined and not (is_plain and stream == of and size + length <= self._largest):
                ready += [_FRAME.pack(size >> 16, size & 0xFFFF, _DATA, 0, of), *joined]
                joined, size = [], 0
            if is_plain:
                joined.append(raw[at + _FRAME.size : end])
                size, of = size + length, stream
            elif kind == _GOAWAY and length >= 8:
                self.goaway = _read_goaway(raw[at + _FRAME.size : end])
            else:
                ready.append(raw[at:end])
            at = end
        if joined:
            ready += [_FRAME.pack(size >> 16, size & 0xFFFF, _DATA, 0, of), *joined]
        self._rest = raw[at:]
        return b"".join(ready)


def _read_goaway(payload: bytes) -> GoAway:
    last, code = struct.unpack_from(">II", payload)
    return GoAway(last & 0x7FFFFFFF, code, payload[8:].decode(errors="replace"))


def goaway(last_stream: int, code: int, words: str) -> bytes:
    """The frame by which a server says that it leaves."""
    payload = struct.pack(">II", last_stream, code) + words.encode()
    return _FRAME.pack(0, len(payload), _GOAWAY, 0, 0) + payload


def prefixed(message: bytes) -> bytes:
    """A message as gRPC puts it into a stream."""
    return _PREFIX.pack(0, len(message)) + message


class MessageReader:
    """The messages in the bytes of one stream. `largest`: bytes of a message; more is an error."""

    def __init__(self, largest: int = 4 << 20) -> None:
        self._largest = largest
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """The messages that are complete with this piece. Raises ValueError for what nobody can read."""
        raw, at = self._rest + piece if self._rest else piece, 0
        size, whole, messages = _PREFIX.size, len(raw), list[bytes]()
        while whole - at >= size:
            is_compressed, length = _PREFIX.unpack_from(raw, at)
            if is_compressed:
                raise ValueError("a compressed message, which was not asked for")
            if length > self._largest:
                raise ValueError(f"a message of {length} bytes, expected at most {self._largest}")
            end = at + size + length
            if end > whole:
                break
            messages.append(raw[at + size : end])
            at = end
        self._rest = raw[at:]
        return messages
