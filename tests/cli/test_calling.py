"""The connection of `call` to a door: how long it waits for a server that is not heard of any more."""

from __future__ import annotations

import argparse
from functools import partial

import pytest
import trio

from ottoscaler.cli import calling
from ottoscaler.cli.calling import Passing, open_server
from ottoscaler.cli.playground import find_free_port
from ottoscaler.rpc.http2.floods import Pings
from ottoscaler.rpc.v1.scaling_pb2 import ScaleRequest

SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What an HTTP/2 server says first."""


@pytest.mark.slow_clock
async def test_a_server_that_falls_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that waits without a deadline ends when its server is not heard of, as one that is stopped or cut off."""
    monkeypatch.setitem(calling.KEEPALIVE, "grpc.keepalive_time_ms", 300)
    monkeypatch.setitem(calling.KEEPALIVE, "grpc.http2.ping_timeout_ms", 300)
    port = find_free_port()

    async def fall_silent(client: trio.SocketStream) -> None:
        await client.send_all(SETTINGS)
        await trio.sleep_forever()

    def ask() -> None:
        names = ("token_file", "cert", "key", "ca", "timeout")
        args = argparse.Namespace(server=f"127.0.0.1:{port}", tls=False, **dict.fromkeys(names))
        with open_server(args) as server, pytest.raises(Passing, match="ping timeout"):
            server.ask(server.stub.ScaleUp, ScaleRequest(worker_count=1))

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_tcp, fall_silent, port, host="127.0.0.1"))
        with trio.fail_after(30):
            await trio.to_thread.run_sync(ask, abandon_on_cancel=True)
        nursery.cancel_scope.cancel(reason="the test is over")


def test_signs_of_life_are_no_flood() -> None:
    """What a command asks for is what the door takes from clients while it sends nothing, for hours."""
    pings, pause = Pings(), calling.KEEPALIVE["grpc.keepalive_time_ms"] / 1000
    assert all(pings.note(number * pause) for number in range(1000))
