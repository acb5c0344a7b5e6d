"""Outages as a replica tells of them, from the fault to the screen."""

from __future__ import annotations

from collections import Counter

import trio
from trio.testing import MockClock

from ottoscaler.cli.status import look
from ottoscaler.errors import Unavailable
from ottoscaler.settings import Settings, load_settings
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from tests.spine.scaler import Scaler
from tests.spine.world import World

STARTED = 1_760_000_000.0


async def workers(settings: Settings, namespace: str) -> Counter[str]:
    """An API without workers."""
    return Counter()


async def test_a_replica_tells_of_an_api_that_is_away(autojump_clock: MockClock) -> None:
    """While its watch is not alive, everybody who asks for the status sees since when and why; afterwards nothing."""
    server = MemoryServer(started_at=STARTED)
    seen: list[list[dict[str, object]]] = []

    async def see() -> None:
        stream = MemoryStream(server, "cli")
        facts = await look(stream, load_settings({}), workers, lambda: server.now() / 1000)
        seen.append(facts["outages"])

    async with trio.open_nursery() as nursery:
        world = World()
        await nursery.start(world.run)
        scaler = Scaler(world, server, "one")
        nursery.start_soon(scaler.run)
        await trio.sleep(5)
        await see()
        refused = Unavailable("https://world: connection refused")
        scaler.kube.fail = lambda verb, name: refused if verb in ("list", "watch") else None
        scaler.kube.cut_watch()
        await trio.sleep(60)
        await see()
        await trio.sleep(60)
        await see()
        scaler.kube.fail = lambda verb, name: None
        await trio.sleep(60)
        await see()
        nursery.cancel_scope.cancel(reason="the test is over")
    assert (seen[0], seen[3]) == ([], [])
    (outage,), (later,) = seen[1], seen[2]
    assert (outage["what"], outage["session"]) == ("api", "one")
    assert "connection refused" in str(outage["reason"])
    assert 30 < float(str(outage["seconds"])) <= 61
    assert float(str(later["seconds"])) - float(str(outage["seconds"])) == 60
