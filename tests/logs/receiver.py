"""A receiver of log lines under any clock: answers in order, after a while, with whatever the test wants."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio

from ottoscaler.errors import Unavailable


class FakeAnswer(NamedTuple):
    """An answer."""

    status: str = "ACK"
    throttle: float = 0.0


class FakeReceiver:
    """Where a lane's streams lead. `judge` says how an entry is answered; `delay` seconds pass for each, in turn."""

    def __init__(self) -> None:
        self.got: list[tuple[float, bytes]] = []
        self.taken: list[tuple[float, bytes, str]] = []
        """The entries whose answers arrived, when, and what they said."""
        self.judge: Callable[[bytes], FakeAnswer] = lambda entry: FakeAnswer()
        self.delay = 0.001
        self.opened = 0
        self.is_away = False
        self.is_stalled = False
        self._streams: list[FakeStream] = []

    @asynccontextmanager
    async def open(self, wake: Callable[[], None]) -> AsyncIterator[FakeStream]:
        """One stream."""
        self.opened += 1
        if self.is_away:
            raise Unavailable("nobody listens")
        stream = FakeStream(self, wake)
        self._streams.append(stream)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.work)
            try:
                yield stream
            finally:
                self._streams.remove(stream)
                nursery.cancel_scope.cancel(reason="the stream is left")

    def leave(self) -> None:
        """Want all streams to come to their ends."""
        for stream in self._streams:
            stream.is_leaving = True
            stream.wake()

    def cut(self) -> None:
        """End all streams."""
        for stream in self._streams:
            stream.is_cut = True
            stream.wake()


class FakeStream:
    """One stream; made by `FakeReceiver.open`."""

    def __init__(self, receiver: FakeReceiver, wake: Callable[[], None]) -> None:
        self.is_cut = False
        self.is_leaving = False
        self.wake = wake
        self._receiver = receiver
        self._inbox: deque[bytes] = deque()
        self._answers: list[tuple[bytes, FakeAnswer]] = []
        self._arrived = trio.Event()

    def send(self, entries: Sequence[bytes]) -> None:
        """Take entries in."""
        self._inbox.extend(entries)
        self._arrived.set()

    def take(self) -> list[FakeAnswer]:
        """The answers since."""
        if self.is_cut:
            raise Unavailable("cut by the test")
        answers, self._answers = self._answers, []
        self._receiver.taken += [(trio.current_time(), entry, answer.status) for entry, answer in answers]
        return [answer for _, answer in answers]

    async def work(self) -> None:
        """Answer one after the other."""
        while True:
            while not self._inbox or self._receiver.is_stalled:
                self._arrived = trio.Event()
                with trio.move_on_after(1):
                    await self._arrived.wait()
            await trio.sleep(self._receiver.delay)
            entry = self._inbox.popleft()
            self._receiver.got.append((trio.current_time(), entry))
            self._answers.append((entry, self._receiver.judge(entry)))
            self.wake()
