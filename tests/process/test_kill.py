"""`kill -9` and what comes after: whoever starts next, or is there already, goes on exactly where it ended."""

from __future__ import annotations

import time

import pytest
import trio

from tests.process.bench import NOISE, Bench, Place
from tests.process.phases import PHASES
from tests.process.together import together

LEASE = 1.5
TAKEOVER = LEASE + 1.0
"""Adoption comes within the lease and a second."""


async def uids(place: Place) -> set[str]:
    """Which pods there are."""
    return {pod["metadata"]["uid"] for pod in await place.pods()}


@together
@pytest.mark.parametrize("name", ["same-name", "other-name"])
async def test_a_killed_one_is_replaced(bench: Bench, name: str) -> None:
    """After `kill -9` a new start, whatever its name, adopts within lease + 1 s: no second pod, one result."""
    async with bench.place() as place:
        async with place.serve(REDIS_CONSUMER="same-name") as first:
            place.send(pods=3)
            await place.wait_started(3)
            await first.hear("worker created")
            before = await uids(place)
            await first.kill()
        async with place.serve(REDIS_CONSUMER=name) as second:
            begin = time.monotonic()
            await second.hear("scale_up adopted")
            assert time.monotonic() - begin < TAKEOVER + NOISE
            assert await uids(place) == before
            place.open_gate()
            await place.judge()
            await second.hear("scale_up closed")


@together
@pytest.mark.parametrize("phase", ["creating", "creating late", "recording", "deleting", "closing"])
async def test_a_kill_in_every_phase(bench: Bench, phase: str) -> None:
    """`kill -9` in any phase loses nothing: the next start finishes the event, and no worker runs twice."""
    async with bench.own_valkey() as valkey, bench.place(valkey=valkey) as place:
        async with place.serve() as first:
            async with PHASES[phase](place):
                await first.kill()
        async with place.serve():
            await place.judge()


@together
async def test_many_kills(bench: Bench) -> None:
    """Killed again and again at odd moments, the starts run each worker once and give each event one result."""
    async with bench.place() as place:
        for pause in (0.03, 0.1, 0.2):
            async with place.serve(LEASE_SECONDS="0.5") as serving:
                place.send(pods=3)
                place.send_bad()
                place.send(pods=1)
                await trio.sleep(pause)
                await serving.kill()
        place.open_gate()
        async with place.serve(LEASE_SECONDS="0.5"):
            await place.judge()
