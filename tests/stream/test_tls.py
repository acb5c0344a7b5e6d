"""`rediss://`: TLS in front of a real Valkey, checked against the authority that the URL names."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme

from ottoscaler.errors import Unavailable
from ottoscaler.parsing import RedisAddress
from tests.stream.backends import RedisBackend

pytestmark = pytest.mark.slow_clock


async def _pump(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
    try:
        async for part in source:
            await sink.send_all(part)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    finally:
        with trio.move_on_after(0):
            await sink.aclose()


@asynccontextmanager
async def tls_in_front_of(backend: RedisBackend, authority: trustme.CA) -> AsyncIterator[int]:
    """A port on which the server speaks TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)

    async def serve(client: trio.SSLStream[trio.SocketStream]) -> None:
        server = await trio.open_unix_socket(backend.address.path)
        async with trio.open_nursery() as pumps:
            pumps.start_soon(_pump, client, server)
            pumps.start_soon(_pump, server, client)

    listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1", https_compatible=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        listener = listeners[0].transport_listener
        assert isinstance(listener, trio.SocketListener)
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_redis_behind_tls(valkey: RedisBackend, tmp_path: Path) -> None:
    """With the right authority calls go through; with another one the error speaks of the certificate."""
    authority = trustme.CA()
    right, wrong = tmp_path / "right.pem", tmp_path / "wrong.pem"
    authority.cert_pem.write_to_path(str(right))
    trustme.CA().cert_pem.write_to_path(str(wrong))
    async with tls_in_front_of(valkey, authority) as port:
        for file in (right, wrong):
            address = RedisAddress(scheme="rediss", host="localhost", port=port, options={"ssl_ca_certs": str(file)})
            backend = RedisBackend.at(address)
            stream = backend.open("one")
            if file is right:
                assert (await stream.open_group("0", "default")).namespace == "default"
                assert await stream.read(1, 0) == []
            else:
                with pytest.raises(Unavailable, match="certificate"):
                    await stream.live_events()
            backend.disconnect()


async def test_a_silent_handshake_lets_go() -> None:
    """A server that accepts and never answers the handshake holds no cancelled call."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = RedisAddress(scheme="rediss", host="127.0.0.1", port=listeners[0].socket.getsockname()[1])
    backend = RedisBackend.at(address)
    with trio.move_on_after(0.1) as scope:
        await backend.open("one", timeout=30).live_events()
    assert scope.cancelled_caught
    assert trio.current_time() - scope.deadline < 5
    backend.disconnect()
    await listeners[0].aclose()
