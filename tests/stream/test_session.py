"""The lease of a process, over the twin and a clock that can jump as a frozen process's does."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.errors import Unavailable, WritesSuspended
from ottoscaler.stream.base import Renewal, Stream
from ottoscaler.stream.keys import Keys
from ottoscaler.stream.memory import MemoryServer
from ottoscaler.stream.session import Session
from tests.spine.forgetting import CrashingRedis, CrashingStream
from tests.stream.backends import MemoryBackend
from tests.stream.steps import begin, claim, open_session, take

LEASE = 3.0


class Freezer:
    """A monotonic clock that can be ahead of Trio's: a process that was stopped sees time jump."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return trio.current_time() + self.ahead


class World:
    """One process's session on the twin, what it believes it holds, and what it heard that it lost."""

    def __init__(self, backend: MemoryBackend, stream: Stream, era: str) -> None:
        self.backend, self.stream = backend, stream
        self.believed: set[str] = set()
        self.lost: list[frozenset[str]] = []
        self.valid_when_told: list[bool] = []
        self.clock = Freezer()
        self.session = Session(
            stream,
            LEASE,
            era,
            believed=lambda: frozenset(self.believed),
            on_lost=self.lose,
            clock=self.clock,
        )

    def lose(self, ids: frozenset[str]) -> None:
        """Hear of a loss."""
        self.lost.append(ids)
        self.valid_when_told.append(self.session.is_valid())

    async def hold(self) -> str:
        """Begin one event."""
        event_id = await begin(self.backend, self.stream)
        self.believed.add(event_id)
        return event_id


@asynccontextmanager
async def running() -> AsyncIterator[World]:
    """A session that renews itself inside."""
    backend = MemoryBackend(Keys("test:events", "ottoscaler"))
    stream = backend.open("one")
    era = await stream.open_group("0", "default")
    world = World(backend, stream, era.id)
    async with trio.open_nursery() as nursery:
        await nursery.start(world.session.run)
        yield world
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_lease_holds_while_redis_answers(autojump_clock: MockClock) -> None:
    """Started means valid; before that nothing may be written."""
    backend = MemoryBackend(Keys("test:events", "ottoscaler"))
    stream = backend.open("one")
    era = await stream.open_group("0", "default")
    session = Session(stream, LEASE, era.id)
    assert not session.is_valid()
    with pytest.raises(WritesSuspended):
        session.check()
    async with trio.open_nursery() as nursery:
        await nursery.start(session.run)
        for _ in range(50):
            session.check()
            await trio.sleep(0.7)
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_each_restart_is_told_of_once_redis_is_back(autojump_clock: MockClock) -> None:
    """Redis may have forgotten what is held: that is told behind the renewal that finds out, once for each restart."""
    server, told = MemoryServer(), list[bool]()
    redis = CrashingRedis(server)
    stream = CrashingStream(server, "one", redis)
    era = await stream.open_group("0", "default")
    session = Session(stream, LEASE, era.id, on_restart=lambda: told.append(session.is_valid()))
    async with trio.open_nursery() as nursery:
        await nursery.start(session.run)
        for count in range(3):
            await trio.sleep(2 * LEASE)
            assert told == [True] * count
            redis.lose_from_now()
            redis.crash()
            await trio.sleep(LEASE)
            assert told == [True] * count
            server.weather = "fine"
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_writes_end_one_lease_after_the_last_renewal_was_sent(autojump_clock: MockClock) -> None:
    """Silence of Redis suspends writes when the lease is over, and the next renewal ends it at once."""
    async with running() as world:
        await trio.sleep(0.5)
        world.backend.server.weather = "refusing"
        await trio.sleep(2.4)
        world.session.check()
        await trio.sleep(0.2)
        with pytest.raises(WritesSuspended, match="lease has run out"):
            world.session.check()
        world.backend.server.weather = "fine"
        began = trio.current_time()
        await world.session.wait_valid()
        assert trio.current_time() - began <= LEASE / 3
        world.session.check()
        assert world.lost == []


