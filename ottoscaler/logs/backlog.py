"""What was read of one worker's log and not sent yet: a little in memory, more on disk, beyond that nothing is read.

The kubelet's file is the buffer behind this one: `put` waits while there is no room, and then the stream is not read
on. All workers share the room (`Room`), so that a thousand of them stay within it. Spool files have no name: whatever
becomes of the process, nothing of them is left.
"""

from __future__ import annotations

import math
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
import trio

from ottoscaler.log import log
from ottoscaler.logs.lines import LogLine
from ottoscaler.logs.mark import Entry, Gap
from ottoscaler.logs.outbox import OVERHEAD

MEMORY_BYTES = 16 << 20
"""For what waits in memory, of all workers together; each has a share of it."""
SMALLEST_SHARE, LARGEST_SHARE = 8 << 10, 1 << 20
SPOOL_BYTES = 256 << 20
BLOCK_LINES = 512
"""So many lines are read back at a time, about 0.5 ms, before other tasks run."""
AsyncFile = Any  # what trio.wrap_file gives; its types say less
SPOOL_SHARE = 8
"""One worker may take so large a part of the disk's room: an eighth."""
AGAIN_SECONDS = 60.0
"""A disk that could not be written is left alone for so long; and after so long one that has no room is asked again."""
SEGMENT_BYTES = 2 << 20
"""A file of the spool that has grown so large is followed by another one; its room is free once all of it was read."""


