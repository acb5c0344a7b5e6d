"""The drain always ends: whatever Redis and the API do, however long it may take, and how often one asks."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from ottoscaler.cli.programs import Program
from tests.process.bench import NOISE, Bench, Cluster, Place, Serving
from tests.process.together import together
from tests.stream.servers import Server

DRAIN = 0.3
"""The promise is an end within DRAIN_SECONDS + 1 s."""


@asynccontextmanager
async def frozen(who: str, valkey: Server, cluster: Cluster) -> AsyncIterator[None]:
    """Redis, the API or both accept connections and stay silent, while the block runs."""
    stop(who, valkey, cluster.program, signal.SIGSTOP)
    try:
        yield
    finally:
        stop(who, valkey, cluster.program, signal.SIGCONT)


def stop(who: str, valkey: Server, cluster: Program, number: signal.Signals) -> None:
    """Send SIGSTOP or SIGCONT to those concerned."""
    if "redis" in who:
        (valkey.freeze if number == signal.SIGSTOP else valkey.thaw)()
    if "api" in who:
        cluster.process.send_signal(number)


@asynccontextmanager
async def place_of_its_own(bench: Bench, who: str) -> AsyncIterator[Place]:
    """A place on servers that may be frozen."""
    async with bench.own_valkey() as valkey:
        if "api" not in who:
            async with bench.place(valkey=valkey) as place:
                yield place
            return
        async with bench.own_cluster() as cluster, bench.place(valkey=valkey, cluster=cluster) as place:
            yield place


SILENT = ("redis", "api", "redis and api")


@together
@pytest.mark.parametrize("who", SILENT)
async def test_silence_while_workers_run(bench: Bench, who: str) -> None:
    """With Redis or the API silent a drain ends in time with 0; the pods run on, and the next start finishes."""
    async with place_of_its_own(bench, who) as place:
        async with place.serve(DRAIN_SECONDS=str(DRAIN)) as first:
            await place.start_workers(2)
            async with frozen(who, place.valkey, place.cluster):
                await trio.sleep(0.2)
                first.send(signal.SIGTERM)
                assert await first.end() < DRAIN + 1 + NOISE
                assert len(place.processes()) == 2
        await place.finish()


@together
@pytest.mark.parametrize("who", SILENT)
async def test_silence_while_it_has_to_write(bench: Bench, who: str) -> None:
    """With creates and events under way into a silent Redis or API a drain ends in time, and nothing runs twice."""
    async with place_of_its_own(bench, who) as place:
        async with place.serve(DRAIN_SECONDS=str(DRAIN)) as first:
            for _ in range(3):
                place.send(pods=2)
            async with frozen(who, place.valkey, place.cluster):
                await trio.sleep(0.2)
                first.send(signal.SIGTERM)
                assert await first.end() < DRAIN + 1 + NOISE
        await place.finish()


@together
@pytest.mark.parametrize("who", SILENT[:2])
async def test_silence_from_the_start(bench: Bench, who: str) -> None:
    """A `serve` that still waits for a silent Redis or API ends in time with 0."""
    async with place_of_its_own(bench, who) as place:
        place.send()
        place.open_gate()
        async with frozen(who, place.valkey, place.cluster):
            async with place.start(DRAIN_SECONDS=str(DRAIN)) as first:
                await trio.sleep(0.8)
                first.send(signal.SIGTERM)
                assert await first.end() < DRAIN + 1 + NOISE
        async with place.serve():
            await place.judge()


async def begin(place: Place, first: Serving) -> None:
    """One event whose two workers run, and then SIGTERM."""
    await place.start_workers(2)
    first.send(signal.SIGTERM)
    await first.hear("drain begins")


@together
async def test_a_second_signal(bench: Bench) -> None:
    """A second signal makes the deadline now: `serve` ends within a second, and its workers run on."""
    async with bench.place() as place:
        async with place.serve(DRAIN_SECONDS="60") as first:
            await begin(place, first)
            await trio.sleep(0.2)
            assert first.program.process.poll() is None
            first.send(signal.SIGTERM)
            assert await first.end() < 1 + NOISE
        assert len(place.processes()) == 2
        await place.finish()


@together
async def test_no_time_at_all(bench: Bench) -> None:
    """DRAIN_SECONDS=0 gives work no time: `serve` ends within a second, and its workers run on."""
    async with bench.place() as place:
        async with place.serve(DRAIN_SECONDS="0") as first:
            await begin(place, first)
            assert await first.end() < 1 + NOISE
        assert len(place.processes()) == 2
        await place.finish()


@together
async def test_time_enough(bench: Bench) -> None:
    """A long DRAIN_SECONDS waits for the workers and no longer, and no new event is worked on meanwhile: one that is
    delivered in the very instant of the drain's begin is left to the next.
    """
    async with bench.place() as place:
        async with place.serve(DRAIN_SECONDS="60") as first:
            await begin(place, first)
            late = place.send()
            await trio.sleep(0.5)
            assert first.program.process.poll() is None
            place.open_gate()
            assert await first.end() < 1 + NOISE
            assert late not in {result["event_id"] for result in place.endings()}
            assert len(place.endings()) == 1
        async with place.serve():
            await place.judge()
