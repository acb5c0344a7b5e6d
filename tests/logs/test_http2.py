"""The client's connection against servers that behave badly: each call ends, with words that say why."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import h2.events
import h2.settings
import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from ottoscaler.errors import Unavailable
from ottoscaler.logs.forwarding import HandlerReceiver
from ottoscaler.rpc.handler_link import Handler, LogStream, open_handler
from ottoscaler.rpc.http2 import client as http2
from ottoscaler.rpc.http2.client import CONNECT_SECONDS, TAKE_BYTES, Connection, Exchange
from ottoscaler.rpc.v1.worker_logs_pb2 import LogForwardResponse
from tests.logs.scripted import HEADERS, Peer, open_server

Judge = Callable[[Peer, h2.events.Event], None]
TRAILERS = [("grpc-status", "14"), ("grpc-message", "leaving%20now")]


def silent(peer: Peer, event: h2.events.Event) -> None:
    """Say nothing."""


def acknowledging(peer: Peer, event: h2.events.Event) -> None:
    """Answer each message, numbered, in frames of their own."""
    if isinstance(event, h2.events.RequestReceived):
        peer.h2.send_headers(event.stream_id, HEADERS)
    elif isinstance(event, h2.events.DataReceived):
        told = len([one for one in peer.events if isinstance(one, h2.events.DataReceived)])
        fresh = len(peer.got) - getattr(peer, "told", 0)
        peer.told = len(peer.got)  # type: ignore[attr-defined]  # kept where the next event finds it
        peer.answer(event.stream_id, *[LogForwardResponse(sequence=told).SerializeToString()] * fresh)


@asynccontextmanager
async def called(serve: Judge, window: int = 65_535) -> AsyncIterator[tuple[Handler, list[Peer]]]:
    """A handler at a server that does so; and the server's ends of its connections."""
    peers: list[Peer] = []

    async def speak(stream: trio.SocketStream) -> None:
        peers.append(Peer(stream, window))
        await peers[-1].run(serve)

    async with open_server(speak) as port:
        async with open_handler(f"127.0.0.1:{port}", tls=False, ca=None, token=None) as handler:
            with trio.fail_after(30):
                yield handler, peers


class Line:
    """A log stream and its news."""

    def __init__(self) -> None:
        self.news = trio.Event()
        self.stream: LogStream

    async def answers(self, count: int) -> list[str]:
        """So many answers."""
        found: list[str] = []
        while len(found) < count:
            found += [one.status for one in self.stream.take()]
            if len(found) < count:
                await self.news.wait()
                self.news = trio.Event()
        return found


@asynccontextmanager
async def line_to(handler: Handler) -> AsyncIterator[Line]:
    """A log stream; Unavailable that the block raises comes out alone."""
    line = Line()
    try:
        async with handler.open_log_stream(lambda: line.news.set()) as line.stream:
            yield line
    except* Unavailable as errors:
        failure = errors
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]  # type: ignore[assignment]  # to the one inside
    else:
        return
    raise failure


@pytest.mark.parametrize(
    ("window", "longest"), [(1, 50), (7, 500), (1000, 1 << 16), (65_535, 1 << 20), (1 << 20, 1 << 20)]
)
async def test_any_window_carries_all(window: int, longest: int) -> None:
    """Short lines and long ones arrive whole and in order, however little the server takes at a time."""
    lines = [b"%d" % at for at in range(20)] + [b"x" * longest] * 3 + [b"", b"end"]
    async with called(acknowledging, window) as (handler, peers), line_to(handler) as line:
        for text in lines:
            line.stream.send([text])
        assert await line.answers(len(lines)) == ["ACK"] * len(lines)
        assert peers[0].got == lines


async def test_many_lines_are_few_writes() -> None:
    """Thousands of lines that are sent together reach the server in frames of 16 kB."""
    async with called(acknowledging, 1 << 20) as (handler, peers), line_to(handler) as line:
        for number in range(5000):
            line.stream.send([b"line %d" % number])
        await line.answers(5000)
        frames = [event for event in peers[0].events if isinstance(event, h2.events.DataReceived)]
        assert len(frames) <= 8


