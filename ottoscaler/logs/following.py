"""One worker's log, from a mark to its end, through everything that cuts a stream.

In: how to read the log, the pod as the fleet knows it, the mark to go on from. Out: lines in the file's order, each
once, and a `Gap` wherever lines may be missing; the receiver may take its time, for the kubelet's file is the buffer.

What the kubelet serves is its current file, and a follower changes to a new one without reading the old one to its end.
So nothing is taken for complete but what was seen to follow a mark that was found again: a stream is resumed only after
a plain read has found the mark, and whether a new file was begun (its first stamp has changed) is looked at every
`HEAD_EVERY` bytes, after every pause in reading, with every plain read, and at the end.

Nor is the end of a stream the end of the log: the API server ends its answer in the same way when its connection to the
kubelet breaks (it ignores how its `io.Copy` ended). So after each stream the log is read and followed again, until the
end of the container is known. A log is at its end when a read that began after that, and was not the only one, has
brought nothing new.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Protocol

import msgspec
import trio

from ottoscaler.backoff import Backoff
from ottoscaler.errors import Answered, NotFound, TryAgain, Unavailable
from ottoscaler.fleet import Follow, PodRecord
from ottoscaler.log import log
from ottoscaler.logs.lines import LineReader, LogLine
from ottoscaler.logs.mark import Entry, Gap, Mark, Seeker, seconds_of

RETRY = Backoff(0.2, 5.0, factor=3.0)
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
"""So long a worker that was said to have ended is followed, if its container was not seen to end."""
SETTLE_SECONDS = 0.1
"""A stream that is silent for so long after the container's end was seen is left: a read says what there is."""
MOST_MISSES = 5
"""After so many reads without the mark, some 8 s, a file that shows no line is another one."""
CERTAIN_SECONDS = 2.0
"""A read that began so long after `finishedAt` began after the container's end: that time has whole seconds, and clocks
of nodes are taken to differ from ours by less than a second.
"""


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
        self.is_small = not mark.stamp
        """It was read from the beginning, and is too small for a file to have been put away."""
        self._size = 0
        self._unchecked = 0
        self._rest = b""
        """A line without its end, as the last stream or read left it."""
        self._answers = 0
        """Streams and reads that began: one alone may have been cut off at any point."""
        self._misses = 0
        """So many reads, one after the other, did not find the mark."""
        self._ended_at = self._read_at = 0.0
        """When a stream ended by itself, and when the last read to the end began."""
        self._opened = self._empty_until = 0.0
        self._has_read = bool(mark.stamp)
        self._hurried_until = 0.0
        self._may_have_run = True
        self._ended = trio.Event()
        """The container was seen to end, or its pod to be gone."""
        self._waiting = trio.CancelScope()
        self._stream = trio.CancelScope()

    def hurry(self, *, may_have_run: bool = True) -> None:
        """The worker has ended, or will never begin: wait for nothing that may not come."""
        self._hurried_until = trio.current_time() + END_SECONDS
        self._may_have_run = may_have_run
        self._waiting.cancel(reason="the worker has ended")
        self._shorten(END_SECONDS)

    async def run(self) -> None:
        """Hand on everything to the end. Whatever fails is tried again; only a cancel ends it earlier."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._note_end)
            with self._waiting:
                await self._pod.wait(_has_begun)
            await self._run()
            nursery.cancel_scope.cancel(reason="the log is over")

    async def _note_end(self) -> None:
        await self._pod.wait(_has_ended)
        self._ended.set()
        self._shorten(SETTLE_SECONDS)

    async def _run(self) -> None:
        delays = self._retry.delays()
        while not self.is_over:
            line, begun, is_away = self.position.line, trio.current_time(), False
            try:
                await self._go_on()
            except NotFound:
                await self._end_gone()
            except (TryAgain, Answered) as error:
                log.debug("a log is read again later", worker=self._name, reason=str(error))
                is_away = True
            if self.position.line != line or trio.current_time() > begun + END_SECONDS:
                delays = self._retry.delays()
            if not self.is_over:
                await self._pause(next(delays), is_away=is_away)

    async def _pause(self, seconds: float, *, is_away: bool) -> None:
        """Between two streams; the news that the container has ended makes it short."""
        if is_away and self._ended.is_set():
            await trio.sleep(seconds)
        with trio.move_on_after(seconds):
            await self._ended.wait()

    @property
    def _may_finish(self) -> bool:
        """Whether nothing is to be followed any more."""
        record = self._pod.record
        if not self._hurried_until or _has_ended(record):
            return _has_ended(record)
        return record is None or record.started_at is None or trio.current_time() >= self._hurried_until

    async def _go_on(self) -> None:
        if self._may_finish:
            await self._finish()
        elif not (self.position.stamp or self._ended_at) or await self._catch_up():
            await self._follow()

    async def _catch_up(self, *, is_last: bool = False) -> bool:
        """Read what there is, behind the mark, and look at the file; False where that was cut off from what was read
        before, which a gap says, or brought something new that may not be `is_last`.
        """
        opened = self._opened = self._now()
        known, since = (self.position.line, self._rest), "" if self.is_small else self.position.since
        seeker, reader = Seeker(self.position), LineReader()
        async with aclosing(self._read(follow=False, since=since)) as pieces:
            async for piece in pieces:
                await self._take(seeker, reader.feed(piece), is_whole=not since)
        self._rest, is_first = reader.rest, not self._answers
        self._answers += 1
        if reader.is_interrupted or (reader.unstamped and not seeker.first):
            raise Unavailable(f"the kubelet says: {(reader.unstamped or reader.rest)[:300].decode(errors='replace')}")
        self._misses = 0 if seeker.found else self._misses + 1
        if not seeker.found:
            if await self._is_rotated():
                await self._say_rotated(seeker.first)
            return False
        if since and not await self._check_head():
            return False
        if not since:  # the head was compared, and this is its file
            self.position = msgspec.structs.replace(self.position, sure=self.position.stamp)
        self._read_at = opened
        if is_last and (is_first or (self.position.line, self._rest) != known):
            return False
        if is_last:
            await self._take(seeker, reader.end(), is_whole=not since)
        return True

    async def _is_rotated(self) -> bool:
        """Whether reads missed the mark because the file is another one: one that was cut off does not find it either,
        and an empty look may have been, too.
        """
        if self._misses < 2:
            return False
        head = await self._read_head()
        return head != self.position.head if head else self._misses >= MOST_MISSES

    async def _say_rotated(self, head: str) -> None:
        """The mark is not in the file any more; whether there was another file before it nobody has looked."""
        stamp, sure = self.position.stamp, self.position.sure
        if seconds_of(sure) < seconds_of(stamp):
            await self._deliver([Gap(sure, stamp, "LogRotated", certain=False)])
        await self._deliver([Gap(stamp, head, "LogRotated")])
        self.position = msgspec.structs.replace(self.position, stamp="", digest="", nth=0, head=head, sure=head)
        self._misses = 0

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
                    if is_open:
                        self._rest = reader.rest
                        self._answers += 1
                    if is_open and not self._has_read and self._opened - self._known_empty() <= LATE_SECONDS:
                        self._empty_until = self._now()

    def _limit(self, seeker: Seeker) -> None:
        patience = QUIET_SECONDS if seeker.found else SEEK_SECONDS
        if self._hurried_until or self._ended.is_set():
            patience = SETTLE_SECONDS if self._ended.is_set() else END_SECONDS
        self._stream.deadline = trio.current_time() + patience

    def _shorten(self, patience: float) -> None:
        """Wait no longer than that for what comes next; what came is handed on whole."""
        if self._stream.deadline != float("inf"):
            self._stream.deadline = min(self._stream.deadline, trio.current_time() + patience)

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
        if self.is_small:
            self._size += sum(len(line.text) for line in numbered)
            self.is_small = self._size < SMALL
        await self._deliver(numbered)
        self.position = self.position.at(numbered[-1], self.position.head)

    async def _begin_file(self, head: str) -> None:
        """A file is read from its first line."""
        if self.position.head:  # known to an owner before us who took no line
            await self._compare_head(head)
            return
        if not self._has_read and min(seconds_of(head), self._opened) - self._known_empty() > LATE_SECONDS:
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
        head = await self._read_head()
        self._unchecked = 0
        return not head or await self._compare_head(head)

    async def _read_head(self) -> str:
        """The file's first stamp; empty where nothing came."""
        reader, lines = LineReader(), list[LogLine]()
        async with aclosing(self._read(follow=False, limit_bytes=64)) as pieces:
            async for piece in pieces:
                lines += reader.feed(piece)
        lines += reader.end()
        return lines[0].stamp if lines else ""

    async def _compare_head(self, head: str) -> bool:
        """False where the file is a new one and the stream has not come to it yet."""
        known, since = self.position.head, self.position.sure
        if known and head != known:
            if self.position.stamp and seconds_of(head) > seconds_of(self.position.stamp):
                return False  # the mark will not be found, and a gap says so
            await self._deliver([Gap(since, head, "LogRotated", certain=False)])
        self.position = msgspec.structs.replace(self.position, head=head, sure=self.position.stamp or head)
        return True

    # -- the end

    async def _finish(self) -> None:
        """The container has ended: what there is now is all there will be."""
        record = self._pod.record
        if not self._has_read and record is not None and record.started_at is None and not _is_unknown(record):
            self.is_over = True  # it never ran
            return
        is_seen = _has_ended(record)
        if not await self._catch_up(is_last=is_seen):
            return
        if not is_seen:
            await self._deliver([Gap(self.position.stamp, "", "EndNotSeen", certain=False)])
        self.is_over = True

    async def _end_gone(self) -> None:
        """The pod is gone, and with it its log: was it read after the container's end, or at least until about then?"""
        record, at = self._pod.record, self.position
        finished = record.finished_at if record is not None else None
        is_read = finished is not None and self._read_at >= finished + CERTAIN_SECONDS
        is_near = finished is not None and max(self._read_at, self._ended_at) >= finished
        has_run = self._has_read or (record is not None and record.started_at is not None)
        is_whole = is_read and not self._rest
        if not is_whole and (has_run or (_is_unknown(record) and self._may_have_run)):
            begin = min(at.sure, at.stamp, key=seconds_of)
            why = "EndNotRead" if has_run and is_near else "PodGone"
            await self._deliver([Gap(begin, "", why, certain=has_run and not is_near)])
        self.is_over = True


def _has_begun(record: PodRecord | None) -> bool:
    return record is not None and (record.started_at is not None or _has_ended(record))


def _is_unknown(record: PodRecord | None) -> bool:
    """Whether the last state is not known of a pod whose container was not seen to start: deleted without grace, a pod
    that has a node goes before its kubelet has said what it did.
    """
    if record is None or record.is_unseen:
        return True
    return record.gone and record.scheduled and record.exit_code is None and not record.is_final


def _has_ended(record: PodRecord | None) -> bool:
    return record is not None and (record.exit_code is not None or record.is_final or record.gone)
