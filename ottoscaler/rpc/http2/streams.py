"""The state of one HTTP/2 connection: h2's machine, and the calls on its streams. Nothing here waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import hpack
import trio

from ottoscaler.rpc.http2.call import Call
from ottoscaler.rpc.http2.floods import Frames, Pings
from ottoscaler.rpc.http2.framing import FrameJoiner, goaway
from ottoscaler.rpc.http2.heads import BEGINNING, Headers, read_head
from ottoscaler.rpc.http2.peers import Peer, Refusals

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WRITE_BYTES = 256 << 10
"""So much of messages is given to one write."""
HEADER_BYTES = 16 << 10
TABLE_BYTES = 4096
ALL_WINDOWS_BYTES = 4 << 20
"""What clients may send before it is taken in: beside 64 KiB for each call, which is HTTP/2's own default."""
ALL_STREAMS = 2**31 - 1
MOST_SHOWN = 100
Codes = h2.errors.ErrorCodes
Work = Callable[[], Awaitable[None]]


class Enough(Exception):
    """What this client does ends its connection; `code` and `words` are for it, the rest is for the log."""

    def __init__(self, kind: str, reason: str, words: str, code: Codes = Codes.ENHANCE_YOUR_CALM) -> None:
        self.kind = kind
        self.words = words
        self.code = code
        super().__init__(reason)


class _H2(h2.connection.H2Connection):
    MAX_CLOSED_STREAMS = 1024  # 65,536 would be some MB for each connection


class _Encoder(hpack.Encoder):
    """Without Huffman's code, which saves a few bytes for a time that grows with the square of the text; and with a
    table of HTTP/2's own default size at most, however large a client allows: all of it is searched for every header.
    """

    @property
    def header_table_size(self) -> int:
        """Bytes."""
        return int(self.header_table.maxsize)

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        hpack.Encoder.header_table_size.fset(self, min(value, TABLE_BYTES))  # type: ignore[attr-defined]  # a property

    def encode(self, headers: Any, huffman: bool = False) -> bytes:
        return super().encode(headers, huffman=False)


