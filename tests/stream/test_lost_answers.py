"""The twin loses answers on demand, and its streams find again what was in them, as over a real Redis."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.errors import Unavailable
from ottoscaler.stream.base import Closing
from ottoscaler.stream.keys import Keys
from tests.stream.backends import MemoryBackend
from tests.stream.steps import PAIRS, begin, claim, open_session, registration, take


@pytest.fixture
def twin() -> MemoryBackend:
    """A twin of its own."""
    return MemoryBackend(Keys("test:events", "ottoscaler"))


async def test_delivered_entries_are_found_again(twin: MemoryBackend, autojump_clock: MockClock) -> None:
    """A read whose answer got lost is made good by the next one; what is registered or in hand does not come again."""
    one, _ = await open_session(twin, "one")
    await begin(twin, one)
    in_hand = twin.add(*PAIRS)
    assert [entry.id for entry in await one.read(1, 0)] == [in_hand]
    lost = [twin.add(*PAIRS) for _ in range(3)]
    twin.server.lose_answer_of.add("read")
    with pytest.raises(Unavailable):
        await one.read(10, 0)
    assert [entry.id for entry in await one.read(2, 0)] == lost[:2]
    assert [entry.id for entry in one.take_unread()] == lost[2:]


async def test_taken_events_are_given_again(twin: MemoryBackend, autojump_clock: MockClock) -> None:
    """A look whose answer got lost gives the same events at the same epoch, and no more than the room."""
    one, _ = await open_session(twin, "one")
    ids = [await begin(twin, one, offer=True) for _ in range(3)]
    twin.server.lose_answer_of.add("tend")
    with pytest.raises(Unavailable):
        await take(one, work=2)
    assert [(p.event_id, p.epoch) for p in await take(one, work=2)] == [(ids[0], 1), (ids[1], 1)]
    assert [(p.event_id, p.epoch) for p in await take(one, work=2)] == [(ids[2], 1)]


@pytest.mark.parametrize("name", ["register", "close", "adopt", "offer", "add_event"])
async def test_a_repeat_answers_as_the_first_call_would_have(
    twin: MemoryBackend, autojump_clock: MockClock, name: str
) -> None:
    """Repeating any change after its answer got lost changes nothing more."""
    one, _ = await open_session(twin, "one")
    event_id = twin.add(*PAIRS)
    await one.read(1, 0)
    if name != "register":
        await one.register([registration(event_id)])
    token = claim(event_id, "one")
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "register": lambda: one.register([registration(event_id)]),
        "close": lambda: one.close(Closing(event_id, "results", (("v", "1"),), token)),
        "adopt": lambda: one.adopt(token),
        "offer": lambda: one.offer([token], clean=[True]),
        "add_event": lambda: one.add_event(PAIRS, "token"),
    }
    twin.server.lose_answer_of.add(name)
    with pytest.raises(Unavailable):
        await calls[name]()
    contents = twin.contents()
    answer = await calls[name]()
    assert twin.contents() == contents
    assert answer in ([1], True, None) or answer == twin.server.tokens.get("token", ("",))[0] or answer.how == "before"


async def test_nothing_is_remembered_for_ever(twin: MemoryBackend, autojump_clock: MockClock) -> None:
    """Endings are known for a day and tokens for an hour, and the twin's memory of them ends with that."""
    one, _ = await open_session(twin, "one")
    event_id = await begin(twin, one)
    await one.close(Closing(event_id, "results", (("v", "1"),), claim(event_id, "one")))
    first = await one.add_event(PAIRS, "token")
    await trio.sleep(3500)
    assert await one.add_event(PAIRS, "token") == first
    await trio.sleep(200)
    assert await one.add_event(PAIRS, "token") != first
    assert await one.read_ending(event_id) is not None
    await trio.sleep(86_400)
    assert await one.read_ending(event_id) is None
    await one.add_event(PAIRS, "another")
    assert list(twin.server.tokens) == ["another"]


async def test_a_cancel_between_any_two_steps_loses_no_entry(twin: MemoryBackend, autojump_clock: MockClock) -> None:
    """Reads cancelled at every one of their steps give every entry exactly once in the end."""
    one, _ = await open_session(twin, "one")
    given, added = [], []
    for step in range(6):
        added.append(twin.add(*PAIRS))
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                given.extend(await one.read(10, 5))

            nursery.start_soon(read)
            for _ in range(step):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel(reason="the test's cut")
    given.extend(await one.read(10, 0))
    assert [entry.id for entry in given] == added
