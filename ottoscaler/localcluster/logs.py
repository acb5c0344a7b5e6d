"""Container logs: written as the kubelet's runtime writes them, read as the kubelet serves them.

A file holds entries `<stamp> <stdout|stderr> <F|P> <bytes>`: stamps are RFC 3339 with nanoseconds, a line
above 16 KiB is several entries of which all but the last are P (partial), and so is a last line without a
newline. When a file passes `max_bytes` it is renamed and a new one begins. As in Kubernetes, only the current
file is served, and a follower changes to the new file without reading the old one to its end.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Literal

import trio

MAX_ENTRY_BYTES = 16 * 1024
MAX_LOG_BYTES = 10 * 1024 * 1024
MAX_LOG_FILES = 5
_BLOCK = 64 * 1024

Stream = Literal["stdout", "stderr"]


class LogNotAvailable(Exception):
    """There is no such log (yet, or any more); the text is the API's message."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What of a log is wanted: the log subresource's parameters, already parsed (times aware, counts not negative)."""

    follow: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    since_seconds: int | None = None
    since_time: datetime | None = None
    limit_bytes: int | None = None
    previous: bool = False


def format_stamp(nanoseconds: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 with nine digits, so that stamps compare as text."""
    seconds, fraction = divmod(nanoseconds, 10**9)
    return f"{_format_second(seconds)}.{fraction:09d}Z"


@lru_cache(maxsize=64)
def _format_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class ContainerLog:
    """The log of one run of one container: one writer, any number of readers, all in one Trio run.

    The file appears with the first entry, or with `create`.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_LOG_BYTES, now_ns: Callable[[], int] = time.time_ns) -> None:
        self.path = path
        self.generation = 0  # how many files were begun
        self.skipped = 0  # entries that followers did not get because a new file was begun, added up over them
        self.begins_at = 0  # number of the current file's first entry, counted from 0 over all files
        self.closed = False
        self.now_ns = now_ns
        self._max_bytes = max_bytes
        self._file: BinaryIO | None = None
        self._size = 0
        self._written = 0
        self._pending: dict[Stream, bytes] = {"stdout": b"", "stderr": b""}
        self._changed = trio.lowlevel.ParkingLot()

    def create(self) -> None:
        """Begin a new current file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("wb", buffering=0)
        self._size = 0
        self.generation += 1
        self.begins_at = self._written

    def rotate(self) -> None:
        """Begin a new file now, as the kubelet does when one is too large; nothing where nothing was written."""
        if self._file is not None:
            self._rotate()
            self._changed.unpark_all()

    def feed(self, stream: Stream, data: bytes) -> None:
        """Append what a process wrote: whole lines now, the rest when it is complete or at the close."""
        *lines, rest = (self._pending[stream] + data).split(b"\n")
        entries = [entry for line in lines for entry in self._split(stream, line, whole=True)]
        while len(rest) >= MAX_ENTRY_BYTES:
            entries.append(self._entry(stream, b"P", rest[:MAX_ENTRY_BYTES]))
            rest = rest[MAX_ENTRY_BYTES:]
        self._pending[stream] = rest
        self._append(entries)

    def close(self) -> None:
        """End the log: unfinished lines become partial entries, followers read to the end and stop."""
        if self.closed:
            return
        for stream, rest in self._pending.items():
            if rest:
                self._append([self._entry(stream, b"P", rest)])
        self.closed = True
        if self._file is not None:
            self._file.close()
            self._file = None
        self._changed.unpark_all()

    async def wait_changed(self) -> None:
        """Wait until something is appended or the log is closed; look first, without a checkpoint between."""
        await self._changed.park()

    def _split(self, stream: Stream, line: bytes, *, whole: bool) -> Iterator[bytes]:
        while len(line) > MAX_ENTRY_BYTES:
            yield self._entry(stream, b"P", line[:MAX_ENTRY_BYTES])
            line = line[MAX_ENTRY_BYTES:]
        yield self._entry(stream, b"F" if whole else b"P", line)

    def _entry(self, stream: Stream, tag: bytes, content: bytes) -> bytes:
        return b"%s %s %s %s\n" % (format_stamp(self.now_ns()).encode(), stream.encode(), tag, content)

    def _append(self, entries: list[bytes]) -> None:
        if not entries or self.closed:
            return
        block: list[bytes] = []
        for entry in entries:
            if self._file is None:
                self.create()
            elif self._size >= self._max_bytes:
                self._write(block)
                block = []
                self._rotate()
            block.append(entry)
            self._size += len(entry)
        self._write(block)
        self._changed.unpark_all()

    def _write(self, block: list[bytes]) -> None:
        """Entries in one write: a loud process writes many at a time."""
        if self._file is not None:
            self._file.write(b"".join(block))
            self._written += len(block)

    def _rotate(self) -> None:
        if self._file is not None:
            self._file.close()
        self.path.rename(f"{self.path}.{self.generation:06d}")
        oldest = Path(f"{self.path}.{self.generation - MAX_LOG_FILES + 1:06d}")
        oldest.unlink(missing_ok=True)
        self.create()


