"""SIGTERM in every phase of an event: `serve` leaves in time, the pods stay, and the next start finishes it all."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.process.bench import Bench, Place, Serving
from tests.process.together import together

DRAIN = 0.3
NOISE = 0.4
"""The promise is DRAIN_SECONDS + 1 s on a quiet machine; here four tests share two cores."""
WORKERS = 2


@asynccontextmanager
async def held_idle(place: Place, serving: Serving) -> AsyncIterator[None]:
    """Ready, and nothing to do."""
    yield
    place.send(pods=WORKERS)
    place.open_gate()


@asynccontextmanager
async def held_creating(place: Place, serving: Serving) -> AsyncIterator[None]:
    """The creates were sent, and the API does not answer."""
    fault = await place.fault("silence", "create")
    place.send(pods=WORKERS)
    await place.cluster.wait_suffered(fault, WORKERS)
    yield
    await place.cluster.mend(fault)
    place.open_gate()


@asynccontextmanager
async def held_creating_late(place: Place, serving: Serving) -> AsyncIterator[None]:
    """The creates were sent, and the API carries them out after the process has gone."""
    fault = await place.fault("late", "create", seconds=0.6, times=WORKERS)
    place.send(pods=WORKERS)
    await place.cluster.wait_suffered(fault, WORKERS)
    place.open_gate()
    yield


@asynccontextmanager
async def held_running(place: Place, serving: Serving) -> AsyncIterator[None]:
    """The workers run."""
    place.send(pods=WORKERS)
    await place.wait_started(WORKERS)
    before = {pod["metadata"]["uid"] for pod in await place.pods()}
    yield
    after = await place.pods()
    assert {pod["metadata"]["uid"] for pod in after} == before
    assert all("deletionTimestamp" not in pod["metadata"] for pod in after)
    assert len(place.processes()) == WORKERS
    place.open_gate()


@asynccontextmanager
async def held_recording(place: Place, serving: Serving) -> AsyncIterator[None]:
    """The workers have ended, and Redis does not answer."""
    place.send(pods=WORKERS)
    await place.wait_started(WORKERS)
    place.valkey.freeze()
    place.open_gate()
    await place.wait_ended(WORKERS)
    await trio.sleep(0.2)
    yield
    place.valkey.thaw()


@asynccontextmanager
async def held_deleting(place: Place, serving: Serving) -> AsyncIterator[None]:
    """The outcomes are recorded, and the API does not answer the deletes."""
    fault = await place.fault("silence", "delete")
    place.open_gate()
    place.send(pods=WORKERS)
    await place.cluster.wait_suffered(fault, WORKERS)
    yield
    await place.cluster.mend(fault)


@asynccontextmanager
async def held_closing(place: Place, serving: Serving) -> AsyncIterator[None]:
    """The deletes are answered, and Redis does not answer the close."""
    fault = await place.fault("latency", "delete", seconds=0.3)
    place.open_gate()
    place.send(pods=WORKERS)
    await place.cluster.wait_suffered(fault, WORKERS)
    place.valkey.freeze()
    with trio.fail_after(5):
        while await place.pods():
            await trio.sleep(0.02)
    await trio.sleep(0.1)
    yield
    place.valkey.thaw()
    await place.cluster.mend(fault)


PHASES = {
    "idle": held_idle,
    "creating": held_creating,
    "creating late": held_creating_late,
    "running": held_running,
    "recording": held_recording,
    "deleting": held_deleting,
    "closing": held_closing,
}


@together
@pytest.mark.parametrize("phase", PHASES)
async def test_a_signal_in_every_phase(bench: Bench, phase: str) -> None:
    """SIGTERM ends `serve` with 0 in time, whatever it is doing; the next start finishes, and no worker runs twice."""
    async with bench.own_valkey() as valkey, bench.place(valkey=valkey) as place:
        async with place.serve(DRAIN_SECONDS=str(DRAIN)) as first:
            async with PHASES[phase](place, first):
                first.send(signal.SIGTERM)
                assert await first.end() < DRAIN + 1 + NOISE
        async with place.serve():
            await place.judge()
