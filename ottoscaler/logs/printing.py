"""Stdout as the receiver, for use without otto-handler: each line behind its worker's name, or as JSON."""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
import trio

from ottoscaler.errors import Unavailable
from ottoscaler.fleet import PodRecord
from ottoscaler.logs.lane import Lane, Sender
from ottoscaler.logs.mark import Entry, Gap
from ottoscaler.logs.messages import Who, say_gap
from ottoscaler.logs.outage import Outage
from ottoscaler.logs.words import read_words
from ottoscaler.outcomes import WorkerOutcome


class Printed(NamedTuple):
    """The answer to what was written."""

    status: str = "ACK"
    throttle: float = 0.0


class PrintedWording:
    """One worker's lines as text (`name | line`) or as one JSON object each."""

    def __init__(self, who: Who, *, as_json: bool) -> None:
        self._who = who
        self._as_json = as_json

    def place(self, record: PodRecord | None) -> None:
        """Where the pod is, is not printed."""

    def encode(self, entry: Entry) -> bytes:
        """One line, with its end."""
        if not self._as_json:
            text = f"[{say_gap(entry)}]".encode() if isinstance(entry, Gap) else entry.text
            return b"%s | %s\n" % (self._who.name.encode(), text)
        who = self._who
        facts: dict[str, Any] = {"worker": who.name, "event_id": who.event_id, "task_id": who.task_id}
        if isinstance(entry, Gap):
            facts |= {"time": entry.end or entry.begin, "level": "warn", "gap": entry.why, "message": say_gap(entry)}
        else:
            said = {"time": entry.stamp, "level": read_words(entry.text)[0], "line": entry.number}
            facts |= said | {"message": entry.text.decode(errors="backslashreplace")}
        return msgspec.json.encode(facts) + b"\n"

    def created(self, record: PodRecord | None, now: float) -> bytes:
        """States are in the log already."""
        return b""

    def running(self, started_at: float, record: PodRecord | None) -> bytes:
        """States are in the log already."""
        return b""

    def ended(self, outcome: WorkerOutcome, now: float) -> bytes:
        """States are in the log already."""
        return b""


class _Page:
    """What is to be written; a task writes, so that a reader of stdout who is slow holds up nobody else."""

    is_leaving = False

    def __init__(self, wake: Callable[[], None], descriptor: int, torn: bytearray) -> None:
        self._wake = wake
        self._descriptor = descriptor
        self._torn = torn
        """What is missing of a line that was written in part; comes before everything else."""
        self._waiting: deque[bytes] = deque()
        self._answers: list[Printed] = []
        self._arrived = trio.Event()

    def send(self, entries: Sequence[bytes]) -> None:
        """Write these behind what is there."""
        self._waiting.extend(entries)
        self._arrived.set()

    def take(self) -> list[Printed]:
        """One answer for each that was written."""
        answers, self._answers = self._answers, []
        return answers

    async def work(self) -> None:
        """Write whole lines, as many at a time as a pipe takes in one piece: other lines come between, not inside.

        Raises Unavailable where nobody takes them: the disk is full, the reader is gone.
        """
        try:
            with os.fdopen(self._descriptor, "wb", buffering=0, closefd=False) as raw:
                await self._work(trio.wrap_file(raw))
        except OSError as error:
            raise Unavailable(f"stdout cannot be written: {error.strerror}") from error

    async def _work(self, file: Any) -> None:
        while True:
            while not self._waiting:
                self._arrived = trio.Event()
                await self._arrived.wait()
            batch = [self._waiting.popleft()]
            while self._waiting and sum(map(len, batch)) + len(self._waiting[0]) <= select.PIPE_BUF:
                batch.append(self._waiting.popleft())
            await self._write(file, bytes(self._torn) + b"".join(batch))
            self._answers += [Printed()] * len(batch)
            self._wake()

    async def _write(self, file: Any, raw: bytes) -> None:
        at, is_inside = 0, bool(self._torn)
        try:
            while at < len(raw):
                size = await self._wait_room() or len(raw)
                if written := await file.write(memoryview(raw)[at : at + size]):
                    at += written
                    is_inside = raw[at - 1 : at] != b"\n"
        finally:
            self._torn[:] = raw[at : raw.index(b"\n", at) + 1] if is_inside else b""

    async def _wait_room(self) -> int:
        """Return when something can be written, and how much without waiting in a thread, where no cancel would reach:
        0 for a file on disk, which is always ready.
        """
        try:
            await trio.lowlevel.wait_writable(self._descriptor)
        except PermissionError:
            return 0
        return select.PIPE_BUF


class PrintingReceiver:
    """Writes to a file descriptor."""

    def __init__(self, *, as_json: bool, descriptor: int = 1) -> None:
        self._as_json = as_json
        self._descriptor = descriptor
        self._is_suspended = False
        self._torn = bytearray()
        self.lines = Outage("stdout does not take logs", "stdout takes logs again")
        self.states = Outage()  # nobody is asked to take them
        self._lane = Lane(self._open, self._wait_open, outage=self.lines)

    @asynccontextmanager
    async def _open(self, wake: Callable[[], None]) -> AsyncIterator[_Page]:
        page = _Page(wake, self._descriptor, self._torn)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(page.work)
            yield page
            nursery.cancel_scope.cancel(reason="no more is printed")

    async def _wait_open(self) -> None:
        if self._is_suspended:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until cancelled."""
        await self._lane.run(task_status=task_status)

    def wording(self, who: Who) -> PrintedWording:
        """Text or JSON."""
        return PrintedWording(who, as_json=self._as_json)

    def attach(self, sender: Sender) -> None:
        """Print the lines of a worker."""
        self._lane.add(sender)

    def detach(self, sender: Sender) -> None:
        """Print them no more."""
        self._lane.remove(sender)

    def leave_behind(self, entry: bytes) -> None:
        """Last words are in the log already."""

    async def tell(self, notification: bytes) -> None:
        """States are in the log already."""
        await trio.lowlevel.checkpoint()

    def suspend(self) -> None:
        """Print nothing more."""
        self._is_suspended = True
