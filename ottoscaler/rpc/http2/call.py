"""One call on its connection: what came of it, what is still to be sent, and how it ends.

Its task takes messages with `message` and gives answers with `send`; both wait for the client, and hold up nobody else.
A client that leaves, or the door when it closes, cancels `scope`, which is all of what the call does.
"""

from __future__ import annotations

import struct
import zlib
from typing import Protocol

import trio

from ottoscaler.rpc.door import InvalidCall
from ottoscaler.rpc.http2.codes import Code
from ottoscaler.rpc.http2.framing import prefixed
from ottoscaler.rpc.http2.heads import Head, Headers
from ottoscaler.rpc.http2.peers import Peer

_PREFIX = struct.Struct(">BI")  # whether compressed, length
_ANY_FORMAT = 47  # of zlib: gzip and deflate alike, as the bytes say


class TooLarge(Exception):
    """A message is beyond the limit (RESOURCE_EXHAUSTED, which does not pass by itself)."""


class Place(Protocol):
    """What a call holds while it is answered; moving it may be refused."""

    def wait(self) -> None:
        """The client's message is still to come."""

    def go_on(self) -> None:
        """The message is there."""

    def leave(self) -> None:
        """The call is over."""


class Ending(Protocol):
    """How a call ends."""

    @property
    def code(self) -> Code:
        """What came of it."""

    def trailers(self) -> Headers:
        """The same for the client, with words and details."""


class Carrier(Protocol):
    """The part of a connection that its calls need."""

    peer: Peer

    def put(self, call: Call) -> None:
        """Send what may be sent of `call.pending` now, and the rest later."""

    def acknowledge(self, call: Call, size: int) -> None:
        """Let the client send so many bytes more."""

    def finish(self, call: Call, trailers: Headers) -> None:
        """End the stream."""

    def charge(self) -> None:
        """Count a call that was begun to be refused."""


class Call:
    """Made by a connection, for each stream that begins."""

    place: Place
    """Given by who admits it."""

    def __init__(self, carrier: Carrier, number: int, head: Head) -> None:
        self.number = number
        self.head = head
        self.peer = carrier.peer
        self.scope = trio.CancelScope()
        self.pending = bytearray()
        self.has_begun = False
        """Headers were sent."""
        self.is_cut = False
        """A part of a message was sent, and the rest is pending."""
        self.is_half_closed = False
        """The client sends nothing more."""
        self.has_left = False
        self.has_task = False
        """It was let in; what becomes of it is for its task."""
        self._carrier = carrier
        self._body = bytearray()
        self._owed = 0
        self._came = trio.Event()
        self._taken = trio.Event()

    # -- for its task

    async def message(self, largest: int) -> bytes | None:
        """The client's next message; None: there are no more. Raises `TooLarge`, `InvalidCall`, `TooMany`."""
        while (message := self._cut_message(largest)) is None:
            self._acknowledge()
            if self.is_half_closed:
                if self._body:
                    raise InvalidCall("the message", f"{len(self._body)} bytes of one", "a whole one")
                return None
            self.place.wait()
            self._came = trio.Event()
            await self._came.wait()
        self.place.go_on()
        return message

    async def send(self, message: bytes) -> None:
        """Send a message; returns when the client's windows have let it go."""
        self.pending += prefixed(message)
        self._carrier.put(self)
        if self.pending:
            self._taken = trio.Event()
            await self._taken.wait()
        else:
            await trio.lowlevel.checkpoint()

    def finish(self, ending: Ending) -> None:
        """Tell the client how it ended; nothing where it has left."""
        self._acknowledge()
        if self.has_task and ending.code is Code.RESOURCE_EXHAUSTED:
            self._carrier.charge()
        self._carrier.finish(self, ending.trailers())

    def refuse(self, status: int) -> None:
        """Tell a client that this is no call, in HTTP's words."""
        self._carrier.finish(self, [(b":status", b"%d" % status)])

    @property
    def is_abandoned(self) -> bool:
        """Whether the client has left, or its deadline has passed."""
        return self.has_left or self.scope.deadline <= trio.current_time()

    def _cut_message(self, largest: int) -> bytes | None:
        if len(self._body) < _PREFIX.size:
            return None
        is_compressed, length = _PREFIX.unpack_from(self._body)
        if length > largest:
            raise TooLarge(f"Received message larger than max ({length} vs. {largest})")
        end = _PREFIX.size + length
        if len(self._body) < end:
            return None
        message = bytes(self._body[_PREFIX.size : end])
        del self._body[:end]
        return _inflate(message, largest) if is_compressed else message

    def _acknowledge(self) -> None:
        if self._owed:
            owed, self._owed = self._owed, 0
            self._carrier.acknowledge(self, owed)

    # -- for its connection

    def receive(self, data: bytes, size: int) -> None:
        """Bytes came, which the windows count as `size`."""
        self._body += data
        self._owed += size
        self._came.set()

    def receive_end(self) -> None:
        """The client has said all."""
        self.is_half_closed = True
        self._came.set()

    def release(self) -> None:
        """All that was pending has been sent."""
        self._taken.set()

    def leave(self) -> None:
        """The client has gone."""
        self.has_left = True
        self.pending.clear()
        self._acknowledge()
        self.scope.cancel(reason="the client went away")


def _inflate(data: bytes, largest: int) -> bytes:
    inflater = zlib.decompressobj(_ANY_FORMAT)
    try:
        message = inflater.decompress(data, largest + 1)
    except zlib.error as error:
        raise InvalidCall("the message", f"{len(data)} bytes", "what gzip or deflate made") from error
    if len(message) > largest:
        raise TooLarge(f"Received message larger than max ({largest}) when it is decompressed")
    if not inflater.eof:
        raise InvalidCall("the message", f"{len(data)} bytes", "all of what gzip or deflate made")
    return message
