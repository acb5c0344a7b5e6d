"""A log as a kubelet serves it, under any clock: written by the test, rotated, cut and gone on demand."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from pathlib import Path

import trio

from ottoscaler.errors import NotFound, Refused, Unavailable
from ottoscaler.localcluster.logs import ContainerLog, LogOptions, read_log

START = datetime(2026, 11, 20, 20, 41, 21, tzinfo=UTC).timestamp()


class FakeKubelet:
    """The log of one worker. `read` is what `Kube.read_log` of it would be."""

    def __init__(
        self,
        nursery: trio.Nursery,
        folder: Path,
        max_bytes: int = 10 << 20,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.nursery = nursery
        self._clock = clock
        self.began = trio.current_time()
        self.log = ContainerLog(folder / "0.log", max_bytes=max_bytes, now_ns=lambda: int(self.now() * 1e9))
        self.is_away = False
        self.is_gone = False
        self.is_waiting = False
        self.complaints: list[bytes] = []
        """The kubelet's words in the middle of the next answers, which end with them."""
        self.empty_answers = 0
        """So many of the next answers end as they begin, as of an API server that lost the kubelet."""
        self.reads: list[tuple[bool, str]] = []
        self._cuts: list[trio.CancelScope] = []
        self._is_polite = False

    def now(self) -> float:
        """Unix time of this world."""
        return self._clock() if self._clock else START + trio.current_time() - self.began

    def cut(self, *, is_polite: bool = False) -> None:
        """End all open streams as a broken connection does; politely: as an API server that lost the kubelet."""
        self._is_polite = is_polite
        for scope in self._cuts:
            scope.cancel(reason="cut by the test")

    async def read(
        self, *, follow: bool, since: str = "", limit_bytes: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """One request."""
        self.reads.append((follow, since))
        await trio.sleep(0.01)
        if self.is_gone:
            raise NotFound("pods not found", status=404)
        if self.is_away:
            raise Unavailable("the API is away")
        if self.is_waiting:
            raise Refused("container is waiting to start: ContainerCreating", status=400)
        if self.empty_answers:
            self.empty_answers -= 1
            yield b""
            return
        options = LogOptions(
            follow=follow,
            timestamps=True,
            since_time=datetime.fromisoformat(since) if since else None,
            limit_bytes=limit_bytes,
        )
        send, receive = trio.open_memory_channel[bytes](0)
        scope = trio.CancelScope()

        async def pump() -> None:
            with send, scope, suppress(trio.BrokenResourceError):
                async with aclosing(read_log(self.log, options)) as pieces:
                    async for piece in pieces:
                        await send.send(piece)

        self._cuts.append(scope)
        self.nursery.start_soon(pump)
        try:
            yield b""
            async for piece in receive:
                if self.complaints:
                    yield piece[: piece.index(b"\n") + 1] + self.complaints.pop()
                    break
                yield piece
        finally:
            scope.cancel(reason="the reader left")
            self._cuts.remove(scope)
            receive.close()
        if scope.cancelled_caught and not self._is_polite:
            raise Unavailable("the stream broke off")