def _refuse(peer: Peer, event: h2.events.Event) -> None:
    if isinstance(event, h2.events.RequestReceived):
        peer.h2.send_headers(event.stream_id, HEADERS + TRAILERS, end_stream=True)


def _forbid(peer: Peer, event: h2.events.Event) -> None:
    if isinstance(event, h2.events.RequestReceived):
        peer.h2.send_headers(event.stream_id, [(":status", "403")], end_stream=True)


def _break_off(peer: Peer, event: h2.events.Event) -> None:
    if isinstance(event, h2.events.DataReceived):
        peer.h2.reset_stream(event.stream_id, 7)


def _half_close(peer: Peer, event: h2.events.Event) -> None:
    if isinstance(event, h2.events.RequestReceived):
        peer.h2.send_headers(event.stream_id, HEADERS, end_stream=True)


def _end_well(peer: Peer, event: h2.events.Event) -> None:
    if isinstance(event, h2.events.RequestReceived):
        peer.h2.send_headers(event.stream_id, HEADERS)
        peer.h2.send_headers(event.stream_id, [("grpc-status", "0")], end_stream=True)


def _compress(peer: Peer, event: h2.events.Event) -> None:
    if isinstance(event, h2.events.RequestReceived):
        peer.h2.send_headers(event.stream_id, HEADERS)
        peer.answer(event.stream_id, b"abc", compressed=1)
        peer.h2.send_headers(event.stream_id, [("grpc-status", "0")], end_stream=True)


def _speak_nonsense(peer: Peer, event: h2.events.Event) -> None:
    if isinstance(event, h2.events.RequestReceived):
        peer.h2.send_headers(event.stream_id, HEADERS)
        peer.answer(event.stream_id, b"\xff\xff\xff")
        peer.h2.send_headers(event.stream_id, [("grpc-status", "0")], end_stream=True)


def _hang_up(peer: Peer, event: h2.events.Event) -> None:
    if isinstance(event, h2.events.RequestReceived):
        peer.h2.close_connection(error_code=2, additional_data=b"bye", last_stream_id=0)


async def _send_one(handler: Handler) -> None:
    async with line_to(handler) as line:
        line.stream.send([b"line"])
        await line.answers(1)


ENDS = [
    (_refuse, "UNAVAILABLE: leaving now"),
    (_forbid, "it answers HTTP 403"),
    (_break_off, "broke off the stream .REFUSED_STREAM"),
    (_half_close, "it ended the stream"),
    (_end_well, "it ended the stream"),
    (_compress, "a compressed message"),
    (_speak_nonsense, "no (LogForwardResponse|WorkerStatusAck)"),
    (_hang_up, "it is leaving .INTERNAL_ERROR: bye"),
]


@pytest.mark.parametrize(("serve", "words"), ENDS)
async def test_a_stream_that_ends_says_why(serve: Judge, words: str) -> None:
    """However the server ends it, who owns the stream is told, as Unavailable, with its address."""
    async with called(serve) as (handler, _):
        with pytest.raises(Unavailable, match=f"otto-handler at 127.*{words}"):
            await _send_one(handler)


@pytest.mark.parametrize(("serve", "words"), ENDS)
async def test_a_state_that_is_not_answered_is_unavailable(serve: Judge, words: str) -> None:
    """The same of a state, and the next one is asked all the same."""
    async with called(serve) as (handler, _):
        for _ in range(2):
            with pytest.raises(Unavailable, match=f"otto-handler at 127.*{words if serve is not _end_well else ''}"):
                await handler.notify(b"state")


def _acknowledge_states(peer: Peer, event: h2.events.Event) -> None:
    if isinstance(event, h2.events.StreamEnded):
        peer.h2.send_headers(event.stream_id, HEADERS)
        peer.answer(event.stream_id, b"")
        peer.h2.send_headers(event.stream_id, [("grpc-status", "0")], end_stream=True)


async def test_states_that_are_refused_unread_take_no_stream_for_good() -> None:
    """A server that answers without having let the message in is told that nothing comes: the stream counts no more,
    on neither side.
    """

    def refuse_few(peer: Peer, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RemoteSettingsChanged) and not peer.got:
            peer.h2.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 2})
        _refuse(peer, event)

    async with called(refuse_few, window=0) as (handler, peers):
        for _ in range(6):
            with pytest.raises(Unavailable, match="leaving now"):
                await handler.notify(b"state")
        assert len(peers) == 1