async def test_a_slow_answer_makes_the_lease_no_longer(autojump_clock: MockClock) -> None:
    """The lease runs from when the renewal was sent: Redis may have counted from then."""
    async with running() as world:
        renew = world.stream.renew

        async def renew_slowly(lease_seconds: float, era: str, outages: str = "") -> Renewal:
            renewal = await renew(lease_seconds, era)
            await trio.sleep(0.9)
            return renewal

        world.stream.renew = renew_slowly  # type: ignore[method-assign]  # the slow answer
        await trio.sleep(1.95)
        world.backend.server.weather = "refusing"
        await trio.sleep(1.95)
        world.session.check()
        await trio.sleep(0.2)
        with pytest.raises(WritesSuspended):
            world.session.check()


async def test_nobody_is_expired_during_the_first_lease(autojump_clock: MockClock) -> None:
    """A start counts as an outage: for one lease others' silence proves nothing."""
    async with running() as world:
        assert not world.session.may_expire_others()
        await trio.sleep(LEASE - 0.1)
        assert not world.session.may_expire_others()
        await trio.sleep(0.2)
        assert world.session.may_expire_others()


async def test_nobody_is_expired_for_one_lease_after_an_outage(autojump_clock: MockClock) -> None:
    """After a failed renewal a process renews first, and believes others' silence one lease later."""
    async with running() as world:
        await trio.sleep(LEASE + 1)
        assert world.session.may_expire_others()
        world.backend.server.weather = "refusing"
        await trio.sleep(LEASE / 3 + 0.1)
        assert not world.session.may_expire_others()
        world.backend.server.weather = "fine"
        await trio.sleep(LEASE / 3)
        assert world.session.is_valid()
        assert not world.session.may_expire_others()
        await trio.sleep(LEASE)
        assert world.session.may_expire_others()


async def test_a_late_answer_counts_as_an_outage(autojump_clock: MockClock) -> None:
    """An answer that took longer than a third of the lease renews, and is followed by one calm lease."""
    async with running() as world:
        await trio.sleep(LEASE + 1.5)
        world.backend.server.weather = "silent"
        await trio.sleep(2)
        world.backend.server.weather = "fine"
        await trio.sleep(0.1)
        assert world.session.is_valid()
        assert not world.session.may_expire_others()


async def test_a_frozen_process_may_not_write(autojump_clock: MockClock) -> None:
    """A process that wakes up after its lease is not valid until a renewal went through, and expires nobody."""
    async with running() as world:
        await trio.sleep(LEASE + 1)
        world.clock.ahead += 10
        with pytest.raises(WritesSuspended):
            world.session.check()
        assert not world.session.may_expire_others()
        await trio.sleep(LEASE / 3 + 0.1)
        world.session.check()
        assert not world.session.may_expire_others()
        await trio.sleep(LEASE)
        assert world.session.may_expire_others()


@pytest.mark.parametrize("rule", [True, False])
async def test_an_outage_costs_no_healthy_replica_its_events(autojump_clock: MockClock, rule: bool) -> None:
    """Redis is away for longer than a lease: with the rule nobody takes from anybody, without it somebody does."""
    backend = MemoryBackend(Keys("test:events", "ottoscaler"))
    taken: list[str] = []

    async def look_around(stream: Stream, session: Session) -> None:
        while True:
            with suppress(Unavailable):
                taken.extend(p.event_id for p in await take(stream, expire=session.may_expire_others() or not rule))
            await trio.sleep(0.25)

    async with trio.open_nursery() as nursery:
        for name in ("one", "two"):
            stream = backend.open(name)
            session = Session(stream, LEASE, (await stream.open_group("0", "default")).id)
            await nursery.start(session.run)
            await begin(backend, stream)
            nursery.start_soon(look_around, stream, session)
            await trio.sleep(0.6)
        await trio.sleep(LEASE * 2)
        backend.server.weather = "refusing"
        await trio.sleep(LEASE + 1)
        backend.server.weather = "fine"
        await trio.sleep(LEASE * 3)
        nursery.cancel_scope.cancel(reason="the test is over")
    assert bool(taken) is not rule


@pytest.mark.parametrize("forget", [True, False])
async def test_losses_are_told_before_the_lease_is_valid_again(autojump_clock: MockClock, forget: bool) -> None:
    """What another took while we were silent is told by name, whether our session is still known or not."""
    async with running() as world:
        kept, gone = await world.hold(), await world.hold()
        world.backend.server.weather = "refusing"
        await trio.sleep(LEASE * 2 - 0.4)  # expired, and the next renewal not due yet
        world.backend.server.weather = "fine"
        heir, _ = await open_session(world.backend, "heir")
        if forget:
            assert len(await take(heir, expire=True)) == 2
        else:
            await world.stream.offer([claim(gone, "one")], clean=[False])
            assert len(await take(heir)) == 1
        await world.session.wait_valid()
        assert world.lost == [frozenset({kept, gone} if forget else {gone})]
        assert world.valid_when_told == [False]


