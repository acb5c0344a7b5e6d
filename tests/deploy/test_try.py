"""The Valkey of deploy/try.yaml: a real one takes its command line, and keeps what it was told through a kill."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis.connection import Connection
from redis.exceptions import RedisError

from ottoscaler.cli.playground import find_free_port
from ottoscaler.stream.wire import ANONYMOUS
from tests.deploy.helm import CHART, objects_of
from tests.stream.servers import DIE_WITH_PARENT, valkey_nine

pytestmark = [pytest.mark.process, pytest.mark.slow_clock]


@contextmanager
def started(folder: Path, port: int) -> Iterator[Connection]:
    """The container's command here, with another folder and port, until it is killed; and a connection to it."""
    deployment = objects_of((CHART.parent / "try.yaml").read_text())["Deployment", "redis-not-for-production"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["valkey-server"]
    arguments = [{"/data": str(folder), "6379": str(port)}.get(word, word) for word in container["args"]]
    process = subprocess.Popen([*DIE_WITH_PARENT, str(valkey_nine()), *arguments], stdout=subprocess.DEVNULL)
    try:
        yield connect(port)
    finally:
        process.kill()
        process.wait()


def connect(port: int) -> Connection:
    """A connection once it answers."""
    give_up = time.monotonic() + 30
    while True:
        connection = Connection(host="127.0.0.1", port=port, protocol=2, socket_timeout=20, **ANONYMOUS)
        try:
            ask(connection, "PING")
            return connection
        except RedisError:
            assert time.monotonic() < give_up, "it does not answer"
            time.sleep(0.02)


def ask(connection: Connection, *words: str) -> object:
    """One command."""
    connection.send_command(*words)
    return connection.read_response()


def test_what_it_accepted_survives_a_kill(tmp_path: Path) -> None:
    """Each write is in the file before its answer: it is there after kill -9 and a new start of the same container."""
    port = find_free_port()
    with started(tmp_path, port) as connection:
        assert ask(connection, "SET", "a", "b") == b"OK"
        connection.disconnect()
    with started(tmp_path, port) as connection:
        assert ask(connection, "GET", "a") == b"b"
        connection.disconnect()
