"""What a line says of itself: its level and where it comes from. Pure.

JSON lines are asked for `level` (also `severity`, or pino's numbers) and `source` (also `logger`, `component`); of text
lines the first word in capitals after stamps and brackets counts, and `level=` wherever it stands. A worker may write
anything: what cannot be read says nothing, and is no reason not to forward its line.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

import msgspec

DEFAULT_LEVEL = "info"
_LEVELS = {
    "trace": "trace",
    "debug": "debug",
    "info": "info",
    "notice": "info",
    "warn": "warn",
    "warning": "warn",
    "error": "error",
    "err": "error",
    "critical": "fatal",
    "fatal": "fatal",
    "panic": "fatal",
}
LEVELS = frozenset(_LEVELS.values())
"""All that a line may be."""
_NUMBERS = {10: "trace", 20: "debug", 30: "info", 40: "warn", 50: "error", 60: "fatal"}
_WORD = re.compile(
    rb"[\s\[(<\d:T.,Z+/-]{0,48}(TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERROR|CRITICAL|FATAL|PANIC)\b", re.ASCII
)
_PAIR = re.compile(rb"\blevel=\"?([A-Za-z]{3,8})\b")
LONGEST_JSON = 64 << 10


class _Said(msgspec.Struct):
    """Anything, for what one logger calls `source` is an object with another."""

    level: Any = None
    severity: Any = None
    source: Any = None
    logger: Any = None
    component: Any = None


class _Raw(msgspec.Struct):
    """The same fields, unread."""

    level: msgspec.Raw = msgspec.Raw()
    severity: msgspec.Raw = msgspec.Raw()
    source: msgspec.Raw = msgspec.Raw()
    logger: msgspec.Raw = msgspec.Raw()
    component: msgspec.Raw = msgspec.Raw()


_decoder, _raw_decoder = msgspec.json.Decoder(_Said), msgspec.json.Decoder(_Raw)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What bytes that are no JSON raise, or no UTF-8 in a field that is read, or what is nested thousands deep."""


def read_words(text: bytes) -> tuple[str, str]:
    """Level (`info` where none is said) and source (empty where none is said)."""
    if text[:1] == b"{" and len(text) <= LONGEST_JSON:
        try:
            said = _decoder.decode(text)
        except _UNREADABLE:
            said = _read_fields(text)
        return _level(said), _source(said)
    found = _WORD.match(text) or (_PAIR.search(text, 0, 512) if b"level=" in text else None)
    return (_LEVELS.get(found[1].decode().lower(), DEFAULT_LEVEL) if found else DEFAULT_LEVEL), ""


def _read_fields(text: bytes) -> _Said:
    """Each field by itself: one that cannot be read hides none of the others."""
    said = _Said()
    try:
        fields = _raw_decoder.decode(text)
    except _UNREADABLE:
        return _read_loosely(text)
    for name in _Said.__struct_fields__:
        if field := bytes(getattr(fields, name)):
            with suppress(*_UNREADABLE):
                setattr(said, name, msgspec.json.decode(field))
    return said


def _read_loosely(text: bytes) -> _Said:
    """As Python takes it: with NaN, which many loggers write and JSON has not, and with halves of characters."""
    said = _Said()
    with suppress(ValueError, RecursionError):
        fields = json.loads(text.decode(errors="surrogateescape"))
        for name in _Said.__struct_fields__:
            with suppress(UnicodeEncodeError):
                str(value := fields.get(name)).encode()
                setattr(said, name, value)
    return said


def _level(said: _Said) -> str:
    level = said.level
    if type(level) is int:
        return _NUMBERS.get(level, DEFAULT_LEVEL)
    for word in (level, said.severity):
        if type(word) is str and (known := _LEVELS.get(word.lower())):
            return known
    return DEFAULT_LEVEL


def _source(said: _Said) -> str:
    for name in (said.source, said.logger, said.component):
        if name and type(name) is str:
            return name
    return ""
