"""Poison: an event that breaks its handling, or kills its owners, ends as a dead letter and harms no other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from secrets import token_hex
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.stream.base import Closed, Closing, Registration
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from tests.spine.scaler import Scaler
from tests.spine.world import Plan, World


async def add(server: MemoryServer, **fields: str) -> str:
    """Send an event."""
    return await MemoryStream(server, "producer").add_event(list(fields.items()), token_hex(8))


async def endings(server: MemoryServer) -> tuple[dict[str, str], dict[str, str]]:
    """Event id → status of each result, event id → cause of each dead letter."""
    judge = MemoryStream(server, "judge")
    results = await judge.read_entries("results", "0", 9999, 0.0)
    dead = await judge.read_entries("dlq", "0", 9999, 0.0)
    return {f["event_id"]: f["status"] for _, f in results}, {f["event_id"]: f["cause"] for _, f in dead}


def break_on(*poison: str) -> Callable[[Scaler], None]:
    """A scaler whose pods cannot even be built for some events."""

    def install(scaler: Scaler) -> None:
        site = scaler.rings._site

        def build(event: Any, index: int, attempt: int) -> dict[str, Any]:
            if event.id in poison:
                raise RuntimeError("a bug that only these events meet")
            return site.build_pod(event, index, attempt)

        scaler.rings._site = replace(site, build_pod=build)

    return install


async def test_an_event_that_breaks_its_handling_is_dead_lettered(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """After EVENT_MAX_FAILURES tries it is a dead letter that says so; its neighbour succeeds meanwhile."""
    caplog.set_level(logging.CRITICAL)
    world, server = World(), MemoryServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        poison = await add(server, type="scale_up", pod_count="1")
        healthy = await add(server, type="scale_up", pod_count="1")
        scaler = Scaler(world, server, "one")
        nursery.start_soon(scaler.run, break_on(poison))
        await trio.sleep(60)
        results, dead = await endings(server)
        assert (results, dead) == ({healthy: "succeeded"}, {poison: "HandlingFailed"})
        nursery.cancel_scope.cancel()


async def test_an_event_that_kills_its_owners_is_dead_lettered(autojump_clock: MockClock) -> None:
    """Owners that die with their first look at it count against it, and not against the others they held."""
    world, server = World(lambda labels: Plan(duration=100)), MemoryServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        healthy = [await add(server, type="scale_up", pod_count="1") for _ in range(3)]
        poison = await add(server, type="scale_up", pod_count="1", task_id="poison")
        for number in range(8):
            with trio.CancelScope() as life:

                def deadly(scaler: Scaler, life: trio.CancelScope = life) -> None:
                    begin = scaler.rings._site.ledger.record

                    async def record(claim: Any, **what: Any) -> Any:
                        if claim.event_id == poison:
                            life.cancel(reason="this event kills whoever looks at it")
                            await trio.sleep_forever()
                        return await begin(claim, **what)

                    scaler.rings._site.ledger.record = record  # type: ignore[method-assign]  # the poison
                    adopt = scaler.rings._site.ledger.adopt

                    async def adopting(claim: Any) -> None:
                        if claim.event_id == poison:
                            life.cancel(reason="the same")
                            await trio.sleep_forever()
                        await adopt(claim)

                    scaler.rings._site.ledger.adopt = adopting  # type: ignore[method-assign]  # the poison

                with trio.move_on_after(12):
                    await Scaler(world, server, f"owner-{number}").run(deadly)
        nursery.start_soon(Scaler(world, server, "last").run)
        await trio.sleep(150)
        results, dead = await endings(server)
        assert results == dict.fromkeys(healthy, "succeeded")
        assert dead == {poison: "HandlingFailed"}
        nursery.cancel_scope.cancel()


async def test_kills_over_one_long_worker_cost_it_nothing(autojump_clock: MockClock) -> None:
    """An event whose owner is killed again and again while its worker runs is never held to be poison."""
    world, server = World(lambda labels: Plan(duration=100)), MemoryServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        event_id = await add(server, type="scale_up", pod_count="1")
        for number in range(9):
            with trio.move_on_after(8):
                await Scaler(world, server, f"owner-{number}").run()
        nursery.start_soon(Scaler(world, server, "last").run)
        await trio.sleep(120)
        assert await endings(server) == ({event_id: "succeeded"}, {})
        assert len(world.runs) == 1
        nursery.cancel_scope.cancel()


async def test_many_poison_events_hold_up_no_healthy_one(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Beside 1,000 events that break their handling, healthy ones take as long as alone; the others are buried."""
    caplog.set_level(logging.CRITICAL)
    world, server = World(lambda labels: Plan(duration=0.5)), MemoryServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        poison = {await add(server, type="scale_up", pod_count="1") for _ in range(1000)}
        scaler = Scaler(world, server, "one", max_events="2000")
        nursery.start_soon(scaler.run, break_on(*poison))
        await trio.sleep(5)
        waits, judge = [], MemoryStream(server, "judge")
        for _ in range(20):
            begun = trio.current_time()
            healthy = await add(server, type="scale_up", pod_count="1")
            while await judge.read_ending(healthy) is None:  # noqa: ASYNC110 - the clock is virtual
                await trio.sleep(0.1)
            waits.append(trio.current_time() - begun)
            await trio.sleep(1)
        assert max(waits) < 3
        await trio.sleep(1200)
        _, dead = await endings(server)
        assert dead == dict.fromkeys(poison, "HandlingFailed")
        nursery.cancel_scope.cancel()


async def test_who_waits_for_a_worker_of_poison_is_told(autojump_clock: MockClock) -> None:
    """A scale_down that chose a worker of an event which ends as a dead letter ends, too, and counts it as failed."""
    world, server = World(), MemoryServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        holder = MemoryStream(server, "holder")
        era = await holder.open_group("0", "otto")
        await holder.renew(30.0, era.id)
        poison = await add(server, type="scale_up", pod_count="1")
        await holder.read(1, 1.0)
        pairs = (("type", "scale_up"), ("pod_count", "1"))
        assert await holder.register([Registration(poison, "work", pairs, "", 1)]) == [1]
        server.progress[poison]["failures"] = "3"
        nursery.start_soon(Scaler(world, server, "one").run)
        down = await add(server, type="scale_down", pod_count="1")
        await trio.sleep(10)
        assert "s:1" in server.progress[poison]
        await trio.sleep(60)
        assert await endings(server) == ({down: "partial"}, {poison: "HandlingFailed"})
        nursery.cancel_scope.cancel()


async def test_who_asks_for_a_worker_of_poison_in_its_last_moment_is_told(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A scale_down that marks a worker while the dead letter is on its way does not wait for it for ever."""
    caplog.set_level(logging.CRITICAL)
    world, server = World(), MemoryServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        poison = await add(server, type="scale_up", pod_count="1")
        downs: list[str] = []

        def install(scaler: Scaler) -> None:
            break_on(poison)(scaler)
            close = scaler.stream.close

            async def close_late(closing: Closing) -> Closed:
                if closing.event_id == poison:
                    downs.append(await add(server, type="scale_down", pod_count="1"))
                    await trio.sleep(5)
                    assert "s:1" in server.progress[poison]
                return await close(closing)

            scaler.stream.close = close_late  # type: ignore[method-assign]  # the last moment, made longer

        nursery.start_soon(Scaler(world, server, "one", event_max_failures="1").run, install)
        await trio.sleep(60)
        assert await endings(server) == (dict.fromkeys(downs, "partial"), {poison: "HandlingFailed"})
        nursery.cancel_scope.cancel()