async def test_what_comes_and_goes_during_a_renewal_is_no_loss(autojump_clock: MockClock) -> None:
    """Ids registered or ended between the question and its answer are not reported."""
    async with running() as world:
        await world.hold()
        world.believed.add("1-1")
        ask = world.stream.held

        async def held_slowly() -> frozenset[str]:
            answer = await ask()
            world.believed.discard("1-1")
            world.believed.add("2-2")
            return answer

        world.stream.held = held_slowly  # type: ignore[method-assign]  # stands in for a slow answer
        await trio.sleep(LEASE / 3 + 0.1)
        assert world.lost == []
        assert "2-2" in world.believed


async def test_a_lost_era_is_told(autojump_clock: MockClock) -> None:
    """When Redis has forgotten everything the event is set, and the lease runs out."""
    async with running() as world:
        world.backend.flush()
        with trio.fail_after(LEASE):
            await world.session.era_lost.wait()
        await trio.sleep(LEASE)
        assert not world.session.is_valid()
        assert world.backend.contents() == {}


async def test_an_era_lost_before_the_first_renewal_is_told(autojump_clock: MockClock) -> None:
    """Whoever waits for the start hears at once that the era is another one; nothing may be written meanwhile."""
    backend = MemoryBackend(Keys("test:events", "ottoscaler"))
    stream = backend.open("one")
    era = await stream.open_group("0", "default")
    backend.flush()
    session = Session(stream, LEASE, era.id)
    async with trio.open_nursery() as nursery:
        with trio.fail_after(LEASE):
            await nursery.start(session.run)
        assert session.era_lost.is_set()
        assert not session.is_valid()
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_an_outage_is_logged_twice(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """One line when Redis is lost and one when it is back, each naming the address, however long it lasts."""
    caplog.set_level(logging.INFO, "ottoscaler")
    async with running() as world:
        for _ in range(2):
            world.backend.server.weather = "refusing"
            await trio.sleep(20)
            world.backend.server.weather = "fine"
            await trio.sleep(20)
    assert caplog.messages == ["Redis is lost: writes end with the lease", "Redis is back"] * 2
    facts = [record.__dict__["facts"] for record in caplog.records]
    assert all(each["address"] == "memory://" for each in facts)
    assert [list(each) for each in facts] == [["address", "reason"], ["address", "seconds"]] * 2


async def test_renewals_never_pile_up(autojump_clock: MockClock) -> None:
    """After a silence one renewal is sent, not one for each that was due, and then three per lease."""
    async with running() as world:
        sent: list[float] = []
        renew: Callable[..., object] = world.stream.renew

        async def counted(lease: float, era: str, outages: str = "") -> object:
            sent.append(trio.current_time())
            return await renew(lease, era)  # type: ignore[misc]  # the real method behind it

        world.stream.renew = counted  # type: ignore[method-assign, assignment]  # counts and passes on
        await trio.sleep(1.5)
        world.backend.server.weather = "silent"
        await trio.sleep(10)
        world.backend.server.weather = "fine"
        sent.clear()
        await trio.sleep(LEASE)
        assert 2 <= len(sent) <= 4


async def test_no_renewal_comes_after_the_leave(autojump_clock: MockClock) -> None:
    """A session that left stays away: a renewal under way then is waited for, and none follows."""
    async with running() as world:
        called: list[str] = []
        renew, leave = world.stream.renew, world.stream.leave

        async def slow_renew(lease_seconds: float, era_id: str, outages: str = "") -> Renewal:
            called.append("renewal begins")
            await trio.sleep(0.5)
            called.append("renewal is carried out")
            return await renew(lease_seconds, era_id)

        async def slow_leave() -> None:
            called.append("leave")
            await leave()
            await trio.sleep(LEASE)

        vars(world.stream).update(renew=slow_renew, leave=slow_leave)
        await trio.sleep(LEASE / 3 + 0.1)
        await world.session.leave()
        await trio.sleep(LEASE)
        assert called == ["renewal begins", "renewal is carried out", "leave"]
        assert not any("sessions" in name for name in world.backend.server.as_keys())
