"""A client's HTTP/2 connection on Trio, as gRPC needs it: few long exchanges, both sides talking at any time.

The state machine is h2's. Two tasks work per connection: one reads and one writes, whatever the exchanges have put
together since its last write. A connection that falls silent while it should say something is asked with a PING. Once
it has failed every exchange on it has ended with the words why; nothing is raised into the tasks of others.
"""

from __future__ import annotations

import math
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import trio
from hpack import HeaderTuple

from ottoscaler.errors import Unavailable
from ottoscaler.rpc.http2.framing import FrameJoiner, GoAway

CONNECT_SECONDS = 10.0
"""For the connection and TLS's handshake, and again for the server's first frame."""
PING_SECONDS, PONG_SECONDS = 10.0, 10.0
"""A server that was sent something and says nothing for so long is asked, and lost if it says nothing still."""
PING_PAUSE = 30.0
"""Servers take more frequent PINGs for an attack; most allow two in five minutes beside other frames."""
RECEIVE_BYTES = 8 << 10
"""Some 600 answers at a time: while they are read no other task runs."""
TAKE_BYTES = 4 << 10
"""As many are handed on at a time, and one piece more."""
WRITE_BYTES = 64 << 10
GATHER_SECONDS, FEW_BYTES = 0.002, 4096
"""After so few bytes others gather so long before they are read: a server that answers line by line would wake us, and
h2, for each.
"""
WINDOW_BYTES, ALL_WINDOWS_BYTES = 1 << 20, 4 << 20
"""What the server may send before it is taken in: of one exchange, of the connection."""
_DEFAULT_WINDOW = 65_535
Header = tuple[str, str] | HeaderTuple


class Exchange:
    """One request and its answer; made by `Connection.open_exchange`. `ended` says how it ended, empty while open."""

    def __init__(self, connection: Connection, number: int, wake: Callable[[], None]) -> None:
        self.number = number
        self.headers: dict[str, str] = {}
        """Of the answer, its trailers among them."""
        self.ended = ""
        self.over = trio.Event()
        self.pending = bytearray()
        self.is_finished = False
        """Nothing comes behind what is pending."""
        self._connection = connection
        self.wake = wake
        self._received: deque[bytes] = deque()

    def send(self, data: bytes) -> None:
        """Send behind what was sent. Never waits; who sends limits how much is under way."""
        self.pending += data
        self._connection.stir(self)

    def send_last(self, data: bytes) -> None:
        """Send this, some bytes at least, and nothing more."""
        self.is_finished = True
        self.send(data)

    def take(self) -> bytes:
        """What came of the answer's body since, or the first `TAKE_BYTES` of it; empty where nothing came."""
        pieces, size = list[bytes](), 0
        while self._received and size < TAKE_BYTES:
            pieces.append(piece := self._received.popleft())
            size += len(piece)
        return b"".join(pieces)

    @property
    def has_more(self) -> bool:
        """Whether there is more to take."""
        return bool(self._received)

    @property
    def is_leaving(self) -> bool:
        """The server wants it to come to its end."""
        return self._connection.is_leaving

    def cancel(self) -> None:
        """Leave, wherever it is."""
        if not self.ended:
            self._connection.cancel(self)

    def receive(self, data: bytes) -> None:
        """The connection's part: something came."""
        if data:
            self._received.append(data)
            self.wake()

    def end(self, words: str) -> None:
        """The connection's part: nothing more will come."""
        if not self.ended:
            self.ended = words
            self.over.set()
            self.wake()


