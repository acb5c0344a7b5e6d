"""Bytes of one log stream with timestamps become lines; whatever the network cut, the lines are the same.

In: what `GET log?timestamps=true` gives, in pieces. Out: `LogLine`s. A line above `LONGEST_LINE` comes as several, so
that memory is bounded by it. Two kinds of text have no stamp in front: the tail of a long line with which a resumed
stream begins, and words of the kubelet itself where it cannot read the log. Both are left out; `unstamped` keeps the
beginning of the last one.
"""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

LONGEST_LINE = 1 << 20
"""Bytes of one `LogLine`; gRPC servers take messages of 4 MiB by default."""
LONGEST_BYTES = 1_000_000
"""Of one that is no text: each of its bytes may be escaped by four."""
REMEMBERED_STAMPS = 16
"""Equal lines are counted among so many distinct stamps: those of stdout and stderr are not ordered to each other."""
_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)(?= )")
_LONGEST_STAMP = len("2026-11-20T20:41:21.140944177+09:00 ")
_has_usual_stamp = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ").match
"""Whether a line begins as kubelets write it."""


class LogLine(NamedTuple):
    """One line: RFC 3339 stamp, text without its newline, and how many equal ones (stamp and text) came before it.

    `number` counts the worker's lines from 1, 0 where nobody counted yet; `more`: the line goes on in the next one.
    """

    stamp: str
    text: bytes
    nth: int = 0
    number: int = 0
    more: bool = False


class LineReader:
    """The lines of one stream. `feed` pieces as they come; `end` once the stream has ended by itself."""

    def __init__(self) -> None:
        self.unstamped = b""
        self._rest = b""
        self._begun = b""
        """Stamp of a long line of which parts were given already."""
        self._is_skipping = False
        self._recent: dict[bytes, list[int]] = {}

    @property
    def rest(self) -> bytes:
        """What came behind the last newline."""
        return self._rest

    @property
    def is_interrupted(self) -> bool:
        """Whether the last words, which have no newline, are not the worker's: the kubelet says so why it stopped."""
        return bool(self._rest) and not (self._begun or self._is_skipping or _STAMP.match(self._rest))

    def feed(self, piece: bytes) -> list[LogLine]:
        """The lines that are complete with this piece."""
        *whole, self._rest = (self._rest + piece).split(b"\n")
        lines: list[LogLine] = []
        for raw in whole:
            if self._begun or self._is_skipping or len(raw) > LONGEST_LINE or not _has_usual_stamp(raw):
                self._finish(raw, lines)
            else:  # what nearly every line is
                lines.append(self._line(raw[:30], raw[31:]))
        if len(self._rest) > LONGEST_LINE or self._is_skipping:
            self._cut_rest(lines)
        return lines

    def end(self) -> list[LogLine]:
        """The last line, where it has no newline. Only for a stream that surely was whole: a cut one ends anywhere."""
        lines: list[LogLine] = []
        if self._rest:
            self._finish(self._rest, lines)
            self._rest = b""
        return lines

    def _finish(self, raw: bytes, lines: list[LogLine]) -> None:
        """A line's end has come; `raw` is the line, or what is left of a long one."""
        if self._is_skipping:
            self._is_skipping = False
            return
        stamp, text = (self._begun, raw) if self._begun else _split(raw)
        self._begun = b""
        if not stamp:
            self.unstamped = raw[:300]
            return
        while len(text) > LONGEST_LINE or (len(text) > LONGEST_BYTES and not _is_text(text)):
            size = _part_of(text)
            lines.append(self._line(stamp, text[:size], more=True))
            text = text[size:]
        lines.append(self._line(stamp, text))

    def _cut_rest(self, lines: list[LogLine]) -> None:
        """Give away what is too long to wait for its end."""
        if self._is_skipping:
            self._rest = b""
        if not self._begun and len(self._rest) > LONGEST_LINE + _LONGEST_STAMP:
            self._begun, self._rest = _split(self._rest)
            if not self._begun:
                self.unstamped, self._rest, self._is_skipping = self._rest[:300], b"", True
        while self._begun and len(self._rest) > LONGEST_LINE:
            size = _part_of(self._rest)
            lines.append(self._line(self._begun, self._rest[:size], more=True))
            self._rest = self._rest[size:]

    def _line(self, stamp: bytes, text: bytes, *, more: bool = False) -> LogLine:
        seen, key, nth = self._recent.get(stamp), hash(text), 0
        if seen is None:
            self._recent[stamp] = [key]
            if len(self._recent) > REMEMBERED_STAMPS:
                del self._recent[next(iter(self._recent))]
        else:
            nth = seen.count(key)
            seen.append(key)
        return LogLine(stamp.decode(), text, nth, 0, more)


def _split(raw: bytes) -> tuple[bytes, bytes]:
    """Stamp and text; no stamp and everything where there is none in front."""
    match = _STAMP.match(raw)
    return (match[0], raw[match.end() + 1 :]) if match else (b"", raw)


def _part_of(text: bytes) -> int:
    """The size of a long line's first part, which ends inside no character of UTF-8."""
    size = LONGEST_LINE - 4 + codecs.utf_8_decode(text[LONGEST_LINE - 4 : LONGEST_LINE], "ignore", False)[1]
    return size if _is_text(text[:size]) else LONGEST_BYTES


def _is_text(text: bytes) -> bool:
    try:
        codecs.utf_8_decode(text)
    except UnicodeDecodeError:
        return False
    return True
