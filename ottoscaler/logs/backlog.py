"""What was read of one worker's log and not sent yet: a little in memory, more on disk, beyond that nothing is read.

The kubelet's file is the buffer behind this one: `put` waits while there is no room, and then the stream is not read
on. All workers share the room (`Room`), so that a thousand of them stay within it. Spool files have no name: whatever
becomes of the process, nothing of them is left.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import trio

from ottoscaler.log import log
from ottoscaler.logs.lines import LogLine
from ottoscaler.logs.mark import Entry, Gap
from ottoscaler.logs.outbox import OVERHEAD

MEMORY_BYTES = 16 << 20
"""For what waits in memory, of all workers together; each has a share of it."""
SMALLEST_SHARE, LARGEST_SHARE = 8 << 10, 256 << 10
SPOOL_BYTES = 256 << 20
AsyncFile = Any  # what trio.wrap_file gives; its types say less
SPOOL_SHARE = 8
"""One worker may take so large a part of the disk's room: an eighth."""


class Room:
    """The room that all workers share. `spool_bytes` 0: nothing goes to disk."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES, spool_bytes: int = SPOOL_BYTES) -> None:
        self.workers = 0
        self.spooled = 0
        self._memory = memory_bytes
        self._spool = spool_bytes
        self._has_failed = False

    @property
    def share(self) -> int:
        """Bytes of memory that one worker may fill."""
        return min(LARGEST_SHARE, max(SMALLEST_SHARE, self._memory // max(1, self.workers)))

    def may_spool(self, mine: int, more: int) -> bool:
        """Whether a worker whose file has `mine` bytes may write `more`."""
        fits = self.spooled + more <= self._spool and mine + more <= self._spool // SPOOL_SHARE
        return fits and not self._has_failed

    def fail(self, error: OSError) -> None:
        """The disk is full or not there: do without."""
        if not self._has_failed:
            log.warning("no spool for logs: the kubelet's files alone keep them", reason=str(error))
        self._has_failed = True


class Backlog:
    """The entries of one worker that wait, in order. One task puts, one takes; `arrived` is called after each put."""

    def __init__(self, room: Room, arrived: Callable[[], None] = lambda: None) -> None:
        self._room = room
        self._arrived = arrived
        self._memory: deque[Entry] = deque()
        self._weight = 0
        self._file: AsyncFile | None = None
        self._blocks: deque[int] = deque()
        """Sizes of the blocks on disk that were not read back, from `_begin` to `_end`."""
        self._begin = self._end = 0
        self._has_room = trio.Event()
        self._turn = trio.Lock()
        room.workers += 1

    def __len__(self) -> int:
        return len(self._memory) + len(self._blocks)

    @property
    def weight(self) -> int:
        """About how many bytes wait in memory."""
        return self._weight

    async def close(self) -> None:
        """Give room and file back; what waits is forgotten."""
        self._room.workers -= 1
        async with self._turn:
            self._memory.clear()
            self._blocks.clear()
            await self._drop_file()

    async def put(self, entries: Sequence[Entry]) -> None:
        """Add entries; waits while there is room for them neither in memory nor on disk."""
        while True:
            has_room = self._has_room = trio.Event()
            if not self._blocks and self._weight < self._room.share:
                self._keep(entries)
                break
            if await self._spool(entries):
                break
            await has_room.wait()
        self._arrived()

    def peek(self) -> Entry | None:
        """The next entry, if it is in memory."""
        return self._memory[0] if self._memory else None

    def pop(self) -> Entry:
        """Take the next entry."""
        entry = self._memory.popleft()
        self._weight -= OVERHEAD + len(entry.text)
        if not self._blocks and self._weight < self._room.share:
            self._has_room.set()
        return entry

    @property
    def must_refill(self) -> bool:
        """Whether what comes next is on disk."""
        return not self._memory and bool(self._blocks)

    async def refill(self) -> None:
        """Bring the next blocks into memory."""
        async with self._turn:
            if not self.must_refill or self._file is None:
                return
            sizes = [self._blocks.popleft()]
            while self._blocks and sum(sizes) < self._room.share:
                sizes.append(self._blocks.popleft())
            await self._file.seek(self._begin)
            self._begin += sum(sizes)
            raw = await self._file.read(sum(sizes))
            at = 0
            for size in sizes:
                self._keep([_decoded(one) for one in msgspec.msgpack.decode(raw[at : at + size])])
                at += size
            if not self._blocks:
                await self._drop_file()
                self._has_room.set()

    def _keep(self, entries: Sequence[Entry]) -> None:
        self._memory.extend(entries)
        self._weight += OVERHEAD * len(entries) + sum(len(entry.text) for entry in entries)

    async def _spool(self, entries: Sequence[Entry]) -> bool:
        """Write entries behind what is on disk; False where there is no room."""
        raw = msgspec.msgpack.encode(entries)
        async with self._turn:
            if not self._room.may_spool(self._end, len(raw)):
                return False
            try:
                if self._file is None:
                    self._file = trio.wrap_file(tempfile.TemporaryFile())  # noqa: SIM115 - closed by _drop_file
                await self._file.seek(self._end)
                await self._file.write(raw)
                await self._file.flush()
            except OSError as error:
                self._room.fail(error)
                return False
            self._room.spooled += len(raw)
            self._end += len(raw)
            self._blocks.append(len(raw))
            return True

    async def _drop_file(self) -> None:
        self._room.spooled -= self._end
        self._begin = self._end = 0
        if self._file is not None:
            await trio.aclose_forcefully(self._file)
            self._file = None


def _decoded(raw: list[Any]) -> Entry:
    return LogLine(*raw) if len(raw) == len(LogLine._fields) else Gap(*raw)
