"""One look for all pipelines: each waiter hears of what is new to it, and Redis is asked once for all."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

import trio
from trio.testing import MockClock

from ottoscaler.backoff import Backoff
from ottoscaler.errors import Unavailable
from ottoscaler.spine.ledger import Ledger
from ottoscaler.spine.standings import Standings
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from ottoscaler.stream.requests import Standing


class Scripted(MemoryStream):
    """A stream whose events stand as the test says."""

    def __init__(self) -> None:
        super().__init__(MemoryServer(), "one")
        self.stands: dict[str, Standing] = {}
        self.looks: list[list[str]] = []
        self.is_away = False

    async def look(self, event_ids: Collection[str]) -> dict[str, Standing]:
        """What was said."""
        await trio.lowlevel.checkpoint()
        self.looks.append(sorted(event_ids))
        if self.is_away:
            raise Unavailable("away", address="memory://")
        return {event_id: self.stands.get(event_id, Standing("waiting")) for event_id in event_ids}


async def test_many_wait_and_one_look_is_made(autojump_clock: MockClock) -> None:
    """A hundred waiters cost one question each period; those whose event stands otherwise are told, the rest wait."""
    stream = Scripted()
    standings = Standings(Ledger(stream, Backoff(0.1, 1.0)))
    told: list[str] = []

    async def wait(event_id: str) -> None:
        found = await standings.wait_change({event_id: Standing("waiting")})
        told.extend(found)

    async with trio.open_nursery() as nursery:
        await nursery.start(standings.run)
        for number in range(100):
            nursery.start_soon(wait, f"1-{number}")
        await trio.sleep(2)
        assert 5 <= len(stream.looks) <= 12
        assert {len(look) for look in stream.looks} == {100}
        stream.stands["1-7"] = Standing("live", 1)
        await trio.sleep(1)
        assert told == ["1-7"]
        assert len(stream.looks[-1]) == 99
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_what_takes_long_is_looked_at_less_often(autojump_clock: MockClock) -> None:
    """A dozen looks in the first seconds, two a second after a minute; who comes then is served as the first."""
    stream = Scripted()
    standings = Standings(Ledger(stream, Backoff(0.1, 1.0)))

    async def wait(event_id: str, *, is_eager: bool) -> None:
        await standings.wait_change({event_id: None if is_eager else Standing("waiting")}, is_eager=is_eager)
        if is_eager:
            await standings.wait_change({event_id: Standing("waiting")}, is_eager=True)

    async with trio.open_nursery() as nursery:
        await nursery.start(standings.run)
        nursery.start_soon(partial(wait, "1-1", is_eager=False))
        await trio.sleep(2.5)
        assert 8 <= len(stream.looks) <= 14
        await trio.sleep(60)
        stream.looks.clear()
        await trio.sleep(10)
        assert 18 <= len(stream.looks) <= 21
        nursery.start_soon(partial(wait, "1-2", is_eager=True))
        await trio.sleep(0.01)
        stream.looks.clear()
        await trio.sleep(0.35)
        assert len(stream.looks) >= 2
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_many_are_looked_at_less_often(autojump_clock: MockClock) -> None:
    """The look at a thousand is dear to Redis, so it comes half as often at first as that at one."""
    counts = []
    for number in (1, 1000):
        stream = Scripted()
        standings = Standings(Ledger(stream, Backoff(0.1, 1.0)))
        async with trio.open_nursery() as nursery:
            await nursery.start(standings.run)
            awaited = {f"1-{each}": Standing("waiting") for each in range(number)}
            with trio.move_on_after(0.7):
                await standings.wait_change(awaited)
            nursery.cancel_scope.cancel(reason="the test is over")
        counts.append(len(stream.looks))
    assert counts == [5, 3]


async def test_what_this_process_writes_is_heard_at_once(autojump_clock: MockClock) -> None:
    """Notices of an event that a call waits for make it look at that one alone, and not more often than it should."""
    stream = Scripted()
    ledger = Ledger(stream, Backoff(0.1, 1.0))
    standings = Standings(ledger)
    async with trio.open_nursery() as nursery:
        await nursery.start(standings.run)
        nursery.start_soon(standings.wait, "1-0", lambda standing: standing.where == "ended")
        nursery.start_soon(standings.wait_change, {"1-2": Standing("waiting")})
        await trio.sleep(0.11)
        stream.stands["1-1"] = Standing("live", 2)
        begun = trio.current_time()
        assert await standings.wait("1-1", lambda standing: standing.where == "live") == Standing("live", 2)
        assert trio.current_time() - begun < 0.025
        waited: list[float] = []

        async def wait() -> None:
            await standings.wait("1-1", lambda standing: standing.created == 1)
            waited.append(trio.current_time())

        nursery.start_soon(wait)
        await trio.sleep(0.05)
        stream.stands["1-1"], stream.looks[:] = Standing("live", 2, 1), []
        begun = trio.current_time()
        for listen in ledger.listeners:
            listen(["1-1", "1-2", "9-9"])
        await trio.sleep(0.025)
        assert stream.looks == [["1-1"]]
        assert waited[0] - begun < 0.025
        await trio.sleep(0.2)
        stream.looks[:] = []
        for _ in range(100):
            ledger.listeners[0](["1-0"])
            await trio.sleep(0.001)
        assert len(stream.looks) <= 8
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_news_of_one_event_put_off_no_look_at_the_others(autojump_clock: MockClock) -> None:
    """An event that is written about all the time, with something new each time, and one of another replica's."""
    stream = Scripted()
    ledger = Ledger(stream, Backoff(0.1, 1.0))
    standings = Standings(ledger)

    async def wait() -> None:
        await standings.wait("1-1", lambda standing: standing.created == 1000)

    async with trio.open_nursery() as nursery:
        await nursery.start(standings.run)
        nursery.start_soon(wait)
        nursery.start_soon(standings.wait_change, {"1-2": Standing("waiting")})
        for created in range(50):
            stream.stands["1-1"] = Standing("live", 1000, created)
            ledger.listeners[0](["1-1"])
            await trio.sleep(0.02)
        assert sum("1-2" in look for look in stream.looks) >= 7
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_it_rests_while_nobody_waits_and_outlasts_an_outage(autojump_clock: MockClock) -> None:
    """Without a waiter nothing is asked; where Redis is away the waiter is told later. What is unknown is told."""
    stream = Scripted()
    standings = Standings(Ledger(stream, Backoff(0.1, 1.0)))
    async with trio.open_nursery() as nursery:
        await nursery.start(standings.run)
        await trio.sleep(10)
        assert stream.looks == []
        assert await standings.wait_change({"1-1": None}) == {"1-1": Standing("waiting")}
        stream.is_away = True
        with trio.move_on_after(5) as limit:
            await standings.wait_change({"1-2": None, "1-3": None})
        assert limit.cancelled_caught
        await trio.sleep(1)
        stream.is_away = False
        assert len(await standings.wait_change({"1-2": None, "1-3": None})) == 2
        await trio.sleep(1)
        count = len(stream.looks)
        await trio.sleep(10)
        assert len(stream.looks) == count
        nursery.cancel_scope.cancel(reason="the test is over")
