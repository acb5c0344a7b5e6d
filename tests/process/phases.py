"""The phases of an event, each held where it is: entered when it is reached, and let go at the end of the block."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from tests.process.bench import Place, wait_until

WORKERS = 2


@asynccontextmanager
async def held_idle(place: Place) -> AsyncIterator[None]:
    """Ready, and nothing to do."""
    yield
    place.send(pods=WORKERS)
    place.open_gate()


@asynccontextmanager
async def held_creating(place: Place) -> AsyncIterator[None]:
    """The creates were sent, and the API does not answer."""
    fault = await place.fault("silence", "create")
    place.send(pods=WORKERS)
    await place.cluster.wait_suffered(fault, WORKERS)
    yield
    await place.cluster.mend(fault)
    place.open_gate()


@asynccontextmanager
async def held_creating_late(place: Place) -> AsyncIterator[None]:
    """The creates were sent, and the API carries them out after the process has gone."""
    fault = await place.fault("late", "create", seconds=0.6, times=WORKERS)
    place.send(pods=WORKERS)
    await place.cluster.wait_suffered(fault, WORKERS)
    place.open_gate()
    yield


@asynccontextmanager
async def held_running(place: Place) -> AsyncIterator[None]:
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
async def held_recording(place: Place) -> AsyncIterator[None]:
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
async def held_deleting(place: Place) -> AsyncIterator[None]:
    """The outcomes are recorded, and the API does not answer the deletes."""
    fault = await place.fault("silence", "delete")
    place.open_gate()
    place.send(pods=WORKERS)
    await place.cluster.wait_suffered(fault, WORKERS)
    yield
    await place.cluster.mend(fault)


@asynccontextmanager
async def held_closing(place: Place) -> AsyncIterator[None]:
    """The deletes are answered, and Redis does not answer the close."""
    fault = await place.fault("latency", "delete", seconds=0.3)
    place.open_gate()
    place.send(pods=WORKERS)
    await place.cluster.wait_suffered(fault, WORKERS)
    place.valkey.freeze()
    await wait_until(place.has_no_pods)
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
