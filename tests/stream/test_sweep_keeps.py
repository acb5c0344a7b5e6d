"""What a sweep must not take for gone: an event whose entry was trimmed, a consumer that still has entries."""

import pytest
import trio

from tests.stream.backends import Backend, RedisBackend
from tests.stream.steps import PAIRS, lose, open_session, take

pytestmark = pytest.mark.slow_clock


async def test_an_event_whose_entry_was_trimmed_is_known(backend: Backend, clock: trio.abc.Clock) -> None:
    """Held, and on some servers pending for nobody since its take-over, it is in progress: its pods are no orphans."""
    one, _ = await open_session(backend, "one")
    event_id = await lose(backend)
    assert [progress.event_id for progress in await take(one, expire=True)] == [event_id]
    assert await one.sweep([event_id]) == {event_id}


async def test_only_consumers_without_entries_are_removed(
    valkey: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that is long gone goes; with an entry pending it stays, for removing it would lose the entry."""
    monkeypatch.setattr("ottoscaler.stream.redis.HOUR_MS", -1)
    one, _ = await open_session(valkey, "one")
    event_id = valkey.add(*PAIRS)
    for name in ("idle", "busy"):
        valkey.server.command("XGROUP", "CREATECONSUMER", valkey.keys.stream, valkey.keys.group, name)
    valkey.server.command("XREADGROUP", "GROUP", valkey.keys.group, "busy", "STREAMS", valkey.keys.stream, ">")
    await one.sweep([])
    found = valkey.server.command("XINFO", "CONSUMERS", valkey.keys.stream, valkey.keys.group)
    assert [consumer[1] for consumer in found] == [b"busy"]
    assert valkey.pending() == {event_id}
