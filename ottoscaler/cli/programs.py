"""Child programs of a command: started, waited for until they say they are ready, and ended whatever happens.

A program lives inside `async with open_program(...)`: leaving the block ends it by SIGTERM and, when its grace is over,
by SIGKILL. Should this process itself be killed, the kernel sends the program SIGTERM (Linux). It is a process group of
its own, so that Ctrl-C reaches only the command, which then ends its programs in order.
"""

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import trio

from ottoscaler.errors import GiveUp

PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


class ProgramFailed(GiveUp):
    """A program ended, or did not get ready; the message names it and repeats the last it said."""


class Program:
    """A running child program; made by `open_program`. `tail` holds the last lines that it wrote."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], ready: str, show: Callable[[str], None]) -> None:
        self.name = name
        self.process = process
        self.tail: deque[str] = deque(maxlen=20)
        self.is_ready = False
        self._ready = re.compile(ready)
        self._show = show
        self._ready_or_silent = trio.Event()
        self._reading = trio.CancelScope()

    async def wait_ready(self, limit_seconds: float) -> None:
        """Return once it wrote its ready line; ProgramFailed where it ended instead or took too long."""
        with trio.move_on_after(limit_seconds):
            await self._ready_or_silent.wait()
        if not self.is_ready:
            with trio.move_on_after(0.5 if self._ready_or_silent.is_set() else 0):
                await self.wait()  # its output ends a moment before it does
            raise self.failure("did not get ready")

    async def wait(self) -> int:
        """Return the exit code once it has ended; minus the signal's number where a signal ended it."""
        while self.process.poll() is None:
            await _wait_changed(self.process.pid)
        return self.process.returncode

    async def stop(self, grace_seconds: float) -> int:
        """End it by SIGTERM, after the grace by SIGKILL, and return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            with trio.move_on_after(grace_seconds):
                await self.wait()
        if self.process.poll() is None:
            self.process.kill()
        code = await self.wait()
        self._reading.deadline = trio.current_time() + 0.5  # a grandchild may hold the other end open
        return code

    def failure(self, what: str) -> ProgramFailed:
        """The error that says what became of it, with its exit code and its last words."""
        code = self.process.poll()
        ended = "" if code is None else f" (exit code {code})"
        said = f": {_in_words(self.tail[-1])}" if self.tail else ""
        return ProgramFailed(f"{self.name} {what}{ended}{said}")

    async def read_output(self) -> None:
        """Hand on every line that it writes, until it writes no more."""
        assert self.process.stdout is not None
        with self._reading:
            async with trio.lowlevel.FdStream(os.dup(self.process.stdout.fileno())) as stream:
                rest = b""
                async for piece in stream:
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in lines:
                        self._take(line.decode(errors="replace"))
        self._ready_or_silent.set()

    def _take(self, line: str) -> None:
        self.tail.append(line)
        if not self.is_ready and self._ready.search(line):
            self.is_ready = True
            self._ready_or_silent.set()
        self._show(line)


class Impatience:
    """What further signals do while programs are being ended: the second hurries those named in `hurried` by another
    SIGTERM, from the third on all are killed. `note` hears of each program.
    """

    def __init__(self, *hurried: str) -> None:
        self._hurried = hurried
        self._programs: list[Program] = []

    def note(self, program: Program) -> None:
        """Remember a program that was started."""
        self._programs.append(program)

    def insist(self, count: int) -> None:
        """Do what the signal with this number asks for; programs that have ended are left alone."""
        for program in self._programs:
            if count > 2:
                program.process.kill()
            elif program.name in self._hurried:
                program.process.terminate()


@asynccontextmanager
async def open_program(
    nursery: trio.Nursery,
    name: str,
    command: Sequence[str],
    *,
    ready: str,
    environ: Mapping[str, str] | None = None,
    show: Callable[[str], None] | None = None,
    ready_seconds: float = 30,
    grace_seconds: float = 10,
    opened: Callable[[Program], None] | None = None,
) -> AsyncIterator[Program]:
    """Run `command` while the block runs, entered once a line of its output matched the pattern `ready`.

    Its stdout and stderr are read in `nursery`, line by line, and given to `show`. `grace_seconds` is what it gets
    between SIGTERM and SIGKILL at the end. `opened` is told of it before it is ready. Raises ProgramFailed where it
    cannot be started or does not get ready.
    """
    program = Program(name, _start(name, command, environ), ready, show or _ignore)
    if opened is not None:
        opened(program)
    try:
        nursery.start_soon(program.read_output)
        await program.wait_ready(ready_seconds)
        yield program
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + grace_seconds + 5):
            await program.stop(grace_seconds)
        if program.process.stdout is not None:
            program.process.stdout.close()


def _start(name: str, command: Sequence[str], environ: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    """Start it from this very thread: the kernel ties the signal at a parent's death to the thread that forked."""
    parent = os.getpid()

    def tie_to_parent() -> None:
        if _prctl is not None:
            _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it died in between
                os._exit(1)

    try:
        return subprocess.Popen(
            command,
            env=None if environ is None else dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            preexec_fn=tie_to_parent,
        )
    except OSError as error:
        raise ProgramFailed(f"{name} cannot be started: {command[0]}: {error.strerror}") from error


def _in_words(line: str) -> str:
    """A line of a JSON log as its message and its reason, or the end of its traceback; any other line as it is."""
    try:
        facts = json.loads(line)
        trace = facts.get("error", "").rstrip(" |+-\n").splitlines()
        reason = facts.get("reason") or (trace[-1].lstrip(" |") if trace else "")
        return ": ".join(filter(None, (facts["message"], reason)))
    except (ValueError, AttributeError, KeyError, TypeError):
        return line


def _ignore(line: str) -> None:
    """Show a line to nobody."""


async def _wait_changed(pid: int) -> None:
    """Return when the process may have ended."""
    if not hasattr(os, "pidfd_open"):  # not Linux
        await trio.sleep(0.05)
        return
    descriptor = os.pidfd_open(pid)
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)
