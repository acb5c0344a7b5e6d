"""More connections than there may be: which of them is closed, and who still gets in."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import trio

from ottoscaler.rpc.http2 import listening
from tests.rpc.raw import PREFACE, frame
from tests.rpc.stage import Scene, open_door
from tests.rpc.test_abuse import half_open

pytestmark = pytest.mark.slow_clock
BEGUN = PREFACE + frame(4)
CHECK = "/grpc.health.v1.Health/Check"


class Crowd:
    """Connections that stay open, each from an address of this machine."""

    def __init__(self, scene: Scene, stack: ExitStack) -> None:
        self._scene = scene
        self._stack = stack

    async def add(self, host: str = "127.0.0.1", said: bytes = BEGUN) -> socket.socket:
        """One more, which the door has dealt with."""
        opened = socket.create_connection(("127.0.0.1", self._scene.port), 5, source_address=(host, 0))
        self._stack.enter_context(opened)
        opened.sendall(said)
        await trio.testing.wait_all_tasks_blocked(0.02)  # what was sent here has come, if nobody has anything to do
        return opened


@contextmanager
def crowd_of(scene: Scene) -> Iterator[Crowd]:
    """None yet."""
    with ExitStack() as stack:
        yield Crowd(scene, stack)


def heard(opened: socket.socket) -> bytes | None:
    """What came on a connection that the door has closed; None: it is open."""
    opened.setblocking(False)
    came = b""
    try:
        while piece := opened.recv(65536):
            came += piece
    except BlockingIOError:
        return None
    except ConnectionResetError:
        pass
    return came


def refused(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """What the log says of refused connections, without those that are only counted."""
    facts = [vars(record)["facts"] for record in caplog.records if record.message == "connection refused"]
    return [fact for fact in facts if "not_logged" not in fact]


@pytest.mark.parametrize("said", [BEGUN, b"", PREFACE[:5]], ids=["begun", "silent", "slow"])
async def test_one_address_holds_half_and_new_ones_take_the_place_of_its_oldest(
    said: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of connections that only stay open one address keeps half; each that is one too many costs it its oldest, so that
    a client with a call gets in, from there and from elsewhere. One line says it.
    """
    monkeypatch.setattr(listening, "MOST_CONNECTIONS", 8)
    async with open_door() as scene:
        with crowd_of(scene) as crowd:
            opened = [await crowd.add(said=said) for _ in range(7)]
            assert [heard(each) is None for each in opened] == [False] * 3 + [True] * 4
            other = await crowd.add("127.0.0.2", said=said)
            assert await scene.health() == 1
            assert heard(other) is None
            assert [heard(each) is None for each in opened[3:]] == [False] + [True] * 3
    (fact,) = refused(caplog)
    assert (fact["code"], fact["peer"].rpartition(":")[0]) == ("CONNECTIONS", "127.0.0.1")
    if said == BEGUN:
        assert fact["reason"] == (
            "it had no call for the longest: 4 connections of 127.0.0.1 are open, which is the limit of one address"
        )


async def test_where_all_are_taken_the_one_without_a_call_for_the_longest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that calls is not closed for one more connection: it is the one that has been idle, with a GOAWAY."""
    monkeypatch.setattr(listening, "MOST_CONNECTIONS", 4)
    async with open_door() as scene:
        with crowd_of(scene) as crowd:
            assert await scene.health() == 1
            idle = [await crowd.add(host) for host in ("127.0.0.2", "127.0.0.2", "127.0.0.3")]
            assert await scene.health() == 1  # over the connection that is the oldest
            await crowd.add("127.0.0.4")
            goodbye = heard(idle[0])
            assert goodbye is not None
            assert frame(7, bytes(8) + b"it ends") in goodbye
            assert [heard(each) is None for each in idle[1:]] == [True, True]
            assert await scene.health() == 1


async def test_connections_with_calls_stay_and_one_more_is_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What has a call is closed for nobody: then it is the new connection that is refused, and logged."""
    monkeypatch.setattr(listening, "MOST_CONNECTIONS", 4)
    async with open_door() as scene:
        with crowd_of(scene) as crowd, half_open(scene.port, CHECK, 1) as one, half_open(scene.port, CHECK, 1) as other:
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert heard(await crowd.add()) is not None
            assert heard(one) is None
            assert heard(other) is None
    (fact,) = refused(caplog)
    words = "2 connections of 127.0.0.1 are open, which is the limit of one address"
    assert (fact["code"], fact["reason"]) == ("CONNECTIONS", words)


async def test_the_limit_of_files_is_raised_for_the_connections() -> None:
    """A soft limit of 1,024 files, as most systems have it, does not make 512 connections all that there can be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        async with open_door():
            raised = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert raised == (8000 if hard == resource.RLIM_INFINITY else min(8000, hard), hard)