class _Renderer:
    """Turns entries into what a client gets: stamps or not, since, and at most so many bytes."""

    def __init__(self, options: LogOptions, now_ns: int) -> None:
        self._timestamps = options.timestamps
        self._left = options.limit_bytes
        self._line_begins = True
        since = 0
        if options.since_seconds is not None:
            since = now_ns - options.since_seconds * 10**9
        elif options.since_time is not None:
            since = int(options.since_time.timestamp()) * 10**9
        self._since = format_stamp(since).encode()

    @property
    def exhausted(self) -> bool:
        """The byte limit is reached."""
        return self._left is not None and self._left <= 0

    def render(self, entries: list[bytes]) -> bytes:
        """What these entries (without their newline) look like to the client."""
        out = []
        for entry in entries:
            stamp, _, tag, content = entry.split(b" ", 3)
            line_begins, self._line_begins = self._line_begins, tag == b"F"
            if stamp < self._since:
                continue
            if self._timestamps and line_begins:
                out.append(stamp + b" ")
            out.append(content + b"\n" if tag == b"F" else content)
        text = b"".join(out)
        if self._left is not None:
            text = text[: max(self._left, 0)]
            self._left -= len(text)
        return text


async def read_log(log: ContainerLog, options: LogOptions) -> AsyncGenerator[bytes, None]:
    """The log in pieces of whole lines; with `follow` it goes on until the log is closed."""
    renderer = _Renderer(options, log.now_ns())
    tail = options.tail_lines
    expected: int | None = None  # number of the next entry to read, where that is known
    while True:
        await trio.lowlevel.checkpoint()
        generation, rest = log.generation, b""
        if expected is not None:
            log.skipped += log.begins_at - expected
        expected = log.begins_at if tail is None else None
        with _open(log.path) as file:
            if tail is not None:
                file.seek(_tail_offset(file, tail))
                tail = None
            while True:
                block = file.read(_BLOCK)
                *entries, rest = (rest + block).split(b"\n")
                expected = None if expected is None else expected + len(entries)
                text = renderer.render(entries)
                if text:
                    yield text
                if renderer.exhausted:
                    return
                if block:
                    await trio.lowlevel.checkpoint()
                    continue
                # Between the empty read and the end of this turn there is no checkpoint, so nothing is missed.
                if generation != log.generation:
                    break
                if not options.follow or log.closed:
                    return
                await log.wait_changed()
                if generation != log.generation:
                    break


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:  # nothing was written yet
        return Path("/dev/null").open("rb", buffering=0)


def _tail_offset(file: BinaryIO, count: int) -> int:
    """Where the last `count` entries of a file begin, found from its end."""
    position = file.seek(0, 2)
    wanted = count + 1  # the newline before the first wanted entry; each entry ends with one
    while position > 0:
        start = max(0, position - _BLOCK)
        file.seek(start)
        block = file.read(position - start)
        newlines = block.count(b"\n")
        if newlines >= wanted:
            index = len(block)
            for _ in range(wanted):
                index = block.rindex(b"\n", 0, index)
            return start + index + 1
        wanted -= newlines
        position = start
    return 0
