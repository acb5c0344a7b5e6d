"""The contract's `backend` and `clock`: the twin under a virtual clock, real servers in real time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.stream.keys import Keys
from tests.stream.backends import Backend, MemoryBackend, RedisBackend
from tests.stream.servers import BINARIES, Server

KINDS = ("memory", *(kind for kind, find in BINARIES.items() if find() is not None))


class RealClock(trio.abc.Clock):
    """Real time, as a fixture that stands where a virtual clock may stand."""

    def start_clock(self) -> None:
        """Nothing to start."""

    def current_time(self) -> float:
        """Seconds of the monotonic clock."""
        return time.monotonic()

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Seconds until a deadline."""
        return deadline - time.monotonic()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """Servers that were needed so far, one of each kind for the whole run."""
    started: dict[str, Server] = {}
    yield started
    for server in started.values():
        server.kill()


def server_of(kind: str, servers: dict[str, Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """The running server of a kind."""
    if kind not in servers:
        binary = BINARIES[kind]()
        assert binary is not None, f"{kind}: no such server is installed here"
        servers[kind] = Server(binary, tmp_path_factory.mktemp(kind), "--appendonly", "no")
    return servers[kind]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which keeper of the stream the test runs against."""
    return str(request.param)


@pytest.fixture
def clock(kind: str) -> trio.abc.Clock:
    """Virtual time for the twin; the rest needs real time, for the autojump clock does not see threads."""
    return MockClock(autojump_threshold=0) if kind == "memory" else RealClock()


@pytest.fixture
def backend(kind: str, servers: dict[str, Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """The keeper."""
    if kind == "memory":
        yield MemoryBackend(Keys("test:events", "ottoscaler"))
        return
    real = RedisBackend(server_of(kind, servers, tmp_path_factory))
    yield real
    real.disconnect()


@pytest.fixture
def valkey(servers: dict[str, Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisBackend]:
    """A real Valkey, for what the twin cannot show."""
    real = RedisBackend(server_of("valkey9", servers, tmp_path_factory))
    yield real
    real.disconnect()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A Valkey of the test's own, to freeze and to kill; it keeps an append-only file."""
    server = start_own(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.kill()


def start_own(folder: Path, *options: str, kind: str = "valkey9") -> Server:
    """A server that nobody else uses."""
    binary = BINARIES[kind]()
    assert binary is not None, f"{kind}: no such server is installed here"
    return Server(binary, folder, *options)


@pytest.fixture
def own(own_server: Server) -> Iterator[RedisBackend]:
    """That Valkey as a keeper of the stream."""
    real = RedisBackend(own_server)
    yield real
    real.disconnect()
