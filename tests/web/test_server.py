"""The HTTP server: what it answers, and that no client can harm it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair

from ottoscaler.drain import Drain
from ottoscaler.errors import SettingsError
from ottoscaler.health import Health
from ottoscaler.web.pages import open_http_door
from ottoscaler.web.server import LIFE_SECONDS, LONGEST_HEAD, MOST, Answer, Server

GET = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n"


async def root() -> Answer:
    """A page."""
    return Answer(200, b"fine\n")


async def broken() -> Answer:
    """A page with a bug."""
    raise ValueError("a bug")


async def hanging() -> Answer:
    """A page that never comes."""
    await trio.sleep_forever()
    raise AssertionError


@asynccontextmanager
async def open_client(server: Server) -> AsyncIterator[trio.abc.HalfCloseableStream]:
    """A connection that the server handles while the block runs."""
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, far)
        yield near
        nursery.cancel_scope.cancel(reason="the test is over")


async def read_all(stream: trio.abc.HalfCloseableStream) -> bytes:
    """All that comes until the other side closes."""
    got = b""
    async for part in stream:
        got += part
    return got


async def ask(request: bytes, server: Server | None = None) -> bytes:
    """What the server answers to these bytes."""
    async with open_client(server or Server({"/": root, "/broken": broken})) as client:
        await client.send_all(request)
        return await read_all(client)


async def test_a_page_is_served(autojump_clock: MockClock) -> None:
    """GET answers with the page, whatever stands behind a question mark; then the connection ends."""
    for path in (b"/", b"/?name=value"):
        head, _, body = (await ask(GET.replace(b"/ ", path + b" ", 1))).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"connection: close" in head
        assert body == b"fine\n"


async def test_head_answers_without_a_body(autojump_clock: MockClock) -> None:
    """HEAD answers what GET does, but for the body."""
    head, _, body = (await ask(GET.replace(b"GET", b"HEAD"))).partition(b"\r\n\r\n")
    assert b"content-length: 5" in head
    assert body == b""


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (GET.replace(b"/", b"/x", 1), b"404"),
        (GET.replace(b"GET", b"POST"), b"405"),
        (b"\x16\x03\x01\x02\x00 this is TLS\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * LONGEST_HEAD * 2, b"431"),
    ],
    ids=["unknown path", "other method", "garbage", "huge head"],
)
async def test_what_cannot_be_served_is_refused(autojump_clock: MockClock, request_bytes: bytes, status: bytes) -> None:
    """Each wrong request gets its code and a sentence."""
    assert (await ask(request_bytes)).startswith(b"HTTP/1.1 " + status)


@given(st.binary(max_size=200))
@settings(
    max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
def test_no_bytes_leave_the_connection_broken(garbage: bytes) -> None:
    """Whatever comes, the handler ends by itself, and raises nothing."""

    async def main() -> None:
        near, far = memory_stream_pair()
        await near.send_all(garbage)
        await near.send_eof()
        await Server({"/": root}).handle(far)

    trio.run(main)


async def test_a_bug_of_a_page_stays_with_its_request(autojump_clock: MockClock) -> None:
    """The connection ends without an answer, and the next one is served."""
    server = Server({"/": root, "/broken": broken})
    assert await ask(GET.replace(b"/", b"/broken", 1), server) == b""
    assert b"fine" in await ask(GET, server)


async def test_slow_clients_are_let_go(autojump_clock: MockClock) -> None:
    """A request that does not come in, and a page that does not come, end the connection after its time."""
    start = trio.current_time()
    assert await ask(b"GET / HT", Server({"/": root})) == b""
    assert await ask(GET, Server({"/": hanging})) == b""
    assert trio.current_time() - start == pytest.approx(2 * LIFE_SECONDS)


async def test_a_crowd_of_slow_clients_keeps_nobody_out(autojump_clock: MockClock) -> None:
    """With all places taken the oldest connection ends, and the newest is served at once."""
    server, start, ended = Server({"/": root}), trio.current_time(), []

    async def idle(number: int) -> None:
        async with open_client(server) as client:
            assert await read_all(client) == b""
            ended.append((number, trio.current_time() - start))

    async with trio.open_nursery() as nursery:
        for number in range(MOST):
            nursery.start_soon(idle, number)
            await trio.testing.wait_all_tasks_blocked()
        assert b"fine" in await ask(GET, server)
        assert trio.current_time() == start
        assert ended == [(0, 0.0)]


async def test_a_port_that_is_taken_is_named() -> None:
    """The error is one of the settings, and names HTTP_PORT; another address of nobody's names HTTP_HOST."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        with pytest.raises(SettingsError, match=f"^HTTP_PORT is '{port}', expected a port that is free on 127.0.0.1"):
            async with open_http_door("127.0.0.1", port, Health(Drain(1, armed=False))):
                raise AssertionError("it must not be opened")
    with pytest.raises(SettingsError, match=r"^HTTP_HOST is '192\.0\.2\.1', expected an address of this machine"):
        async with open_http_door("192.0.2.1", port, Health(Drain(1, armed=False))):
            raise AssertionError("it must not be opened")


async def test_port_0_opens_no_door() -> None:
    """Without a port nothing listens, and the block just runs."""
    async with open_http_door("192.0.2.1", 0, Health(Drain(1, armed=False))):
        await trio.lowlevel.checkpoint()