@pytest.mark.parametrize(
    ("answer", "is_heard"), [(b"", True), (b"\x08\x01", True), (b"\x08\x02", False), (b"\x08\x07", False)]
)
async def test_a_state_is_heard_when_it_is_received_or_ignored(answer: bytes, is_heard: bool) -> None:
    """RECEIVED and IGNORED; ERROR and a status that nobody knows are told again, for nothing is lost by it."""

    def reply(peer: Peer, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.StreamEnded):
            peer.h2.send_headers(event.stream_id, HEADERS)
            peer.answer(event.stream_id, answer)
            peer.h2.send_headers(event.stream_id, [("grpc-status", "0")], end_stream=True)

    async with called(reply) as (handler, _):
        assert await handler.notify(b"state") is is_heard


async def test_states_share_a_connection_and_have_a_limit() -> None:
    """Without an answer within its time a call is given up, alone; others go on over the same connection."""

    def answer_long_ones(peer: Peer, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.StreamEnded) and peer.got[-1] != b"short":
            peer.h2.send_headers(event.stream_id, HEADERS)
            peer.answer(event.stream_id, b"")
            peer.h2.send_headers(event.stream_id, [("grpc-status", "0")], end_stream=True)

    async with called(answer_long_ones) as (handler, peers):
        for _ in range(2):
            with pytest.raises(Unavailable, match="DEADLINE_EXCEEDED"):
                await handler.notify(b"short", 0.05)
            assert await handler.notify(b"long")
        assert len(peers) == 1
        assert any(isinstance(event, h2.events.StreamReset) for event in peers[0].events)


async def test_no_state_leaves_once_this_process_may_not_act() -> None:
    """A state whose connection takes long to open is held back where this process has lost its right to act meanwhile:
    the next owner may have told later ones.
    """
    may_answer, may_act, peers = trio.Event(), trio.Event(), list[Peer]()

    async def speak_late(stream: trio.SocketStream) -> None:
        await may_answer.wait()
        peers.append(Peer(stream))
        await peers[-1].run(_acknowledge_states)

    async with open_server(speak_late) as port, trio.open_nursery() as nursery:
        async with open_handler(f"127.0.0.1:{port}", tls=False, ca=None, token=None) as handler:
            receiver = HandlerReceiver(handler, lambda: may_act.wait())
            may_act.set()
            with trio.fail_after(30):
                nursery.start_soon(receiver.tell, b"state")
                await wait_all_tasks_blocked(0.05)
                may_act = trio.Event()
                may_answer.set()
                await wait_all_tasks_blocked(0.05)
                assert peers[0].got == []
                may_act.set()
                while not peers[0].got:
                    await peers[0].arrived.wait()
            nursery.cancel_scope.cancel(reason="the test is over")


async def test_goaway_lets_what_is_under_way_be_answered() -> None:
    """After a GOAWAY a stream is leaving, its answers still come, and a state goes over a new connection."""

    def leave_then_answer(peer: Peer, event: h2.events.Event) -> None:
        acknowledging(peer, event)
        if isinstance(event, h2.events.DataReceived) and len(peer.got) == 2:
            peer.goaway((1 << 31) - 1)

    async with called(leave_then_answer) as (handler, peers), line_to(handler) as line:
        line.stream.send([b"a"])
        line.stream.send([b"b"])
        assert await line.answers(2) == ["ACK"] * 2
        assert line.stream.is_leaving
        async with line_to(handler) as other:
            other.stream.send([b"c"])
            assert await other.answers(1) == ["ACK"]
        assert len(peers) == 2