class Room:
    """The room that all workers share. `spool_bytes` 0: nothing goes to disk."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES, spool_bytes: int = SPOOL_BYTES) -> None:
        self.workers = 0
        self.spooled = 0
        self._memory = memory_bytes
        self._spool = spool_bytes
        self._has_failed = False
        self._failed_until = -math.inf

    @property
    def share(self) -> int:
        """Bytes of memory that one worker may fill."""
        return min(LARGEST_SHARE, max(SMALLEST_SHARE, self._memory // max(1, self.workers)))

    def may_spool(self, mine: int, more: int) -> bool:
        """Whether a worker whose file has `mine` bytes may write `more`."""
        fits = self.spooled + more <= self._spool and mine + more <= self._spool // SPOOL_SHARE
        return fits and trio.current_time() >= self._failed_until

    def fail(self, error: OSError) -> None:
        """The disk is full or not there: do without for a while."""
        if not self._has_failed:
            log.warning("no spool for logs: the kubelet's files alone keep them", reason=str(error))
        self._has_failed, self._failed_until = True, trio.current_time() + AGAIN_SECONDS


class _Segment:
    """A file of blocks, written at its end and read from its beginning; it has no name."""

    def __init__(self) -> None:
        self.file: AsyncFile = trio.wrap_file(tempfile.TemporaryFile(buffering=0))  # noqa: SIM115 - see _drop
        self.begin = self.end = 0
        """Bytes that were read back, and that were written."""
        self.is_at_end = True


class _Block(NamedTuple):
    segment: _Segment
    size: int


class Backlog:
    """The entries of one worker that wait, in order. One task puts, one takes; `arrived` is called after each put."""

    def __init__(self, room: Room, arrived: Callable[[], None] = lambda: None) -> None:
        self._room = room
        self._arrived = arrived
        self._memory: deque[Entry] = deque()
        self._tail: list[Entry] = []
        """What comes behind all that is on disk, until it is enough for a block."""
        self._weight = self._tail_weight = 0
        self._segments: deque[_Segment] = deque()
        self._blocks: deque[_Block] = deque()
        """What is on disk and was not read back."""
        self._has_room = trio.Event()
        self._turn = trio.Lock()
        self._has_left = self._is_closed = False
        room.workers += 1

    def __len__(self) -> int:
        return len(self._memory) + len(self._blocks) + len(self._tail)

    @property
    def weight(self) -> int:
        """About how many bytes wait in memory."""
        return self._weight + self._tail_weight

    def leave(self) -> None:
        """Leave the share in the room to others, whether or not anything was ever put in here."""
        if not self._has_left:
            self._has_left = True
            self._room.workers -= 1

    async def close(self) -> None:
        """Give room and file back; what waits is forgotten. The room at once, for the disk may take its time."""
        self.leave()
        self._book(-sum(segment.end for segment in self._segments))
        self._is_closed = True
        async with self._turn:
            self._memory.clear()
            self._blocks.clear()
            while self._segments:
                await self._drop(self._segments.popleft())

    async def put(self, entries: Sequence[Entry]) -> None:
        """Add entries; waits while there is room for them neither in memory nor on disk.

        Half of the share in memory is for what is sent next, half for what comes last; between them is the disk.
        """
        if not self._blocks and not self._tail and self._weight < self._half:
            self._keep(entries)
        else:
            self._tail += entries
            self._tail_weight += _weight(entries)
        self._arrived()
        while self._tail_weight >= self._half:
            has_room = self._has_room = trio.Event()
            is_on_disk = await self._spool()
            self._arrived()  # meanwhile nothing of it could be seen
            if not is_on_disk and self._tail_weight >= self._half:
                with trio.move_on_after(AGAIN_SECONDS):
                    await has_room.wait()

    @property
    def _half(self) -> int:
        return self._room.share // 2

    def peek(self) -> Entry | None:
        """The next entry, if it is in memory."""
        if not self._memory and not self._blocks and self._tail and not self._turn.locked():
            tail = self._cut_tail()
            self._keep(tail)
            self._has_room.set()
        return self._memory[0] if self._memory else None

    def pop(self) -> Entry:
        """Take the next entry, which `peek` has shown."""
        entry = self._memory.popleft()
        self._weight -= OVERHEAD + len(entry.text)
        return entry

    @property
    def must_refill(self) -> bool:
        """Whether what comes next is on disk."""
        return not self._memory and bool(self._blocks)

    async def refill(self) -> None:
        """Bring the next blocks into memory. Until they are there they count as on disk, so that nothing overtakes."""
        async with self._turn:
            if not self.must_refill:
                return
            segment, sizes = self._blocks[0].segment, list[int]()
            for block in self._blocks:
                if block.segment is not segment or sum(sizes) >= self._half:
                    break
                sizes.append(block.size)
            segment.is_at_end = False
            await segment.file.seek(segment.begin)
            raw, at = await _read(segment.file, sum(sizes)), 0
            for size in sizes:
                if at:
                    await trio.lowlevel.checkpoint()
                self._keep([_decoded(one) for one in msgspec.msgpack.decode(raw[at : at + size])])
                self._blocks.popleft()
                segment.begin += size
                at += size
            if not self._blocks or self._blocks[0].segment is not segment:
                self._segments.remove(segment)
                await self._drop(segment)
                self._has_room.set()

    def _keep(self, entries: Sequence[Entry]) -> None:
        self._memory.extend(entries)
        self._weight += _weight(entries)

    def _cut_tail(self) -> list[Entry]:
        tail, self._tail, self._tail_weight = self._tail, [], 0
        return tail

    async def _spool(self) -> bool:
        """Write the tail behind what is on disk; False where there is no room."""
        async with self._turn:
            starts = range(0, len(self._tail), BLOCK_LINES)
            blocks = [msgspec.msgpack.encode(self._tail[at : at + BLOCK_LINES]) for at in starts]
            if not self._room.may_spool(sum(segment.end for segment in self._segments), sum(map(len, blocks))):
                return False
            try:
                if not self._segments or self._segments[-1].end >= SEGMENT_BYTES:
                    self._segments.append(_Segment())
                await self._append(self._segments[-1], blocks)
            except OSError as error:
                self._room.fail(error)
                return False
            self._cut_tail()
            return True

    async def _append(self, segment: _Segment, blocks: Sequence[bytes]) -> None:
        raw = b"".join(blocks)
        left = memoryview(raw)
        if not segment.is_at_end:
            await segment.file.seek(segment.end)
        segment.is_at_end = False  # until all is written
        while left:
            left = left[await segment.file.write(left) :]
        segment.is_at_end = True
        segment.end += len(raw)
        self._book(len(raw))
        self._blocks.extend(_Block(segment, len(block)) for block in blocks)

    def _book(self, size: int) -> None:
        """So much of the room on disk is taken, or given back."""
        if not self._is_closed:
            self._room.spooled += size

    async def _drop(self, segment: _Segment) -> None:
        self._book(-segment.end)
        with suppress(OSError):  # it has no name, and nobody reads it any more
            await trio.aclose_forcefully(segment.file)


def _weight(entries: Sequence[Entry]) -> int:
    return OVERHEAD * len(entries) + sum(len(entry.text) for entry in entries)


async def _read(file: AsyncFile, size: int) -> bytes:
    raw = b""
    while len(raw) < size and (piece := await file.read(size - len(raw))):
        raw += piece
    return raw


def _decoded(raw: list[Any]) -> Entry:
    return LogLine(*raw) if len(raw) == len(LogLine._fields) else Gap(*raw)
