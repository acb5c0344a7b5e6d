"""The drain: how a signal becomes an end that always comes.

The first SIGTERM or SIGINT begins it, the second makes its deadline now. Nobody polls a flag: the rings are
cancelled from the inside out, and an alarm of the kernel ends the process should anything, a frozen Redis or a
silent API, hold up the last step.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from types import FrameType
from typing import Never

import trio

from ottoscaler.log import finish_logging, log
from ottoscaler.metrics import DRAINS

MARGIN_SECONDS = 0.9
"""After the deadline the process has this long to hand over and leave; then the alarm ends it, still with 0."""


class Drain:
    """When the process must be gone. `seconds`: how long running work gets. `armed`: whether the kernel's alarm is
    set.
    """

    def __init__(self, seconds: float, *, armed: bool = True) -> None:
        self.seconds = seconds
        self.deadline = float("inf")
        self.requested = trio.Event()
        self.reason = ""
        self.exit_code = 0
        self._armed = armed
        self._hurry = trio.Event()

    async def listen(self, signals: AsyncIterator[int]) -> None:
        """Turn each signal into a request, until cancelled."""
        async for number in signals:
            self.request(signal.Signals(number).name)

    def request(self, reason: str) -> None:
        """Begin to drain; asked again, the deadline is now."""
        if not self.requested.is_set():
            self.reason = reason
            self._set_deadline(trio.current_time() + self.seconds)
            self.requested.set()
            DRAINS.inc()
            note = "another signal ends it now" if self.seconds else None
            log.info("drain begins", reason=reason, seconds=self.seconds, note=note)
        elif not self._hurry.is_set():
            log.info("drain ends now", reason=f"{reason}, a second signal")
            self._set_deadline(trio.current_time())
            self._hurry.set()

    def fail(self, reason: str, exit_code: int = 1) -> None:
        """Something cannot be trusted any more: hand over and leave at once, with this exit code (the first counts)."""
        self.exit_code = self.exit_code or exit_code
        self.reason = self.reason or reason
        self._set_deadline(trio.current_time())
        self.requested.set()
        self._hurry.set()

    def _set_deadline(self, deadline: float) -> None:
        self.deadline = deadline
        if self._armed:
            signal.signal(signal.SIGALRM, self._leave)
            signal.setitimer(signal.ITIMER_REAL, max(0.0, deadline - trio.current_time()) + MARGIN_SECONDS)

    async def wait_deadline(self) -> None:
        """Return when the time of a requested drain is over, or as soon as there is a hurry."""
        await self.requested.wait()
        with trio.move_on_at(self.deadline):
            await self._hurry.wait()
        if self._armed:
            gc.disable()  # the process ends in a second, and looking through 10,000 ending tasks takes half of it

    def leave(self) -> Never:
        """End the process here and now. The interpreter's own way out has no limit (it waits for threads), and the
        alarm would find its handler gone there and kill with a signal.
        """
        finish_logging()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # the reader has gone: nobody is left to be told
                stream.flush()
        os._exit(self.exit_code)

    def _leave(self, number: int, frame: FrameType | None) -> None:
        os._exit(self.exit_code)
