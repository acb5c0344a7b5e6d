"""Redis and the API go away and come back while `serve` runs on: nothing is lost, nothing happens twice."""

from __future__ import annotations

import shutil
import signal

import pytest
import trio

from tests.process.bench import Bench, wait_until
from tests.process.together import together


@together
@pytest.mark.parametrize("seconds", [0.0, 0.8])
async def test_redis_is_killed_and_restarted(bench: Bench, seconds: float) -> None:
    """After `kill -9` of Redis (fsync always) all goes on: one line when it is lost and one when it is back, or none
    where it was back at once.
    """
    async with bench.own_valkey() as valkey, bench.place(valkey=valkey) as place, place.serve() as serving:
        place.send(pods=2)
        await place.wait_started(2)
        place.send(pods=2)
        place.send_bad()
        valkey.kill()
        await trio.sleep(seconds)
        if seconds:
            await serving.hear("Redis is lost")
        valkey.start()
        place.send(pods=2)
        place.open_gate()
        await place.judge()
        if seconds:
            await serving.hear("is back")
        await serving.hear("is back", times=len(serving.said("is lost")))
        assert len(serving.said("Redis is lost")) == len(serving.said("Redis is back")) <= 1


@together
async def test_redis_is_away_for_longer_than_the_lease(bench: Bench) -> None:
    """Two replicas and a Redis that was away for twice the lease: each keeps its events, no worker runs twice."""
    async with bench.own_valkey() as valkey, bench.place(valkey=valkey) as place:
        settings = {"MAX_EVENTS": "1", "LEASE_SECONDS": "3"}
        async with place.serve(**settings) as one, place.serve(**settings) as other:
            place.send(pods=2)
            place.send(pods=2)
            await place.wait_started(4)
            valkey.kill()
            await trio.sleep(6)
            valkey.start()
            await trio.sleep(0.5)
            place.open_gate()
            await place.judge()
            for serving in (one, other):
                await serving.hear("is back")
                assert len(serving.said("Redis is lost")) == 1
                assert len(serving.said("Redis is back")) == 1
                await serving.hear("scale_up closed")
                assert serving.said("scale_up adopted") == []


@together
async def test_workers_end_while_redis_is_away(bench: Bench) -> None:
    """Workers that end while Redis is away are recorded when it is back, and only then are their pods deleted."""
    async with bench.own_valkey() as valkey, bench.place(valkey=valkey) as place:
        async with place.serve():
            place.send(pods=2)
            await place.wait_started(2)
            valkey.kill()
            place.open_gate()
            await place.wait_ended(2)
            await trio.sleep(0.5)
            assert len(await place.pods()) == 2
            valkey.start()
            await place.judge()


@together
async def test_redis_comes_back_without_its_last_second(bench: Bench) -> None:
    """With fsync everysec and a machine that crashes: the pods of workers that ended meanwhile are still there, their
    ends are recorded again, and none runs twice.
    """
    async with bench.own_valkey("--appendfsync", "everysec") as valkey, bench.place(valkey=valkey) as place:
        async with place.serve() as serving:
            event_id = await place.start_workers(2)
            place.command("CONFIG", "SET", "appendfsync", "no")  # from now on nothing is surely on the disk
            written, kept = valkey.folder / "appendonlydir", valkey.folder / "kept"
            shutil.copytree(written, kept)
            place.open_gate()
            progress = f"{place.prefix}:progress:{event_id}"
            await wait_until(lambda: place.command("HGET", progress, "ended") == b"2")
            await trio.sleep(0.3)
            assert len(await place.pods()) == 2
            valkey.kill()
            shutil.rmtree(written)
            kept.rename(written)
            valkey.start()
            await serving.hear("Redis had forgotten records")
            await place.judge()


@together
@pytest.mark.parametrize("kind", ["reset_before", "reset_after", "reject"])
async def test_the_api_cuts_every_other_request(bench: Bench, kind: str) -> None:
    """Connections cut before or after a write was carried out, and 503, change no outcome: each worker runs once."""
    async with bench.place() as place, place.serve() as serving:
        faults = [await place.fault(kind, verb, probability=0.3) for verb in ("create", "delete", "list")]
        place.open_gate()
        for _ in range(4):
            place.send(pods=3)
        await place.wait_results(4, 40)
        for fault in faults:  # the judge asks the API, too
            await place.cluster.mend(fault)
        await place.judge()
        await serving.hear("scale_up closed", times=4)


@together
@pytest.mark.parametrize("kind", ["watch_cut", "watch_silent"])
async def test_the_watch_is_cut_or_goes_silent(bench: Bench, kind: str) -> None:
    """What happened while the watch was cut, or silent until it was cut, is found by the next list."""
    async with bench.place() as place, place.serve():
        place.send(pods=2)
        await place.wait_started(2)
        fault = await place.fault(kind, "watch", times=1)
        place.open_gate()
        place.send(pods=1)
        await place.wait_ended(2)
        await place.cluster.mend(fault)
        await place.fault("watch_cut", "watch", times=1)
        await place.judge()


@together
async def test_the_api_is_frozen_for_a_while(bench: Bench) -> None:
    """An API that said nothing for two seconds and goes on costs time only."""
    async with bench.own_cluster() as cluster, bench.place(cluster=cluster) as place, place.serve():
        place.send(pods=2)
        await place.wait_started(2)
        cluster.program.process.send_signal(signal.SIGSTOP)
        place.open_gate()
        place.send(pods=2)
        await trio.sleep(2)
        cluster.program.process.send_signal(signal.SIGCONT)
        await place.judge()
