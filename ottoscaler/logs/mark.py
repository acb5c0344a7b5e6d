"""A place in a worker's log that is found again: stamp, hash and ordinal of a line, and how to go on behind it.

The API's `sinceTime` has whole seconds only, and stamps of stdout and stderr are not ordered among each other. So a
stream is resumed one second before the mark, and what follows the marked line in the file's order is news. Where the
line is not found the kubelet has begun another file since, and what was between is a gap.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from ottoscaler.logs.lines import LogLine


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last line that is done with, and what else is known of the log up to it.

    `head`: stamp of the first line of the kubelet's file, by which a new file is told from the old one, and `sure`: the
    stamp up to which that was looked at; `line`: the
    number of the marked line; `told`: how many status changes were notified; `ended`: nothing more will come; `gap`:
    why the rest of the log, from `sure` on, was given up. A mark without a stamp stands before the first line.
    """

    stamp: str = ""
    digest: str = ""
    nth: int = 0
    line: int = 0
    head: str = ""
    sure: str = ""
    told: int = 0
    ended: bool = False
    gap: str = ""

    def is_at(self, line: LogLine) -> bool:
        """Whether this is the marked line."""
        return line.stamp == self.stamp and line.nth == self.nth and digest_of(line.text) == self.digest

    def at(self, line: LogLine, head: str) -> Mark:
        """The same log, done with up to `line`."""
        return msgspec.structs.replace(
            self, stamp=line.stamp, digest=digest_of(line.text), nth=line.nth, line=line.number, head=head
        )

    @property
    def since(self) -> str:
        """The `sinceTime` to resume with, empty for the beginning."""
        return since_time(self.stamp) if self.stamp else ""


class Gap(NamedTuple):
    """Lines that may be missing between two stamps (empty: from the beginning, or to the end) and why, in one word.

    `certain` is False where nobody can say whether there were more lines than we saw: a new file was begun, or the pod
    was gone before anybody saw it run.
    """

    begin: str
    end: str
    why: str
    certain: bool = True

    @property
    def text(self) -> bytes:
        """Nothing: lines and gaps are weighed alike."""
        return b""


Entry = LogLine | Gap


def digest_of(text: bytes) -> str:
    """A short hash of a line's text."""
    return hashlib.blake2b(text, digest_size=8).hexdigest()


def since_time(stamp: str) -> str:
    """The whole second before that of `stamp`, as RFC 3339 in UTC."""
    moment = datetime.fromisoformat(stamp).astimezone(UTC).replace(microsecond=0) - timedelta(seconds=1)
    return moment.isoformat().replace("+00:00", "Z")


class Seeker:
    """Lets through what follows the marked line. `first` is the stamp with which the stream began."""

    def __init__(self, mark: Mark) -> None:
        self._mark = mark
        self.found = not mark.stamp
        self.first = ""

    def pass_on(self, lines: Sequence[LogLine]) -> Sequence[LogLine]:
        """Of the next lines of the stream, those behind the mark."""
        if lines and not self.first:
            self.first = lines[0].stamp
        if self.found:
            return lines
        for at, line in enumerate(lines):
            if line.stamp == self._mark.stamp and self._mark.is_at(line):
                self.found = True
                return lines[at + 1 :]
        return ()

    def is_beyond(self, line: LogLine) -> bool:
        """Whether the marked line should have come before this one by now: its second is surely over."""
        return not self.found and seconds_of(line.stamp) > seconds_of(self._mark.stamp) + 2


def seconds_of(stamp: str) -> float:
    """A stamp as Unix time; 0 of none."""
    return datetime.fromisoformat(stamp).timestamp() if stamp else 0.0
