"""Limits of time for what a thread waits for without one: the message of a call that was opened.

A call has a thread from its first byte on, and gRPC waits for its message as long as the connection lasts. Who opens
calls and sends nothing would take all threads; so such calls are cancelled after a while.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import trio

LOOK_SECONDS = 0.5


class Cancellable(Protocol):
    """The part of a `grpc.ServicerContext` that is needed here."""

    def cancel(self) -> object:
        """End the call."""


class Patience:
    """Cancels calls whose time is over."""

    def __init__(self) -> None:
        self._calls: dict[int, tuple[float, Cancellable]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def limit(self, call: Cancellable, seconds: float) -> Iterator[None]:
        """From a thread: cancel the call when the block lasts longer."""
        with self._lock:
            self._calls[id(call)] = (time.monotonic() + seconds, call)
        try:
            yield
        finally:
            with self._lock:
                self._calls.pop(id(call), None)

    async def run(self) -> None:
        """Look after the calls, until cancelled."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            now = time.monotonic()
            with self._lock:
                late = [call for until, call in self._calls.values() if until < now]
            for call in late:
                call.cancel()
