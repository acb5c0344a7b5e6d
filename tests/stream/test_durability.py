"""When a record is durable, by what the server is and how it was set up."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import trio

from ottoscaler.errors import Unavailable
from ottoscaler.stream.base import Closing
from ottoscaler.stream.durability import BLIND_WAIT
from tests.stream.backends import RedisBackend
from tests.stream.conftest import start_own
from tests.stream.servers import BINARIES, Server
from tests.stream.steps import begin, claim, open_session

pytestmark = pytest.mark.slow_clock
KINDS = [kind for kind, find in BINARIES.items() if find() is not None]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fsync", ["always", "everysec", "no", ""])
async def test_the_wait_fits_the_server(tmp_path: Path, kind: str, fsync: str) -> None:
    """Nothing to wait for without a file, with `always` and with `no`; else WAITAOF, or 3 s where it is unknown."""
    options = ("--appendonly", "yes", "--appendfsync", fsync) if fsync else ("--appendonly", "no")
    server = start_own(tmp_path, *options, kind=kind)
    backend = RedisBackend(server)
    try:
        one, _ = await open_session(backend, "one")
        report = await one.report()
        assert (report.append_only, report.fsync) == (bool(fsync), fsync or "everysec")
        assert (fsync or "no append-only file") in report.promise
        is_blind = kind != "valkey9" and fsync == "everysec"
        began = trio.current_time()
        with trio.move_on_after(0.3 if is_blind else 20) as patience:
            await one.wait_durable()
        assert patience.cancelled_caught is is_blind
        assert fsync == "everysec" or trio.current_time() - began < BLIND_WAIT - 0.5
        assert has_asked(server) is (fsync == "everysec" and not is_blind)
    finally:
        backend.disconnect()
        server.kill()


def has_asked(server: Server) -> bool:
    """Whether the server was asked by WAITAOF."""
    return b"cmdstat_waitaof:" in server.command("INFO", "commandstats")


async def test_what_was_awaited_survives_a_kill(tmp_path: Path) -> None:
    """With everysec, a result that was waited for is there after `kill -9` of the server."""
    server = start_own(tmp_path, "--appendonly", "yes", "--appendfsync", "everysec")
    backend = RedisBackend(server)
    try:
        one, _ = await open_session(backend, "one")
        for _ in range(3):
            event_id = await begin(backend, one)
            await one.close(Closing(event_id, "results", (("event_id", event_id),), claim(event_id, "one")))
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(one.wait_durable)
        server.restart()
        assert len(await one.read_entries("results", "0", 10, 0)) == 3
    finally:
        backend.disconnect()
        server.kill()


async def test_a_restart_is_known_when_the_wait_is_over(tmp_path: Path) -> None:
    """Whatever the server promises: who waits after a crash knows that there may have been one, and only then."""
    for fsync in ("always", "everysec"):
        folder = tmp_path / fsync
        folder.mkdir()
        server = start_own(folder, "--appendonly", "yes", "--appendfsync", fsync)
        backend = RedisBackend(server)
        try:
            one, _ = await open_session(backend, "one")
            before = one.restarts
            await one.wait_durable()
            assert one.restarts == before
            server.restart()
            while True:
                with suppress(Unavailable):
                    await one.wait_durable()
                    break
            assert one.restarts > before
        finally:
            backend.disconnect()
            server.kill()


async def test_a_restart_is_known_after_a_blind_wait(own: RedisBackend) -> None:
    """Where nobody is asked for three seconds, the server is asked once behind them."""
    own.server.command("CONFIG", "SET", "appendfsync", "everysec", "appendonly", "yes")
    own.server.command("ACL", "SETUSER", "default", "-waitaof")
    one, _ = await open_session(own, "one")
    before = one.restarts
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.wait_durable)
        await trio.sleep(BLIND_WAIT / 2)
        assert one.restarts == before
        own.server.restart()
    assert one.restarts > before


async def test_waits_share_rounds(own: RedisBackend) -> None:
    """Whoever asks while a round runs is answered by the one after it, together with all others: two rounds in all."""
    own.server.command("CONFIG", "SET", "appendfsync", "everysec")
    one, _ = await open_session(own, "one")
    await one.wait_durable()
    own.server.command("CONFIG", "RESETSTAT")
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(one.wait_durable)
    stats = own.server.command("INFO", "commandstats").decode()
    [line] = [line for line in stats.splitlines() if line.startswith("cmdstat_waitaof:")]
    assert int(line.partition("calls=")[2].partition(",")[0]) <= 4


async def test_a_user_without_config_get_waits_all_the_same(own: RedisBackend) -> None:
    """Where the policy is not to be seen, WAITAOF still tells, and the promise says that it is unknown."""
    own.server.command("ACL", "SETUSER", "default", "-config|get")
    one, _ = await open_session(own, "one")
    report = await one.report()
    assert report.fsync is None
    assert "unknown" in report.promise
    with trio.fail_after(20):
        await one.wait_durable()
    assert has_asked(own.server)