class Streams:
    """`begin` admits a call, and gives the work for its task if it does; `start` starts it; `stir` wakes the writer."""

    def __init__(
        self,
        peer: Peer,
        most_calls: int,
        refusals: Refusals,
        *,
        begin: Callable[[Call], Work | None],
        start: Callable[[Work], None],
        stir: Callable[[], None],
    ) -> None:
        self.peer = peer
        self.calls: dict[int, Call] = {}
        self.is_idle, self.echoed = trio.Event(), trio.Event()
        """Set when there is no call any more, and when the PING of `say_leaving` came back."""
        self.idle_since = trio.current_time()
        """When the last call was over."""
        self._most_calls = most_calls
        self._refusals = refusals
        self._begin, self._start, self._stir = begin, start, stir
        self._h2 = _greeted(most_calls)
        self._joiner = FrameJoiner(self._h2.max_inbound_frame_size)
        self._frames, self._pings = Frames(trio.current_time()), Pings()
        self._held_up: dict[Call, None] = {}
        self._room = WRITE_BYTES
        self._charged = 0
        self._said = b""  # frames of our own, beside h2's
        self._last_call = ALL_STREAMS

    # -- for the calls

    def put(self, call: Call) -> None:
        """Send what the windows let through of what is pending, and the rest when they open."""
        self._put(call)
        self._stir()

    def _put(self, call: Call) -> None:
        self._held_up.pop(call, None)
        with suppress(h2.exceptions.ProtocolError):  # the client left; its word for that is about to be read
            if not call.has_begun:
                self._h2.send_headers(call.number, BEGINNING)
                call.has_begun = True
            while call.pending and (size := self._size(call)) > 0:
                self._h2.send_data(call.number, bytes(call.pending[:size]))
                del call.pending[:size]
                call.is_cut = bool(call.pending)
                self._room -= size
                self._pings.forget()
        if call.pending:
            self._held_up[call] = None  # behind the others
        else:
            self._frames.earn()
            call.release()

    def _size(self, call: Call) -> int:
        window = self._h2.local_flow_control_window(call.number)
        return min(len(call.pending), window, self._h2.max_outbound_frame_size, self._room)

    def acknowledge(self, call: Call, size: int) -> None:
        """Let the client send so many bytes more."""
        with suppress(h2.exceptions.ProtocolError):
            self._h2.acknowledge_received_data(size, call.number)
        self._stir()

    def finish(self, call: Call, trailers: Headers) -> None:
        """End the stream; what is left of a message cannot be followed by anything."""
        if self.calls.pop(call.number, None) is None:
            return
        with suppress(h2.exceptions.ProtocolError):
            if call.is_cut:
                self._h2.reset_stream(call.number, Codes.CANCEL)
            else:
                is_first = not call.has_begun and trailers[0][0] != b":status"
                self._h2.send_headers(call.number, BEGINNING + trailers if is_first else trailers, end_stream=True)
                if not call.is_half_closed:
                    self._h2.reset_stream(call.number, Codes.NO_ERROR)
        self._let_go(call)

    def charge(self) -> None:
        """Count a call that its task refused: it is paid for when the next one comes."""
        self._charged += 1

    def _drop(self, call: Call) -> None:
        del self.calls[call.number]
        call.leave()
        self._let_go(call)

    def _let_go(self, call: Call) -> None:
        self._held_up.pop(call, None)
        self._stir()
        if not self.calls:
            self.is_idle.set()
            self.idle_since = trio.current_time()

    # -- for the connection

    def next_write(self) -> bytes | bytearray:
        """All that may be written now; a part of it where that is much."""
        self._room = WRITE_BYTES
        for call in list(self._held_up):
            self._put(call)
        said, self._said = self._said, b""
        return self._h2.data_to_send() + said

    def ping(self, data: bytes = b"are you?") -> None:
        """Ask whether the client is there."""
        self._h2.ping(data)
        self._stir()

    def say_leaving(self) -> None:
        """Have the client begin no more calls; those that it begins before it hears that are served."""
        self._say(goaway(ALL_STREAMS, Codes.NO_ERROR, "it ends"))
        self.ping(b"leaving?")

    def say_left(self) -> None:
        """Name the last call that is served."""
        self._last_call = self._h2.highest_inbound_stream_id
        self._say(goaway(self._last_call, Codes.NO_ERROR, "it ends"))

    def say_why(self, enough: Enough) -> None:
        """Tell a client that it was too much."""
        self._say(goaway(self._h2.highest_inbound_stream_id, enough.code, enough.words))

    def _say(self, frame: bytes) -> None:
        self._said += frame
        self._stir()

    def lose(self) -> None:
        """The client has gone, and all of its calls with it."""
        for call in list(self.calls.values()):
            self._drop(call)

    # -- what comes

    def take_in(self, raw: bytes | bytearray) -> None:
        """Deal with what came. Raises `Enough`, and h2's ProtocolError, of which h2 has told the client."""
        try:
            frames = self._joiner.feed(raw)
        except ValueError as error:
            raise Enough("PROTOCOL", str(error), str(error), Codes.FRAME_SIZE_ERROR) from error
        self._spend(self._joiner.take_small())
        for event in self._h2.receive_data(frames):
            if (take := _TAKE.get(type(event))) is not None:
                take(self, event)
        self._stir()

    def _spend(self, frames: int) -> None:
        if frames and not self._frames.spend(frames, trio.current_time()):
            raise Enough("FLOOD", "too many small frames, or calls that were cancelled or refused", "calm_down")

    def _take_call(self, event: h2.events.RequestReceived) -> None:
        charged, self._charged = self._charged, 0
        self._spend(charged)
        call = Call(self, event.stream_id, read_head(event.headers))
        if len(self.calls) >= self._most_calls or call.number > self._last_call:
            self._refuse(call)
            return
        self.calls[call.number] = call
        work = self._begin(call)
        if work is None:
            self._spend(1)
        else:
            call.has_task = True
            self._start(work)

    def _refuse(self, call: Call) -> None:
        if call.number <= self._last_call:
            words = f"{self._most_calls} calls of this connection are being answered, which is its limit"
            self._refusals.note_call(self.peer, call.head.get(":path")[:MOST_SHOWN], "REFUSED_STREAM", words)
        with suppress(h2.exceptions.ProtocolError):
            self._h2.reset_stream(call.number, Codes.REFUSED_STREAM)
        self._spend(1)

    def _take_data(self, event: h2.events.DataReceived) -> None:
        call = self.calls.get(event.stream_id)
        if call is None:
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        else:
            call.receive(event.data, event.flow_controlled_length)

    def _take_end(self, event: h2.events.StreamEnded) -> None:
        if (call := self.calls.get(event.stream_id)) is not None:
            call.receive_end()

    def _take_reset(self, event: h2.events.StreamReset) -> None:
        if (call := self.calls.get(event.stream_id)) is not None:
            self._drop(call)

    def _take_ping(self, event: h2.events.PingReceived) -> None:
        if not self._pings.note(trio.current_time()):
            raise Enough("PINGS", "PINGs more often than every 5 s", "too_many_pings")

    def _take_echo(self, event: h2.events.PingAckReceived) -> None:
        if event.ping_data == b"leaving?":
            self.echoed.set()


_TAKE: dict[type[h2.events.Event], Callable[[Streams, Any], None]] = {
    h2.events.RequestReceived: Streams._take_call,
    h2.events.DataReceived: Streams._take_data,
    h2.events.StreamEnded: Streams._take_end,
    h2.events.StreamReset: Streams._take_reset,
    h2.events.PingReceived: Streams._take_ping,
    h2.events.PingAckReceived: Streams._take_echo,
}


def _greeted(most_calls: int) -> _H2:
    """h2's state machine, which has the client's preface, and our settings to send."""
    config = h2.config.H2Configuration(
        client_side=False, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
    )
    machine, settings = _H2(config), h2.settings.SettingCodes
    told = {settings.MAX_CONCURRENT_STREAMS: most_calls, settings.MAX_HEADER_LIST_SIZE: HEADER_BYTES}
    machine.local_settings = h2.settings.Settings(client=False, initial_values=told)
    machine.encoder = _Encoder()
    machine.decoder.max_header_list_size = HEADER_BYTES
    machine.initiate_connection()
    machine.increment_flow_control_window(ALL_WINDOWS_BYTES - machine.local_settings.initial_window_size)
    machine.receive_data(PREFACE)
    # h2 would end the connection for one stream too many; here that stream is refused
    machine.local_settings = h2.settings.Settings(client=False, initial_values={settings.MAX_CONCURRENT_STREAMS: 2**31})
    return machine
