"""The taking loop: what it was lent is looked after once, however long that takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.stream.base import Candidate, Claim, Closing, Fence, Registration, Tending
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from ottoscaler.stream.progress import Progress
from tests.spine.scaler import Scaler
from tests.spine.stage import INSTANCE, NAMESPACE
from tests.spine.world import Plan, World, lost

UP = (("type", "scale_up"), ("pod_count", "1"))


def put_finished(world: World, name: str, instance: str, era: str) -> str:
    """A finished pod of this name, from nowhere; returns its uid."""
    labels = {"ottoscaler/instance": instance, "ottoscaler/era": era}
    metadata = {"name": name, "uid": f"of-{name}-{world.version}", "labels": labels}
    world._publish("ADDED", {"metadata": metadata, "status": {"phase": "Failed"}})
    return str(metadata["uid"])


async def test_a_due_fence_is_deleted_by_one_task_while_the_api_is_away(autojump_clock: MockClock) -> None:
    """A fence is lent again every 10 s while its pod cannot be deleted; the tries do not add up."""
    world, server = World(), MemoryServer()
    producer = MemoryStream(server, "producer")
    era = await producer.open_group("0", NAMESPACE)
    await producer.add_event([("type", "nonsense")], "token")
    (entry,) = await producer.read(1, 1.0)
    uid = put_finished(world, "otto-agent-1-1-0", INSTANCE, era.id)
    await producer.close(Closing(entry.id, "dlq", (), fences=(Fence("otto-agent-1-1-0", uid, 1),)))
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        scaler = Scaler(world, server, "only")
        scaler.kube.fail = lambda verb, name: lost(verb) if verb == "delete" else None
        nursery.start_soon(scaler.run)
        await trio.sleep(200)
        tries = len(world.writes)
        await trio.sleep(20)
        assert 10 <= len(world.writes) - tries <= 30
        scaler.kube.fail = lambda verb, name: None
        await trio.sleep(20)
        assert await producer.list_fences() == []
        nursery.cancel_scope.cancel(reason="the test is over")


@asynccontextmanager
async def open_play() -> AsyncIterator[Scaler]:
    """A scaler named "one" that starts now, with workers that run for long and a lease of 10 s."""
    world, server = World(lambda labels: Plan(duration=9999)), MemoryServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        scaler = Scaler(world, server, "one", lease_seconds="10")
        nursery.start_soon(scaler.run)
        yield scaler
        nursery.cancel_scope.cancel(reason="the test is over")


async def read_as_another(server: MemoryServer, session: str, count: int = 1) -> list[str]:
    """Entries that another process reads, and registers not."""
    stream = MemoryStream(server, session)
    era = await stream.open_group("0", NAMESPACE)
    await stream.renew(10.0, era.id)
    ids = [server.add_entry(UP) for _ in range(count)]
    server.events.deliver(server.keys.group, session, count)
    return ids


async def hold_as_another(server: MemoryServer, session: str) -> str:
    """An event that another process holds."""
    (event_id,) = await read_as_another(server, session)
    assert await MemoryStream(server, session).register([Registration(event_id, "work", UP, "", 1)]) == [1]
    return event_id


async def test_it_looks_half_as_often_while_there_is_no_event(autojump_clock: MockClock) -> None:
    """Every half second where nobody has one, every quarter where another does: it may be offered at any time."""
    async with open_play() as scaler:
        looks = 0
        tend = scaler.stream.tend

        async def count(*args: Any, **kwargs: Any) -> Tending:
            nonlocal looks
            looks += 1
            return await tend(*args, **kwargs)

        scaler.stream.tend = count  # type: ignore[method-assign]  # to see how often it is asked
        await trio.sleep(20)
        idle, looks = looks, 0
        await hold_as_another(scaler.stream._server, "other")
        await MemoryStream(scaler.stream._server, "other").renew(3600.0, "")
        await trio.sleep(20)
        assert (round(idle / 10), round(looks / 10)) == (4, 8)


async def test_nobody_is_declared_dead_by_a_newcomer(autojump_clock: MockClock) -> None:
    """For one lease after its start a replica takes nothing from a silent owner, and then it does."""
    async with open_play() as scaler:
        server = scaler.stream._server
        event_id = await hold_as_another(server, "other")
        server.sessions["other"] = 0
        await trio.sleep(9)
        assert server.progress[event_id]["owner"] == "other"
        await trio.sleep(2)
        assert server.progress[event_id]["owner"] == "one"


async def test_nobody_is_declared_dead_by_who_was_cut_off_itself(autojump_clock: MockClock) -> None:
    """For one lease after an outage that a replica saw it takes nothing from a silent owner, and then it does."""
    async with open_play() as scaler:
        server = scaler.stream._server
        event_id = await hold_as_another(server, "other")
        for _ in range(5):
            await trio.sleep(5)
            await MemoryStream(server, "other").renew(10.0, server.era.id if server.era else "")
        server.weather = "refusing"
        await trio.sleep(30)
        server.weather = "fine"
        await trio.sleep(9.5)
        assert server.progress[event_id]["owner"] == "other"
        await trio.sleep(5)
        assert server.progress[event_id]["owner"] == "one"


async def test_entries_that_a_dead_process_had_read_are_worked_on(autojump_clock: MockClock) -> None:
    """What was delivered to a session and never registered is begun by whoever declares it dead, each once."""
    async with open_play() as scaler:
        server = scaler.stream._server
        ids = await read_as_another(server, "other", 3)
        begun = await count_begun(scaler)
        await trio.sleep(25)
        assert begun == Counter(ids)
        assert {progress["owner"] for progress in server.progress.values()} == {"one"}
        assert "other" not in server.sessions


async def count_begun(scaler: Scaler) -> Counter[str]:
    """How often the handler begins each event from now on, which is when the scaler is there."""
    await trio.sleep(1)
    handler, begun = scaler.rings._handler, Counter[str]()
    assert handler is not None
    begin = handler._begin

    def count(progress: Progress) -> None:
        begun[progress.event_id] += 1
        begin(progress)

    handler._begin = count  # type: ignore[method-assign]  # to see what comes
    return begun


async def hand_over_as_another(server: MemoryServer, session: str) -> str:
    """An event that another process has just offered."""
    event_id = await hold_as_another(server, session)
    await MemoryStream(server, session).offer([Claim(event_id, session, 1)], clean=[True])
    return event_id


def crash_after_next(scaler: Scaler, is_it: Callable[[Tending], bool]) -> None:
    """Let a bug meet the loop with the answer in its hand that `is_it`."""
    tend = scaler.stream.tend

    async def crash(*args: Any, **kwargs: Any) -> Tending:
        tending = await tend(*args, **kwargs)
        if is_it(tending):
            scaler.stream.tend = tend  # type: ignore[method-assign]  # once
            raise ValueError("a bug")
        return tending

    scaler.stream.tend = crash  # type: ignore[method-assign]  # a bug, once


async def test_events_that_a_crash_dropped_are_found_again_at_once(autojump_clock: MockClock) -> None:
    """A loop that broke with taken events in its hand finds them at its new start, and begins nothing else again:
    not what runs, not what is being registered.
    """
    async with open_play() as scaler:
        server = scaler.stream._server
        begun = await count_begun(scaler)
        running = [server.add_entry(UP) for _ in range(3)]
        server.wake()
        await trio.sleep(1)
        crash_after_next(scaler, lambda tending: bool(tending.taken))
        dropped = [await hand_over_as_another(server, f"other {number}") for number in range(3)]
        register = scaler.stream.register

        async def answer_slowly(registrations: Sequence[Registration]) -> list[int]:
            epochs = await register(registrations)
            await trio.sleep(1.5)
            return epochs

        scaler.stream.register = answer_slowly  # type: ignore[method-assign]  # one that is under way at the restart
        fresh = server.add_entry(UP)
        await trio.sleep(1)
        assert scaler.rings._supervisor.crashes == {"taker": 1}
        assert begun == Counter([*running, *dropped])
        await trio.sleep(30)
        assert begun == Counter([*running, *dropped, fresh])


async def test_events_that_nobody_here_knows_are_found_within_a_lease(autojump_clock: MockClock) -> None:
    """An event that is ours in Redis alone is begun, once, however slowly Redis answers what is asked of it."""
    async with open_play() as scaler:
        server = scaler.stream._server
        begun = await count_begun(scaler)
        await trio.sleep(20)
        held, asked = scaler.stream.held, list[frozenset[str]]()

        async def answer_slowly() -> frozenset[str]:
            asked.append(await held())
            await trio.sleep(3)
            return asked[-1]

        scaler.stream.held = answer_slowly  # type: ignore[method-assign]  # a Redis that takes its time
        event_id = await hold_as_another(server, "one")
        fresh = server.add_entry(UP)
        server.wake()
        await trio.sleep(60)
        assert len(asked) > 3
        assert begun == Counter([event_id, fresh])


@pytest.mark.parametrize("crashes", [0, 1])
async def test_a_stop_that_another_process_asked_for_is_heeded_at_once(crashes: int, autojump_clock: MockClock) -> None:
    """A notice reaches the work on its event; a loop that broke with one in its hand lets every event look again at
    its new start.
    """
    async with open_play() as scaler:
        server = scaler.stream._server
        await trio.sleep(1)
        up = server.add_entry(UP)
        server.wake()
        await trio.sleep(1)
        if crashes:
            crash_after_next(scaler, lambda tending: bool(tending.notices))
        asker = MemoryStream(server, "asker")
        (down,) = await read_as_another(server, "asker")
        await asker.register([Registration(down, "control", UP, "", 1)])
        await asker.mark_victims(Claim(down, "asker", 1), 1, [Candidate(up, 1, "")], last=True)
        await trio.sleep(4)
        assert scaler.rings._supervisor.crashes["taker"] == crashes
        assert (await asker.read_ending(up) or ("", {}))[1].get("status") == "terminated"


async def test_due_fences_are_deleted_and_then_forgotten(autojump_clock: MockClock) -> None:
    """Each finished pod that was kept as a fence is deleted, once, before Redis forgets it; one that is not due
    stays.
    """
    async with open_play() as scaler:
        server, world = scaler.stream._server, scaler.kube._world
        await trio.sleep(1)
        names = ["fence-1", "fence-2", "fence-3"]
        for name in names:
            uid = put_finished(world, name, INSTANCE, scaler.rings._site.era)
            server.fences[name, uid] = server.now() + (10**7 if name == "fence-3" else 0)
        forgotten: list[list[str]] = []
        drop = scaler.stream.drop_fences

        async def note(fences: Sequence[Fence]) -> None:
            forgotten.append(sorted(world.pods))
            await drop(fences)

        scaler.stream.drop_fences = note  # type: ignore[method-assign]  # to see what is there by then
        await trio.sleep(2)
        assert sorted(world.writes) == [("delete", "fence-1"), ("delete", "fence-2")]
        assert (sorted(world.pods), forgotten) == (["fence-3"], [["fence-3"]])
        assert list(server.fences) == [("fence-3", uid)]


async def test_a_fence_that_comes_back_is_deleted_again(autojump_clock: MockClock) -> None:
    """A name that was a fence once can be one again."""
    async with open_play() as scaler:
        server = scaler.stream._server
        await trio.sleep(1)
        for _ in range(2):
            uid = put_finished(scaler.kube._world, "fence-1", INSTANCE, scaler.rings._site.era)
            server.fences["fence-1", uid] = server.now()
            await trio.sleep(2)
            assert not server.fences
        assert scaler.kube._world.writes == [("delete", "fence-1")] * 2
