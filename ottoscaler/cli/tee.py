"""What a command writes, passed on unchanged and seen line by line on the way.

What is read goes to the target first; a slow target slows the command as it would without us. Where the target's reader
has gone, the pipe is closed, so that the command learns it as it would have. A target that fails in another way, as a
full disk does, gets nothing more, and the lines are seen all the same. After the command's end what it left in the pipe
is passed on, and nobody waits for others who may still hold the pipe open.
"""

from __future__ import annotations

import codecs
import fcntl
import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress

import trio

PIECE = 64 << 10
_CHUNK = select.PIPE_BUF  # bytes that a pipe which polls as writable takes without blocking
_F_SETPIPE_SZ = 1031
ROOM = 1 << 20
"""Bytes that the pipe holds while nobody has time to read it (Linux)."""
LONGEST_LINE = 1 << 20
Tell = Callable[[bytes, bool], None]
Warn = Callable[[OSError], None]


def open_pipe() -> tuple[int, int]:
    """A pipe with room, read without blocking; neither end is inherited."""
    source, target = os.pipe()
    os.set_blocking(source, False)
    if sys.platform == "linux":
        with suppress(OSError):  # beyond the user's share of pipe memory it stays at 64 KiB
            fcntl.fcntl(source, _F_SETPIPE_SZ, ROOM)
    return source, target


class Tee:
    """One pipe's way. `tell` gets whole lines, several at a time and each with its newline, and whether the last of
    them goes on in what comes next; `warn` gets the error that ends the writing, if one does. Neither may wait.
    """

    def __init__(self, source: int, target: int, tell: Tell, warn: Warn) -> None:
        self._source = source
        self._target = target
        self._tell = tell
        self._warn = warn
        self._is_writable = True
        self._rest: list[bytes] = []
        self._rest_size = 0
        self._has_ended = False
        self._waiting = trio.CancelScope()

    async def run(self) -> None:
        """Pass on until the pipe ends, its reader has gone, or the command has ended and the pipe is empty."""
        try:
            while piece := await self._read():
                if self._is_writable and not await self._pass_on(piece):
                    break
                self._see(piece)
        finally:
            os.close(self._source)
            if self._rest:
                self._tell(b"".join(self._rest) + b"\n", False)

    def end(self) -> None:
        """The command has ended: what is in the pipe is all there is."""
        self._has_ended = True
        self._waiting.cancel(reason="the command has ended")

    async def _read(self) -> bytes:
        """The next piece; empty at the end."""
        while True:
            await trio.lowlevel.checkpoint()
            try:
                return os.read(self._source, PIECE)
            except BlockingIOError:
                if self._has_ended:
                    return b""
            with trio.CancelScope() as self._waiting:
                await trio.lowlevel.wait_readable(self._source)

    async def _pass_on(self, piece: bytes) -> bool:
        """Write the piece, unless that fails; False where the reader has gone."""
        try:
            await self._write(piece)
        except BrokenPipeError:
            return False
        except OSError as error:
            self._is_writable = False
            self._warn(error)
        return True

    async def _write(self, piece: bytes) -> None:
        """Write all of it. OSError where that is not possible."""
        poll = select.poll()
        poll.register(self._target, select.POLLOUT)
        rest = memoryview(piece)
        while rest:
            if not poll.poll(0):
                await trio.lowlevel.wait_writable(self._target)
            try:
                rest = rest[os.write(self._target, rest[:_CHUNK]) :]
            except BlockingIOError:  # someone else has made the target non-blocking, and was quicker
                await trio.sleep(0.001)

    def _see(self, piece: bytes) -> None:
        """Tell the lines that are whole with this piece."""
        end = piece.rfind(b"\n") + 1
        if end:
            self._tell(b"".join((*self._rest, piece[:end])), False)
            self._rest, self._rest_size = [], 0
        if end < len(piece):
            self._rest.append(piece[end:])
            self._rest_size += len(piece) - end
        if self._rest_size > LONGEST_LINE:
            self._tell_part(b"".join(self._rest))

    def _tell_part(self, begun: bytes) -> None:
        """Tell what has come of a long line, but for the beginning of a character of UTF-8 at its end."""
        size = len(begun) - 4 + codecs.utf_8_decode(begun[-4:], "ignore", False)[1]
        self._tell(begun[:size] + b"\n", True)
        self._rest, self._rest_size = [begun[size:]], len(begun) - size
