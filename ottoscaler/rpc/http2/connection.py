"""A client's connection on Trio.

One task reads, one writes what has come together since its last write, one asks a client that says nothing whether it
is there, and each call has its own. While a write does not get through nothing is read, so that neither side piles up
here; a client that takes nothing for long is left. What is wrong with one connection ends that one, and is logged.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import h2.exceptions
import trio

from ottoscaler.rpc.http2.call import Call
from ottoscaler.rpc.http2.peers import Peer, Refusals
from ottoscaler.rpc.http2.streams import Enough, Streams, Work

READ_BYTES = 8 << 10
"""Few, as all that came is dealt with at once."""
KEEPALIVE_SECONDS, PONG_SECONDS = 60.0, 20.0
STALL_SECONDS = 20.0
"""For one write to get through."""
ROUND_TRIP_SECONDS = 5.0
"""So long a client that is told to leave may take to say that it has heard: one that has much to do reads late, and
what it begins until then would be refused behind the last call that is named.
"""
FLUSH_SECONDS = 0.2
"""For the last words, and for a client to close what it has no use for any more."""


class Connection:
    """A connection whose preface has come; `begin` admits a call, and gives the work for its task if it does."""

    def __init__(
        self,
        transport: trio.abc.Stream,
        peer: Peer,
        most_calls: int,
        begin: Callable[[Call], Work | None],
        refusals: Refusals,
    ) -> None:
        self._transport = transport
        self.peer = peer
        self._refusals = refusals
        self._streams = Streams(peer, most_calls, refusals, begin=begin, start=self._start, stir=self._stir)
        self._heard = trio.current_time()
        self._to_write, self._written = trio.Event(), trio.Event()
        self._is_writing = False
        self._is_leaving = False
        self._tasks: trio.Nursery | None = None
        self._io: trio.Nursery | None = None

    # -- for the server

    async def run(self, first: bytes) -> None:
        """Serve until it is over; `first` came behind the preface."""
        try:
            async with trio.open_nursery() as self._tasks:
                async with trio.open_nursery() as self._io:
                    for work in (self._write, self._keep_alive, partial(self._read, first)):
                        self._io.start_soon(self._until_over, work)
                    if self._is_leaving:
                        self._io.start_soon(self._until_over, self._depart)
                self._io = None
                self._streams.lose()
        finally:
            self._io = None
            await self._flush()

    def leave(self) -> None:
        """Have the client begin new calls elsewhere, and end when those that it began are over."""
        if self._io is not None and not self._is_leaving:
            self._io.start_soon(self._until_over, self._depart)
        self._is_leaving = True

    @property
    def is_idle(self) -> bool:
        """Whether it has no calls, and could be closed at once."""
        return self._io is not None and not self._is_leaving and not self._streams.calls

    @property
    def idle_since(self) -> float:
        """When its last call was over, or when it began."""
        return self._streams.idle_since

    def dismiss(self, reason: str) -> None:
        """Close it at once, for the sake of others. A call that is on its way here is the client's to send again."""
        assert self._io is not None  # it is idle
        self._is_leaving = True
        self._refusals.note_connection(self.peer, "CONNECTIONS", reason)
        self._streams.say_left()
        self._io.cancel_scope.cancel(reason=reason)

    def end_calls(self, reason: str) -> None:
        """End what is left, each with an answer."""
        for call in self._streams.calls.values():
            call.scope.cancel(reason=reason)

    # -- for its streams

    def _start(self, work: Work) -> None:
        assert self._tasks is not None  # while it reads
        self._tasks.start_soon(work)

    def _stir(self) -> None:
        self._to_write.set()

    # -- its tasks

    async def _until_over(self, work: Work) -> None:
        """The first of them that ends, ends the others."""
        assert self._io is not None  # it waits for this
        reason = "the connection is over"
        try:
            await work()
        except (Enough, h2.exceptions.ProtocolError) as error:
            reason = str(error) or type(error).__name__
            self._refusals.note_connection(self.peer, error.kind if isinstance(error, Enough) else "PROTOCOL", reason)
            if isinstance(error, Enough):  # else h2 has told the client
                self._streams.say_why(error)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self._io.cancel_scope.cancel(reason=reason)

    async def _read(self, first: bytes) -> None:
        self._streams.take_in(first)
        while raw := await self._next_bytes():
            self._heard = trio.current_time()
            self._streams.take_in(raw)

    async def _next_bytes(self) -> bytes | bytearray:
        if self._is_writing:
            await self._written.wait()
        return await self._transport.receive_some(READ_BYTES)

    async def _write(self) -> None:
        while True:
            await self._to_write.wait()
            self._to_write = trio.Event()
            await trio.lowlevel.checkpoint_if_cancelled()  # else what is taken now would be lost, and not be the last
            while raw := self._streams.next_write():
                self._is_writing, self._written = True, trio.Event()
                with trio.move_on_after(STALL_SECONDS) as patience:
                    await self._transport.send_all(raw)
                if patience.cancelled_caught:
                    raise Enough("STALLED", f"it takes nothing for {STALL_SECONDS:g} s", "stalled")
                self._is_writing = False
                self._written.set()

    async def _flush(self) -> None:
        """The last words, where they do not come into the middle of others."""
        if not self._is_writing and (raw := self._streams.next_write()):
            with trio.move_on_after(FLUSH_SECONDS, shield=True), suppress(trio.BrokenResourceError):
                await self._transport.send_all(raw)

    async def _keep_alive(self) -> None:
        while True:
            await trio.sleep_until(self._heard + KEEPALIVE_SECONDS)
            asked = trio.current_time()
            if asked - self._heard < KEEPALIVE_SECONDS:
                continue
            self._streams.ping()
            await trio.sleep(PONG_SECONDS)
            if self._heard < asked:
                return

    async def _depart(self) -> None:
        """Say so twice, so that no call is lost: what the client began before it heard the first is served, too."""
        self._streams.say_leaving()
        with trio.move_on_after(ROUND_TRIP_SECONDS):
            await self._streams.echoed.wait()
        self._streams.say_left()
        while self._streams.calls:
            self._streams.is_idle = trio.Event()
            await self._streams.is_idle.wait()
        await trio.sleep(FLUSH_SECONDS)  # the client closes, if it was told all
        if self._is_writing:
            await self._written.wait()
