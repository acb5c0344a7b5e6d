"""A line as the bytes of a `WorkerLogEntry`: a third of what protobuf's classes take for the same. Pure.

Only what differs from line to line is written here, in the wire format of protocol buffers: tag, length, bytes. Field
numbers are those of `worker_logs.proto`; a property of the tests compares with the generated class.
"""

from __future__ import annotations

from ottoscaler.logs.words import LEVELS

_TIMESTAMP, _LEVEL, _SOURCE, _MESSAGE, _METADATA = b"\x1a", b"\x22", b"\x2a", b"\x32", b"\x42"


def _varint(number: int) -> bytes:
    raw = bytearray()
    while number > 0x7F:
        raw.append(number & 0x7F | 0x80)
        number >>= 7
    raw.append(number)
    return bytes(raw)


_SIZES = [_varint(size) for size in range(2048)]


def _field(tag: bytes, raw: bytes) -> bytes:
    size = len(raw)
    return tag + (_SIZES[size] if size < 2048 else _varint(size)) + raw


_LEVELS = {level: _field(_LEVEL, level.encode()) for level in LEVELS}


def encode_line(stamp: str, level: str, source: str, text: bytes, number: int, flags: tuple[str, ...]) -> bytes:
    """Timestamp, level, source, message and metadata: the `line`, and "true" under each of `flags`.

    `text` is UTF-8.
    """
    digits = b"%d" % number
    parts = [
        _field(_TIMESTAMP, stamp.encode()),
        _LEVELS[level],
        _field(_SOURCE, source.encode()),
        _field(_MESSAGE, text),
        b"\x42%c\x0a\x04line\x12%c%b" % (8 + len(digits), len(digits), digits),
    ]
    for flag in flags:
        pair = _field(b"\x0a", flag.encode()) + _field(b"\x12", b"true")
        parts.append(_field(_METADATA, pair))
    return b"".join(parts)
