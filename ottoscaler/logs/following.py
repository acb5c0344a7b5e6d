"""One worker's log, from a mark to its end, through everything that cuts a stream.

In: how to read the log, the pod as the fleet knows it, the mark to go on from. Out: lines in the file's order, each
once, and a `Gap` wherever lines may be missing; the receiver may take its time, for the kubelet's file is the buffer.

What the kubelet serves is its current file, and a follower changes to a new one without reading the old one to its end.
So nothing is taken for complete but what was seen to follow a mark that was found again: a stream is resumed only after
a plain read has found the mark, and whether a new file was begun (its first stamp has changed) is looked at every
`HEAD_EVERY` bytes, after every pause in reading, and at the end. A log is at its end when a read that began after the
container's end has found the mark and come to the end.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Protocol

import msgspec
import trio

from ottoscaler.backoff import Backoff
from ottoscaler.errors import Answered, NotFound, TryAgain, Unavailable
from ottoscaler.fleet import Follow, PodRecord
from ottoscaler.log import log
from ottoscaler.logs.lines import LineReader, LogLine
from ottoscaler.logs.mark import Entry, Gap, Mark, Seeker

RETRY = Backoff(0.1, 5.0)
HEAD_EVERY = 4 << 20
"""Bytes after which it is looked at whether a new file was begun: less than half of the 10 MiB at which one is."""
SMALL = 256 << 10
"""Logs up to this size are read whole at their end, which needs no look at the head."""
QUIET_SECONDS = 300.0
"""A stream that is silent for so long is opened again: it may have been cut without a word."""
SEEK_SECONDS = 10.0
PAUSE_SECONDS = 1.0
LATE_SECONDS = 2.0
"""A log that was opened, and whose first line came, so long after it was last known to be empty (at the container's
start, whose time has whole seconds) may have lost its beginning.
"""
END_SECONDS = 5.0
"""How long a stream may go on after the container's end, and the news of the end may come after the stream's."""


class ReadLog(Protocol):
    """`Kube.read_log` of one container."""

    def __call__(self, *, follow: bool, since: str = "", limit_bytes: int | None = None) -> AsyncGenerator[bytes, None]:
        """The log in pieces; the first one, empty, comes when the answer begins."""


class Following:
    """Follows one log; `run` ends with the log. `position` is the last line that was handed on."""

    def __init__(
        self,
        name: str,
        read: ReadLog,
        pod: Follow,
        mark: Mark,
        deliver: Callable[[Sequence[Entry]], Awaitable[None]],
        *,
        now: Callable[[], float] = time.time,
        retry: Backoff = RETRY,
    ) -> None:
        self.position = mark
        self.is_over = mark.ended
        """Everything that there will ever be was handed on."""
        self._name = name
        self._read = read
        self._pod = pod
        self._deliver = deliver
        self._now = now
        self._retry = retry
        self._is_small = not mark.stamp
        self._size = 0
        self._unchecked = 0
        self._ended_at = 0.0
        self._opened = self._empty_until = 0.0
        self._has_read = bool(mark.stamp)
        self._is_hurried = False
        self._may_have_run = True
        self._waiting = trio.CancelScope()
        self._stream = trio.CancelScope()

    def hurry(self, *, may_have_run: bool = True) -> None:
        """The worker has ended, or will never begin: wait for nothing that may not come."""
        self._is_hurried = True
        self._may_have_run = may_have_run
        self._waiting.cancel(reason="the worker has ended")
        self._stream.deadline = min(self._stream.deadline, trio.current_time() + END_SECONDS)

    async def run(self) -> None:
        """Hand on everything to the end. Whatever fails is tried again; only a cancel ends it earlier."""
        with self._waiting:
            await self._pod.wait(_has_begun)
        delays = self._retry.delays()
        while not self.is_over:
            before = self.position
            try:
                await self._go_on()
            except NotFound:
                await self._end_gone()
            except (TryAgain, Answered) as error:
                log.debug("a log is read again later", worker=self._name, reason=str(error))
                await trio.sleep(next(delays))
            else:
                await self._pause(next(delays))
            if self.position is not before:
                delays = self._retry.delays()

    async def _pause(self, seconds: float) -> None:
        """Between two streams of a container that runs."""
        if not self._has_ended:
            await trio.sleep(seconds)

    @property
    def _has_ended(self) -> bool:
        return self._is_hurried or _has_ended(self._pod.record)

    async def _go_on(self) -> None:
        if self._has_ended:
            await self._finish()
            return
        if self.position.stamp and not await self._catch_up(self.position.since):
            return
        await self._follow()
        with trio.move_on_after(END_SECONDS):
            await self._pod.wait(_has_ended)

    async def _catch_up(self, since: str, *, is_last: bool = False) -> bool:
        """Read what there is, behind the mark; False where the mark is not there any more, which a gap then says."""
        self._opened = self._now()
        seeker, reader = Seeker(self.position), LineReader()
        async with aclosing(self._read(follow=False, since=since)) as pieces:
            async for piece in pieces:
                await self._take(seeker, reader.feed(piece), is_whole=not since)
            if is_last:
                await self._take(seeker, reader.end(), is_whole=not since)
        if reader.unstamped and not seeker.first:
            raise Unavailable(f"the kubelet says: {reader.unstamped.decode(errors='replace')}")
        if not seeker.found:
            await self._deliver([Gap(self.position.stamp, seeker.first, "LogRotated")])
            self.position = msgspec.structs.replace(self.position, stamp="", digest="", nth=0, head="", sure="")
        return seeker.found

    async def _follow(self) -> None:
        """One stream, until it ends, falls silent, or may have skipped something."""
        since, is_open = self.position.since, False
        self._opened = self._now()
        seeker, reader = Seeker(self.position), LineReader()
        with trio.CancelScope() as self._stream:
            self._limit(seeker)
            async with aclosing(self._read(follow=True, since=since)) as pieces:
                try:
                    async for piece in pieces:
                        is_open = True
                        self._stream.deadline = float("inf")
                        lines = reader.feed(piece)
                        if not await self._hand_on(seeker, lines, len(piece), is_whole=not since):
                            return
                        if lines and seeker.is_beyond(lines[-1]):
                            return
                        self._limit(seeker)
                    self._ended_at = self._now()
                finally:
                    if is_open and not self._has_read and self._opened - self._known_empty() <= LATE_SECONDS:
                        self._empty_until = self._now()

    def _limit(self, seeker: Seeker) -> None:
        patience = END_SECONDS if self._is_hurried else QUIET_SECONDS if seeker.found else SEEK_SECONDS
        self._stream.deadline = trio.current_time() + patience

    async def _hand_on(self, seeker: Seeker, lines: Sequence[LogLine], size: int, *, is_whole: bool) -> bool:
        """Hand lines on and look after the file; whether the stream may be read on."""
        begun = trio.current_time()
        await self._take(seeker, lines, is_whole=is_whole)
        self._unchecked += size
        has_paused = trio.current_time() - begun > PAUSE_SECONDS
        return not (has_paused or self._unchecked >= HEAD_EVERY) or await self._check_head()

    async def _take(self, seeker: Seeker, lines: Sequence[LogLine], *, is_whole: bool) -> None:
        """Number the lines behind the mark and hand them on; the first of a whole file is its head."""
        news = seeker.pass_on(lines)
        if is_whole and seeker.first and not self.position.stamp:
            await self._begin_file(seeker.first)
        elif is_whole and lines and seeker.first == lines[0].stamp:
            await self._compare_head(seeker.first)
        if not news:
            return
        number = self.position.line
        numbered = [
            LogLine(line.stamp, line.text, line.nth, number + at, line.more) for at, line in enumerate(news, start=1)
        ]
        if self._is_small:
            self._size += sum(len(line.text) for line in numbered)
            self._is_small = self._size < SMALL
        await self._deliver(numbered)
        self.position = self.position.at(numbered[-1], self.position.head)

    async def _begin_file(self, head: str) -> None:
        """A file is read from its first line."""
        if self.position.head:  # known to an owner before us who took no line
            await self._compare_head(head)
            return
        if not self._has_read and min(_seconds(head), self._opened) - self._known_empty() > LATE_SECONDS:
            await self._deliver([Gap("", head, "OpenedLate", certain=False)])
        self._has_read = True
        self.position = msgspec.structs.replace(self.position, head=head, sure=head)

    def _known_empty(self) -> float:
        """Until when the log surely had no line."""
        record = self._pod.record
        started = record.started_at if record is not None else None
        return max(started or self._now(), self._empty_until)

    # -- whether the kubelet has begun a new file

    async def _check_head(self) -> bool:
        """Look at the file's first stamp; whether the stream may be read on."""
        reader, lines = LineReader(), list[LogLine]()
        async with aclosing(self._read(follow=False, limit_bytes=64)) as pieces:
            async for piece in pieces:
                lines += reader.feed(piece)
        lines += reader.end()
        self._unchecked = 0
        return not lines or await self._compare_head(lines[0].stamp)

    async def _compare_head(self, head: str) -> bool:
        """False where the file is a new one and the stream has not come to it yet."""
        known, since = self.position.head, self.position.sure
        if known and head != known:
            if self.position.stamp and _seconds(head) > _seconds(self.position.stamp):
                return False  # the mark will not be found, and a gap says so
            await self._deliver([Gap(since, head, "LogRotated", certain=False)])
        self.position = msgspec.structs.replace(self.position, head=head, sure=self.position.stamp)
        return True

    # -- the end

    async def _finish(self) -> None:
        """The container has ended: what there is now is all there will be."""
        record = self._pod.record
        if not self._has_read and record is not None and record.started_at is None and not record.is_unseen:
            self.is_over = True  # it never ran
            return
        since = "" if self._is_small else self.position.since
        if await self._catch_up(since, is_last=True):
            if since:
                await self._check_head()
            if not _has_ended(record):
                await self._deliver([Gap(self.position.stamp, "", "EndNotSeen", certain=False)])
            self.is_over = True

    async def _end_gone(self) -> None:
        """The pod is gone, and with it its log. A stream that ended by itself after the container's end was whole."""
        record = self._pod.record
        finished = record.finished_at if record is not None else None
        is_whole = finished is not None and self._ended_at >= finished
        has_run = self._has_read or (record is not None and record.started_at is not None)
        is_unknown = record is None or record.is_unseen
        if not is_whole and (has_run or (is_unknown and self._may_have_run)):
            await self._deliver([Gap(self.position.stamp, "", "PodGone", certain=has_run)])
        self.is_over = True


def _has_begun(record: PodRecord | None) -> bool:
    return record is not None and (record.started_at is not None or _has_ended(record))


def _has_ended(record: PodRecord | None) -> bool:
    return record is not None and (record.exit_code is not None or record.is_final or record.gone)


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp() if stamp else 0.0