@pytest.mark.parametrize(
    "garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n", b"\x00" * 50, b""]
)
async def test_garbage_on_the_port(garbage: bytes) -> None:
    """A port that speaks something else, or hangs up, is Unavailable at once, for lines and states."""

    async def speak(stream: trio.SocketStream) -> None:
        await stream.send_all(garbage)
        if garbage:
            await stream.receive_some(1 << 16)

    async with open_server(speak) as port:
        async with open_handler(f"127.0.0.1:{port}", tls=False, ca=None, token=None) as handler:
            with trio.fail_after(30), pytest.raises(Unavailable, match="otto-handler at 127"):
                async with line_to(handler):
                    pass
            with trio.fail_after(30), pytest.raises(Unavailable, match="otto-handler at 127"):
                await handler.notify(b"state")


async def test_plain_text_where_tls_is_wanted() -> None:
    """A handshake with a server that speaks plain text is Unavailable, not a crash."""
    async with called(acknowledging) as (plain, _):
        async with open_handler(plain.address, tls=True, ca=None, token=None) as handler:
            with pytest.raises(Unavailable, match="otto-handler at 127"):
                await handler.notify(b"state")


# -- silence, under a clock that jumps


@asynccontextmanager
async def over_memory(serve: Judge | None) -> AsyncIterator[tuple[Connection, Peer]]:
    """A connection to a server that does so, None: that says nothing at all."""
    near, far = memory_stream_pair()
    connection, peer = Connection(near, "it", "http", "it:1"), Peer(far)
    async with trio.open_nursery() as nursery:
        if serve is not None:
            nursery.start_soon(peer.run, serve)
        await nursery.start(connection.run)
        yield connection, peer
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_server_that_never_speaks_is_left(autojump_clock: MockClock) -> None:
    """Who takes connections and says nothing is no server."""
    begun = trio.current_time()
    async with over_memory(None) as (connection, _):
        assert "says nothing" in connection.failure
        assert trio.current_time() - begun == CONNECT_SECONDS
        with pytest.raises(Unavailable, match="it: it says nothing"):
            connection.open_exchange("/x", (), lambda: None)


async def test_a_server_that_is_slow_is_asked_and_kept(autojump_clock: MockClock) -> None:
    """One that answers PINGs may take its time, and is asked twice a minute at most."""
    async with over_memory(silent) as (connection, peer):
        exchange = connection.open_exchange("/x", (), lambda: None)
        for _ in range(300):
            exchange.send(b"\0\0\0\0\4more")
            await trio.sleep(1)
        assert not connection.failure
        assert not exchange.ended
        pings = [event for event in peer.events if isinstance(event, h2.events.PingReceived)]
        assert len(pings) <= 300 / http2.PING_PAUSE + 1


async def test_an_idle_connection_is_left_in_peace(autojump_clock: MockClock) -> None:
    """With nothing under way nobody is asked anything."""
    async with over_memory(acknowledging) as (connection, peer):
        exchange = connection.open_exchange("/x", (), lambda: None)
        exchange.send(b"\0\0\0\0\1x")
        await trio.sleep(10_000)
        assert not connection.failure
        assert len([event for event in peer.events if isinstance(event, h2.events.PingReceived)]) == 0


async def test_a_connection_that_died_in_silence_is_noticed(autojump_clock: MockClock) -> None:
    """Nothing comes, not even to a PING: within twenty seconds the exchange has ended."""
    async with over_memory(acknowledging) as (connection, peer):
        exchange = connection.open_exchange("/x", (), lambda: None)
        await trio.sleep(100)
        peer.is_deaf = True
        begun = trio.current_time()
        exchange.send(b"\0\0\0\0\1x")
        await exchange.over.wait()
        assert "not even to a PING" in exchange.ended
        assert trio.current_time() - begun <= 21


def test_many_small_pieces_are_taken_together_and_many_bytes_are_not() -> None:
    """Answers that came one by one are handed on in one go; of very many only so much that others get their turn."""
    exchange = Exchange(None, 1, lambda: None)  # type: ignore[arg-type]  # nothing is sent here
    for _ in range(500):
        exchange.receive(b"\0\0\0\0\0")
    assert (len(exchange.take()), exchange.has_more) == (2500, False)
    for _ in range(3):
        exchange.receive(b"x" * TAKE_BYTES)
    assert (len(exchange.take()), exchange.has_more) == (TAKE_BYTES, True)
    assert b"".join(iter(exchange.take, b"")) == b"x" * 2 * TAKE_BYTES