class Connection:
    """A connection; made by `open_connection`. `failure` says why it is over, empty while it is not."""

    def __init__(self, transport: trio.abc.Stream, name: str, scheme: str, authority: str) -> None:
        self.failure = ""
        self.is_leaving = False
        """The server has said that it takes no new exchanges."""
        self.closed = trio.Event()
        self._transport = transport
        self._name = name
        self._origin: Sequence[Header] = ((":scheme", scheme), (":authority", authority))
        config = h2.config.H2Configuration(client_side=True, header_encoding=None)
        self._h2 = h2.connection.H2Connection(config)
        self._frames = FrameJoiner(self._h2.max_inbound_frame_size)
        self._exchanges: dict[int, Exchange] = {}
        self._sending: dict[Exchange, None] = {}
        self._is_greeted = trio.Event()
        self._to_write = trio.Event()
        self._waits_since = math.inf
        """When the first was written that nothing came after."""
        self._waits = trio.Event()

    # -- for those who call

    def open_exchange(self, path: str, headers: Sequence[Header], wake: Callable[[], None]) -> Exchange:
        """Begin a POST; `wake` is called whenever something came. Raises Unavailable."""
        if self.failure or self.is_leaving:
            raise Unavailable(f"{self._name}: {self.failure or 'it takes no new calls'}")
        try:
            number = self._h2.get_next_available_stream_id()
            self._h2.send_headers(number, [(":method", "POST"), *self._origin, (":path", path), *headers])
        except h2.exceptions.ProtocolError as error:  # too many streams, or their numbers are used up
            raise Unavailable(f"{self._name}: {error}") from error
        self._exchanges[number] = exchange = Exchange(self, number, wake)
        self._to_write.set()
        return exchange

    def stir(self, exchange: Exchange) -> None:
        """There is something to write for it."""
        if not exchange.ended:
            self._sending[exchange] = None
            self._to_write.set()

    def cancel(self, exchange: Exchange) -> None:
        """Tell the server to stop."""
        if not self.failure:
            self._h2.reset_stream(exchange.number, h2.errors.ErrorCodes.CANCEL)
            self._to_write.set()
        self._end(exchange, "it was left")

    # -- its tasks

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read and write until it is over; ready when the server has spoken, or failed. What it did is not raised."""
        self._greet()
        try:
            async with trio.open_nursery() as nursery:
                for work in (self._read, self._write, self._keep_alive):
                    nursery.start_soon(self._until_failure, work, nursery.cancel_scope)
                with trio.move_on_after(CONNECT_SECONDS) as patience:
                    await self._is_greeted.wait()
                task_status.started()
                if patience.cancelled_caught:
                    self._fail(f"it says nothing for {CONNECT_SECONDS:.0f} s")
                    nursery.cancel_scope.cancel(reason=self.failure)
        finally:
            self._fail("it was closed")

    def _greet(self) -> None:
        codes = h2.settings.SettingCodes
        wanted = {codes.ENABLE_PUSH: 0, codes.INITIAL_WINDOW_SIZE: WINDOW_BYTES, codes.MAX_HEADER_LIST_SIZE: 16 << 10}
        self._h2.local_settings = h2.settings.Settings(client=True, initial_values=wanted)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(ALL_WINDOWS_BYTES - _DEFAULT_WINDOW)
        self._to_write.set()

    async def _until_failure(self, work: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
        try:
            await work()
        except (trio.BrokenResourceError, h2.exceptions.ProtocolError, ValueError, Unavailable) as error:
            self._fail(reason_of(error))
            scope.cancel(reason=self.failure)

    def _fail(self, words: str) -> None:
        self.failure = self.failure or words
        for exchange in list(self._exchanges.values()):
            self._end(exchange, self.failure)
        self._is_greeted.set()
        self.closed.set()

    async def _read(self) -> None:
        while raw := await self._transport.receive_some(RECEIVE_BYTES):
            self._waits_since = math.inf
            for event in self._h2.receive_data(self._frames.feed(raw)):
                self._take_in(event)
            if self._frames.goaway is not None:
                self._prepare_to_leave(self._frames.goaway)
            self._to_write.set()  # what h2 has to say to that
            if len(raw) < FEW_BYTES:
                await trio.sleep(GATHER_SECONDS)
        raise Unavailable("it closed the connection")

    async def _write(self) -> None:
        while True:
            await self._to_write.wait()
            self._to_write = trio.Event()
            while raw := self._next_write():
                if self._waits_since == math.inf:
                    self._waits_since = trio.current_time()
                    self._waits.set()
                await self._transport.send_all(raw)

    async def _keep_alive(self) -> None:
        while True:
            self._waits = trio.Event()
            if self._waits_since == math.inf:
                await self._waits.wait()
            await trio.sleep_until(min(self._waits_since, trio.current_time()) + PING_SECONDS)
            if trio.current_time() - self._waits_since < PING_SECONDS:
                continue
            self._h2.ping(b"are you?")
            self._to_write.set()
            await trio.sleep(PONG_SECONDS)
            if trio.current_time() - self._waits_since >= PONG_SECONDS:
                raise Unavailable(f"it says nothing for {PING_SECONDS + PONG_SECONDS:.0f} s, not even to a PING")
            await trio.sleep(PING_PAUSE - PONG_SECONDS)

    # -- what is written

    def _next_write(self) -> bytes:
        """All that may be written now; a part of it where that is much."""
        room = WRITE_BYTES
        for exchange in list(self._sending):
            room -= self._put(exchange, room)
        return self._h2.data_to_send() or b""

    def _put(self, exchange: Exchange, room: int) -> int:
        """Give h2 what it takes of an exchange's pending bytes; how many these were."""
        pending, at = exchange.pending, 0
        while at < len(pending) and at < room and not exchange.ended:
            window = self._h2.local_flow_control_window(exchange.number)
            size = min(len(pending) - at, window, self._h2.max_outbound_frame_size)
            if size <= 0:
                break  # until a WINDOW_UPDATE
            is_last = exchange.is_finished and at + size == len(pending)
            self._h2.send_data(exchange.number, bytes(pending[at : at + size]), end_stream=is_last)
            at += size
        del pending[:at]
        if exchange.ended or not pending:
            self._sending.pop(exchange, None)
        return at

    # -- what comes

    def _take_in(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RemoteSettingsChanged):
            self._is_greeted.set()
        number = getattr(event, "stream_id", None)
        exchange = self._exchanges.get(number) if number else None
        if isinstance(event, h2.events.DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        if exchange is None:
            return
        if isinstance(event, h2.events.DataReceived):
            exchange.receive(event.data)
        elif isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
            exchange.headers.update((_text(name), _text(value)) for name, value in event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            self._leave_half(exchange)
            self._end(exchange, "it ended the stream")
        elif isinstance(event, h2.events.StreamReset):
            self._end(exchange, f"it broke off the stream ({_name(event.error_code)})")

    def _leave_half(self, exchange: Exchange) -> None:
        """End our half of what the server has ended, else it would count as an open stream for good, on both sides."""
        if exchange.pending or not exchange.is_finished:
            with suppress(h2.exceptions.ProtocolError):  # the server has broken it off behind that
                self._h2.reset_stream(exchange.number, h2.errors.ErrorCodes.NO_ERROR)

    def _end(self, exchange: Exchange, words: str) -> None:
        self._exchanges.pop(exchange.number, None)
        self._sending.pop(exchange, None)
        exchange.end(words)
        if self.is_leaving and not self._exchanges:
            self.closed.set()

    def _prepare_to_leave(self, goaway: GoAway) -> None:
        """No new exchanges; those that the server will not answer any more have ended."""
        self._frames.goaway, self.is_leaving = None, True
        words = f"it is leaving ({_name(goaway.code)}{': ' if goaway.words else ''}{goaway.words})"
        for exchange in list(self._exchanges.values()):
            if exchange.number > goaway.last_stream:
                self._end(exchange, words)
            else:
                exchange.wake()
        if not self._exchanges:
            self.closed.set()


@asynccontextmanager
async def open_connection(name: str, host: str, port: int, tls: ssl.SSLContext | None) -> AsyncIterator[Connection]:
    """A connection for the time of the block. Raises Unavailable where there is none, and where no HTTP/2 is spoken.

    `name` is how errors call the server.
    """
    try:
        transport = await _connect(host, port, tls)
    except (OSError, trio.BrokenResourceError, Unavailable) as error:
        raise Unavailable(f"{name}: {reason_of(error)}") from error
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    connection = Connection(transport, name, "https" if tls else "http", authority)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(connection.run)
            if not (failure := connection.failure):
                yield connection
            nursery.cancel_scope.cancel(reason="the connection is needed no more")
    finally:
        await trio.aclose_forcefully(transport)
    if failure:
        raise Unavailable(f"{name}: {failure}")


async def _connect(host: str, port: int, tls: ssl.SSLContext | None) -> trio.abc.Stream:
    with trio.move_on_after(CONNECT_SECONDS):
        plain = await trio.open_tcp_stream(host, port)
        return await _secure(plain, host, tls) if tls else plain
    raise Unavailable(f"no connection within {CONNECT_SECONDS:.0f} s")


async def _secure(plain: trio.SocketStream, host: str, tls: ssl.SSLContext) -> trio.abc.Stream:
    secured = trio.SSLStream(plain, tls, server_hostname=host, https_compatible=True)
    try:
        await secured.do_handshake()
        if secured.selected_alpn_protocol() != "h2":
            raise Unavailable("it does not speak HTTP/2")
    except BaseException:
        await trio.aclose_forcefully(plain)
        raise
    return secured


def client_tls(ca: bytes | None) -> ssl.SSLContext:
    """TLS that trusts `ca` (PEM), or whom the system trusts. Raises ssl.SSLError for what is no certificate."""
    context = ssl.create_default_context(cadata=ca.decode("ascii", "replace") if ca else None)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # gRPC's own clients take authorities that Python 3.13 refuses
    context.set_alpn_protocols(["h2"])
    return context


def reason_of(error: BaseException) -> str:
    """What stood in the way, in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) and error.__cause__ else error
    return str(cause) or type(cause).__name__


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _name(code: int | None) -> str:
    try:
        return h2.errors.ErrorCodes(code).name  # type: ignore[arg-type]  # None is no code either
    except ValueError:
        return f"code {code}"
