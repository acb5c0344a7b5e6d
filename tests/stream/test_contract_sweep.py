"""The contract, continued: what the sweep is told and puts right, and slots that all sessions share."""

from __future__ import annotations

import trio

from tests.stream.backends import Backend
from tests.stream.steps import PAIRS, begin, claim, open_session, take


async def test_the_sweep_tells_known_events_from_unknown(backend: Backend, clock: trio.abc.Clock) -> None:
    """In progress, or delivered and not acknowledged: known. Ended, or never heard of: unknown."""
    one, _ = await open_session(backend, "one")
    running = await begin(backend, one)
    delivered = backend.add(*PAIRS)
    await one.read(1, 1.0)
    assert await one.sweep([running, delivered, "1-1"]) == {running, delivered}
    assert await one.sweep([]) == frozenset()


async def test_the_sweep_offers_what_belongs_to_no_session(backend: Backend, clock: trio.abc.Clock) -> None:
    """An event whose owner is no session any more can be taken again; those of live sessions are left alone."""
    one, _ = await open_session(backend, "one")
    stray, kept = await begin(backend, one), await begin(backend, one)
    two, _ = await open_session(backend, "two")
    await two.sweep([])
    assert await take(two) == []
    await one.offer([claim(kept, "one")], clean=[True])
    (taken,) = await take(two)
    assert taken.event_id == kept
    gone, _ = await open_session(backend, "gone")
    backend.disown(stray, "nobody")
    await gone.sweep([])
    (taken,) = await take(gone)
    assert (taken.event_id, taken.epoch) == (stray, 2)


async def test_slots_are_shared(backend: Backend, clock: trio.abc.Clock) -> None:
    """Together sessions get no more than the total; what is in use beyond counts, too; the dead count no more."""
    one, _ = await open_session(backend, "one")
    two, _ = await open_session(backend, "two", lease=backend.lease)
    assert await one.reserve(0, 7, 10) == 7
    assert await two.reserve(0, 7, 10) == 3
    assert await two.reserve(5, 7, 10) == 3
    assert await one.reserve(0, 9, 10) == 5
    assert await one.reserve(2, 2, 10) == 2
    assert await two.reserve(5, 9, 10) == 8
    await two.leave()
    await trio.sleep(backend.lease + 0.05)
    await one.tend(0, 0, expire=True, audit=False)
    assert await one.reserve(2, 10, 10) == 10
    assert await one.reserve(12, 15, 10) == 10
    assert await two.reserve(1, 9, 10) == 0


async def test_what_waits_is_counted(backend: Backend, clock: trio.abc.Clock) -> None:
    """Events that nobody holds, those not read yet and those offered, and how old the oldest is; entries of all."""
    one, _ = await open_session(backend, "one")
    empty = await one.backlog()
    assert (empty.entries, empty.waiting, empty.oldest_age) == (0, 0, 0.0)
    held = await begin(backend, one)
    await begin(backend, one, offer=True)
    for _ in range(3):
        backend.add(*PAIRS)
    await trio.sleep(0.05)
    backlog = await one.backlog()
    assert (backlog.entries, backlog.waiting) == (5, 4)
    assert backlog.oldest_age is not None
    assert 0.04 < backlog.oldest_age < 30
    await one.offer([claim(held, "one")], clean=[True])
    assert (await one.backlog()).waiting == 5


async def test_what_waits_is_known_after_an_unread_entry_was_deleted(backend: Backend, clock: trio.abc.Clock) -> None:
    """A gap among the unread entries, after which Redis gives no lag, is no reason to know nothing."""
    one, _ = await open_session(backend, "one")
    for _ in range(3):
        backend.add(*PAIRS)
    backend.trim(2)
    assert (await one.backlog()).waiting == 2


async def test_what_waits_is_unknown_without_the_group(backend: Backend, clock: trio.abc.Clock) -> None:
    """Where Redis has forgotten the group nobody knows what waits; that is not 0."""
    one, _ = await open_session(backend, "one")
    backend.flush()
    backlog = await one.backlog()
    assert (backlog.entries, backlog.waiting, backlog.oldest_age) == (0, None, None)
