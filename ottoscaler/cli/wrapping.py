"""A command run in our place: it gets our signals and we get its exit code; as process 1 we bury its orphans, too.

From `spawn` on signals are held back until `Wrapped.run` passes them on, so that none is lost while we start.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

import trio

from ottoscaler import signals

FAULTS = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL})
"""What the processor sends for a fault of our own; held back for good, which stops those only that others send."""
OURS = frozenset({signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT})
"""Cannot be caught, or stop and wake us."""
OF_FILES = frozenset({signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ})
"""The kernel sends these for our own child and our own writing."""
PASSED = frozenset(signal.valid_signals()) - FAULTS - OURS - OF_FILES
"""What is passed on: everything else, real-time signals, too."""
OF_TERMINALS = {signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH}
"""A terminal sends these to everybody in its foreground: who sent one cannot be told from the signal."""


class CannotStart(Exception):
    """The command cannot be run; `code` is what a shell would exit with."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(message)


def spawn(command: Sequence[str], stdout: int, stderr: int) -> int:
    """Start a command with these as its stdout and stderr and with our signals' defaults; its process id."""
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED | FAULTS)
    actions = [(os.POSIX_SPAWN_DUP2, stdout, 1), (os.POSIX_SPAWN_DUP2, stderr, 2)]
    defaults = [signal.SIGPIPE, signal.SIGXFSZ]  # Python ignores these, and that would be inherited
    try:
        return os.posix_spawnp(
            command[0], list(command), os.environ, file_actions=actions, setsigmask=(), setsigdef=defaults
        )
    except OSError as error:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED | FAULTS)
        code = 127 if isinstance(error, FileNotFoundError) else 126
        raise CannotStart(code, f"{command[0]}: {error.strerror}") from error


class Wrapped:
    """The command that runs; `code` is its exit code once it has ended, 128 + n where signal n ended it."""

    def __init__(self, pid: int) -> None:
        self.code: int | None = None
        self.ended = trio.Event()
        self.hurried = trio.Event()
        """Set by a signal that came after its end: nothing is to be waited for any more."""
        self._pid = pid

    async def run(self) -> None:
        """Pass on signals and bury the dead, for ever."""
        with trio.open_signal_receiver(signal.SIGCHLD, *PASSED) as arriving:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED)
            first = signals.first_signal()
            if first is not None:
                self._pass_on(first)
            self._bury()
            await self._heed(arriving)

    async def _heed(self, arriving: AsyncIterator[int]) -> None:
        async for number in arriving:
            if number == signal.SIGCHLD:
                self._bury()
            elif self.ended.is_set():
                self.hurried.set()
            elif not (number in OF_TERMINALS and self._is_in_foreground()):
                self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, number)

    def _bury(self) -> None:
        """Take note of every child that has ended."""
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = found
                if pid == self._pid:
                    code = os.waitstatus_to_exitcode(status)
                    self.code = 128 - code if code < 0 else code
                    self.ended.set()

    def _is_in_foreground(self) -> bool:
        """Whether the command stands in the foreground of a terminal of ours."""
        for file in (sys.stdin, sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                if os.tcgetpgrp(file.fileno()) == os.getpgid(self._pid):
                    return True
        return False
