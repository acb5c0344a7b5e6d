"""The bound over all replicas, where answers of Redis take their time, get lost, or do not come at all."""

from __future__ import annotations

from random import Random

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.errors import Unavailable
from ottoscaler.fair import FairLimiter
from ottoscaler.spine.bound import CROWDED_SECONDS, PERIOD_SECONDS, Bound
from ottoscaler.stream.memory import MemoryServer, MemoryStream

TOTAL = 10


class Far(MemoryStream):
    """A stream whose questions and answers are up to `delay` seconds on their way; one of `loss` either gets lost."""

    def __init__(self, server: MemoryServer, session: str, random: Random, delay: float, loss: float) -> None:
        super().__init__(server, session)
        server.sessions[session] = 10**15
        self._random, self._delay, self._loss = random, delay, loss

    async def reserve(self, used: int, want: int, total: int) -> int:
        """Ask, with a way there and a way back."""
        await self._travel()
        may_use = await super().reserve(used, want, total)
        await self._travel()
        return may_use

    async def _travel(self) -> None:
        await trio.sleep(self._random.uniform(0, self._delay))
        if self._random.random() < self._loss:
            raise Unavailable("lost on the way")


class Replicas:
    """The limiters of several replicas, and the most workers that could be alive at once."""

    def __init__(self, limiters: list[FairLimiter]) -> None:
        self.limiters = limiters
        self.most = 0
        self.begun = 0

    def look(self) -> None:
        """Every free unit may be taken at this very instant."""
        self.most = max(self.most, sum(max(one.used, one.limit) for one in self.limiters))

    async def work(self, slots: FairLimiter, seconds: float) -> None:
        """One worker."""
        async with slots.hold("event"):
            self.begun += 1
            self.look()
            await trio.sleep(seconds)
        self.look()


@pytest.mark.parametrize("seed", range(20))
async def test_nothing_that_may_begin_exceeds_the_bound(seed: int, autojump_clock: MockClock) -> None:
    """Whatever answers get late or lost: what runs and what may begin is never more than the total, and all is done."""
    random, server = Random(seed), MemoryServer()
    delay, loss = random.choice([0.001, 0.05, 0.4]), random.choice([0.0, 0.0, 0.1])
    replicas = Replicas([FairLimiter(TOTAL) for _ in range(random.randint(2, 4))])
    async with trio.open_nursery() as outer:
        for number, slots in enumerate(replicas.limiters):
            await outer.start(Bound(Far(server, f"r{number}", random, delay, loss), slots, TOTAL, TOTAL).run)
        async with trio.open_nursery() as workers:
            for _ in range(60):
                for _ in range(random.randint(1, 8)):
                    workers.start_soon(replicas.work, random.choice(replicas.limiters), random.expovariate(2.0))
                await trio.sleep(random.choice([0.0, 0.01, 0.3, 3.0]))
                replicas.look()
        outer.cancel_scope.cancel(reason="all is done")
    assert replicas.begun >= 60
    assert replicas.most <= TOTAL


async def test_slots_that_came_free_during_a_question_are_not_used_here(autojump_clock: MockClock) -> None:
    """Six workers end while Redis is asked about the other four: six begin at another replica, none here."""
    server, random = MemoryServer(), Random(1)
    here, there = FairLimiter(TOTAL), FairLimiter(TOTAL)
    replicas = Replicas([here, there])
    async with trio.open_nursery() as nursery:
        for name, slots in (("here", here), ("there", there)):
            await nursery.start(Bound(Far(server, name, random, 0.2, 0.0), slots, TOTAL, TOTAL).run)
        for _ in range(10):
            nursery.start_soon(here.acquire, "one")
        await trio.sleep(3)
        assert here.statistics() == (10, 10, 0)
        for _ in range(10):
            nursery.start_soon(there.acquire, "two")
        for _ in range(6):
            here.release()
        for _ in range(200):
            if server.slots["here"] == 4:
                break
            await trio.sleep(0.01)
        for _ in range(6):
            nursery.start_soon(here.acquire, "three")
        for _ in range(200):
            await trio.sleep(0.01)
            replicas.look()
        assert there.used == 6
        assert replicas.most <= TOTAL
        nursery.cancel_scope.cancel(reason="seen enough")


async def test_while_redis_is_silent_nothing_begins(autojump_clock: MockClock) -> None:
    """Without an answer nobody knows what others were given; soon after Redis is back what waits begins."""
    server, slots = MemoryServer(), FairLimiter(TOTAL)
    async with trio.open_nursery() as nursery:
        await nursery.start(Bound(Far(server, "one", Random(1), 0.0, 0.0), slots, TOTAL, TOTAL).run)
        for _ in range(5):
            nursery.start_soon(slots.acquire, "one")
        await trio.sleep(2)
        server.weather = "refusing"
        await trio.sleep(PERIOD_SECONDS + 0.1)
        slots.release()
        nursery.start_soon(slots.acquire, "two")
        await trio.sleep(30)
        assert (slots.used, slots.statistics().waiting) == (4, 1)
        server.weather = "fine"
        await trio.sleep(CROWDED_SECONDS + 0.1)
        assert (slots.used, slots.statistics().waiting) == (5, 0)
        nursery.cancel_scope.cancel(reason="seen enough")


async def test_a_replica_whose_session_expired_begins_nothing(autojump_clock: MockClock) -> None:
    """Others do not count the slots of a session that is gone, so it has none until it is renewed."""
    server, slots = MemoryServer(), FairLimiter(TOTAL)
    stream = Far(server, "one", Random(1), 0.0, 0.0)
    async with trio.open_nursery() as nursery:
        await nursery.start(Bound(stream, slots, TOTAL, TOTAL).run)
        del server.sessions["one"]
        nursery.start_soon(slots.acquire, "one")
        await trio.sleep(3)
        assert slots.used == 0
        server.sessions["one"] = 10**15
        await trio.sleep(CROWDED_SECONDS + 0.1)
        assert slots.used == 1
        nursery.cancel_scope.cancel(reason="seen enough")


async def test_what_was_adopted_beyond_the_bound_is_not_replaced(autojump_clock: MockClock) -> None:
    """Pods of a dead replica that others adopt are counted, and nothing begins in their place above the total."""
    server, slots = MemoryServer(), FairLimiter(TOTAL)
    async with trio.open_nursery() as nursery:
        await nursery.start(Bound(Far(server, "one", Random(1), 0.0, 0.0), slots, 1000, TOTAL).run)
        for _ in range(20):
            nursery.start_soon(slots.acquire, "one")
        await trio.sleep(2)
        for _ in range(5):
            slots.acquire_beyond()
        await trio.sleep(2)
        for left in range(14, 9, -1):
            slots.release()
            await trio.sleep(2)
            assert slots.used == left
        slots.release()
        await trio.sleep(2)
        assert slots.used == 10
        nursery.cancel_scope.cancel(reason="seen enough")
