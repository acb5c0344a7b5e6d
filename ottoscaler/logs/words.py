"""What a line says of itself: its level and where it comes from. Pure.

JSON lines are asked for `level` (also `severity`, or pino's numbers) and `source` (also `logger`, `component`, `name`);
of text lines the first word in capitals after stamps and brackets counts, and `level=` wherever it stands.
"""

from __future__ import annotations

import re

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
    level: str | int | None = None
    severity: str | None = None
    source: str | None = None
    logger: str | None = None
    component: str | None = None


_decoder = msgspec.json.Decoder(_Said)


def read_words(text: bytes) -> tuple[str, str]:
    """Level (`info` where none is said) and source (empty where none is said)."""
    if text[:1] == b"{" and len(text) <= LONGEST_JSON:
        try:
            said = _decoder.decode(text)
        except msgspec.DecodeError:
            return DEFAULT_LEVEL, ""
        return _level(said.level or said.severity), said.source or said.logger or said.component or ""
    found = _WORD.match(text) or (_PAIR.search(text, 0, 512) if b"level=" in text else None)
    return (_LEVELS.get(found[1].decode().lower(), DEFAULT_LEVEL) if found else DEFAULT_LEVEL), ""


def _level(said: str | int | None) -> str:
    if isinstance(said, int):
        return _NUMBERS.get(said, DEFAULT_LEVEL)
    return _LEVELS.get((said or "").lower(), DEFAULT_LEVEL)
