"""Two replicas of one group: they share, replace one another, and never both work on one event."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from ottoscaler.service import IN_FLIGHT
from tests.process.bench import NOISE, Bench, Place, Serving, wait_until
from tests.process.together import together

LEASE = 1.5


@asynccontextmanager
async def two_replicas(bench: Bench) -> AsyncIterator[tuple[Place, Serving, Serving]]:
    """A place, the replica on whose event two workers run, and another that came later."""
    async with bench.place() as place, place.serve() as one:
        await place.start_workers(2)
        async with place.serve() as other:
            yield place, one, other


def begun(serving: Serving) -> int:
    """How many events it has said that it works on."""
    return len(serving.said("scale_up started")) + len(serving.said("scale_up adopted"))


@together
async def test_they_share_events(bench: Bench) -> None:
    """Events go to whoever has room: two replicas of two scalings each work on four events at once."""
    settings = {"MAX_EVENTS": "2", "LEASE_SECONDS": "20"}  # neither loses an event, however long it gets no CPU
    async with bench.place() as place, place.serve(**settings) as one, place.serve(**settings) as other:
        for _ in range(4):
            place.send(pods=2)
        await place.wait_started(8)
        await wait_until(lambda: begun(one) + begun(other) == 4)
        assert (begun(one), begun(other)) == (2, 2)
        place.open_gate()
        await place.judge()


@together
async def test_one_is_killed(bench: Bench) -> None:
    """The other takes a killed one's events over within the lease and a second, and finishes them."""
    async with two_replicas(bench) as (place, one, other):
        await place.start_workers(2)
        await trio.sleep(LEASE)  # a start takes nothing over for one lease
        one.send(signal.SIGKILL)
        begin = time.monotonic()
        await other.hear("scale_up adopted")
        assert time.monotonic() - begin < LEASE + 1 + NOISE
        place.open_gate()
        await place.judge()


@together
async def test_one_is_frozen_and_wakes(bench: Bench) -> None:
    """A replica that was frozen for longer than the lease does nothing any more for what another has taken over."""
    async with two_replicas(bench) as (place, one, other):
        one.send(signal.SIGSTOP)
        await other.hear("scale_up adopted")
        before = {pod["metadata"]["resourceVersion"] for pod in await place.pods()}
        one.send(signal.SIGCONT)
        await trio.sleep(0.7)  # it renews every half second
        assert {pod["metadata"]["resourceVersion"] for pod in await place.pods()} == before
        place.open_gate()
        await place.judge()
        await other.hear("scale_up closed")
        assert one.said("worker ended") == one.said("scale_up closed") == []
        later = place.send()
        place.send()
        await place.judge()
        assert later in {result["event_id"] for result in place.endings()}


@together
async def test_one_is_frozen_in_the_middle_of_creating(bench: Bench) -> None:
    """A replica that wakes with creates still to send sends none of them: its lease is over."""
    async with bench.place() as place, place.serve() as one:
        place.open_gate()
        fault = await place.fault("latency", "create", seconds=3.0, times=IN_FLIGHT)
        place.send(pods=2 * IN_FLIGHT)
        await place.cluster.wait_suffered(fault, IN_FLIGHT)
        one.send(signal.SIGSTOP)
        async with place.serve(CREATE_FENCE_SECONDS="5") as other:  # longer than the creates under way take
            await other.hear("scale_up adopted")
            one.send(signal.SIGCONT)
            await place.judge()
            await other.hear("scale_up closed")
            assert len(one.said("worker created")) <= IN_FLIGHT


@together
async def test_one_wakes_in_the_middle_of_its_ends(bench: Bench) -> None:
    """A replica frozen while its workers end, and woken when another has finished all, adds nothing to it."""
    async with two_replicas(bench) as (place, one, other):
        one.send(signal.SIGSTOP)
        place.open_gate()
        await other.hear("scale_up closed")
        one.send(signal.SIGCONT)
        await trio.sleep(0.7)
        assert one.said("scale_up closed") == []
        await place.judge()


@together
async def test_the_other_handles_the_scale_down(bench: Bench) -> None:
    """A scale_down stops workers whichever replica reads it: they end as terminated, and the rest as they would."""
    async with bench.place() as place, place.serve() as owner:
        up = await place.start_workers(6)
        async with place.serve() as other:
            for number in range(1, 5):
                place.send("scale_down")
                await wait_until(lambda number=number: len(place.endings()) == number)  # type: ignore[misc]  # bound
            await other.hear("scale_down closed")
            assert not other.said("worker ended")
            assert len(place.processes()) == 2
            place.open_gate()
            await place.judge(scale_up="partial")
            (result,) = (each for each in place.endings() if each["event_id"] == up)
            assert (result["succeeded"], result["failed"], result["terminated"]) == ("2", "0", "4")
            await owner.hear("worker ended", "Stopped", times=4)


@together
async def test_a_rollout(bench: Bench) -> None:
    """What a leaving replica hands over, the other goes on with within a second of the hand-over."""
    async with bench.place() as place, place.serve(DRAIN_SECONDS="0") as one:
        for _ in range(3):
            place.send(pods=2)
        await place.wait_started(6)
        async with place.serve() as other:
            begin = time.monotonic()
            one.send(signal.SIGTERM)
            await other.hear("scale_up adopted", times=3)
            assert time.monotonic() - begin < 1 + NOISE
            assert await one.end() < 1 + NOISE
            place.open_gate()
            await place.judge()
