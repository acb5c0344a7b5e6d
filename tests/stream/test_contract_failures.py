"""The contract, continued: attempts that are not the last, events whose handling breaks, and marks with their cause."""

from __future__ import annotations

import trio

from ottoscaler.stream.base import Accepted, Candidate, Closing, Outcome, Stream, Writing
from tests.stream.backends import Backend
from tests.stream.steps import PAIRS, begin, claim, open_session, registration, take


async def begin_without_a_sign(backend: Backend, stream: Stream) -> str:
    """Register an event and say nothing more of it, as a process does that dies over it."""
    event_id = backend.add(*PAIRS)
    await stream.read(1, 1.0)
    assert await stream.register([registration(event_id)]) == [1]
    return event_id


async def test_an_attempt_that_is_not_the_last_leaves_the_worker_open(backend: Backend, clock: trio.abc.Clock) -> None:
    """A retried attempt is recorded beside the outcome, once; the worker counts as neither settled nor accepted."""
    one, _ = await open_session(backend, "one")
    event_id = await begin(backend, one)
    held = claim(event_id, "one")
    await one.record([Writing(held, accepted=(Accepted(1, 1, "uid", 5, fence=9),))])
    for text in ('{"a":1}', '{"a":2}'):
        (written,) = await one.record([Writing(held, outcomes=(Outcome(1, text, retried=1),))])
        assert written.outcomes == ('{"a":1}',)
    progress = await one.read_progress(event_id)
    assert progress is not None
    assert (progress.attempts, progress.outcomes) == ({(1, 1): {"a": 1}}, {})
    assert progress.accepted[1, 1] == {"uid": "uid", "at": 5, "fence": 9}
    (live,) = await one.survey("")
    assert (live.settled, live.accepted) == (frozenset(), frozenset())


async def test_a_stop_mark_ends_a_worker_between_attempts(backend: Backend, clock: trio.abc.Clock) -> None:
    """Where a stop mark stands, an attempt that would be retried is the worker's outcome; the mark tells its cause."""
    one, _ = await open_session(backend, "one")
    event_id, asker = await begin(backend, one), await begin(backend, one, lane="control")
    marked = await one.mark_victims(
        claim(asker, "one"), 1, [Candidate(event_id, 1, "{}")], last=True, cause="Cancelled"
    )
    assert marked == ((event_id, 1),)
    outcome = Outcome(1, '{"failed":1}', {"Stopped": '{"stopped":1}', "Cancelled": '{"cancelled":1}'}, retried=1)
    (written,) = await one.record([Writing(claim(event_id, "one"), outcomes=(outcome,))])
    assert written.outcomes == ('{"cancelled":1}',)
    progress = await one.read_progress(event_id)
    assert progress is not None
    assert (progress.attempts, progress.outcomes) == ({}, {1: {"cancelled": 1}})
    assert progress.stops[1] == {"by": asker, "cause": "Cancelled"}


async def test_an_end_without_outcomes_is_told_to_who_waits(backend: Backend, clock: trio.abc.Clock) -> None:
    """The close of an event whose marked workers have no outcome tells who marked them, once, with its own words."""
    one, _ = await open_session(backend, "one")
    up, down = await begin(backend, one), await begin(backend, one, lane="control")
    await one.mark_victims(claim(down, "one"), 2, [Candidate(up, 1, "{}"), Candidate(up, 3, "{}")], last=True)
    await one.record([Writing(claim(up, "one"), outcomes=(Outcome(1, '{"outcome":"terminated"}'),))])
    await one.tend(0, 0, expire=False, audit=False)
    closing = Closing(up, "dlq", (("event_id", up),), claim(up, "one"), ended='{"outcome":"failed"}')
    assert [(await one.close(closing)).how for _ in range(2)] == ["here", "before"]
    asker = await one.read_progress(down)
    assert asker is not None
    assert asker.victim_outcomes == {(up, 1): {"outcome": "terminated"}, (up, 3): {"outcome": "failed"}}
    assert (await one.tend(0, 0, expire=False, audit=False)).notices == (down,)


async def test_owners_that_go_without_a_sign_are_counted(backend: Backend, clock: trio.abc.Clock) -> None:
    """Each owner that dies between taking an event and its first word about it counts as a failure of the event."""
    dead, _ = await open_session(backend, "dead", lease=backend.lease)
    event_id = await begin_without_a_sign(backend, dead)
    await trio.sleep(backend.lease + 0.05)
    for number, name in enumerate(("heir", "second"), start=1):
        heir, _ = await open_session(backend, name, lease=backend.lease)
        (taken,) = await take(heir, expire=True)
        assert (taken.event_id, taken.failures) == (event_id, number)
        await trio.sleep(backend.lease + 0.05)


async def test_a_sign_keeps_an_event_free_of_failures(backend: Backend, clock: trio.abc.Clock) -> None:
    """An owner that adopted or recorded anything may die as often as it likes."""
    dead, _ = await open_session(backend, "dead", lease=backend.lease)
    event_id = await begin(backend, dead)
    await trio.sleep(backend.lease + 0.05)
    for epoch, name in enumerate(("heir", "second"), start=2):
        heir, _ = await open_session(backend, name, lease=backend.lease)
        (taken,) = await take(heir, expire=True)
        assert taken.failures == 0
        assert await heir.adopt(claim(event_id, name, epoch))
        await trio.sleep(backend.lease + 0.05)


async def test_a_broken_handling_counts(backend: Backend, clock: trio.abc.Clock) -> None:
    """An event offered again because its handling broke carries the count; one handed over in order does not."""
    one, _ = await open_session(backend, "one")
    event_id = await begin(backend, one)
    await one.offer([claim(event_id, "one")], clean=[True], failed=True)
    (taken,) = await take(one)
    assert taken.failures == 1
    await one.offer([claim(event_id, "one", 2)], clean=[True])
    (taken,) = await take(one)
    assert taken.failures == 1


async def test_an_event_that_broke_is_taken_alone(backend: Backend, clock: trio.abc.Clock) -> None:
    """So that it takes no other event down with its owner, an event with failures comes in a look of its own."""
    one, _ = await open_session(backend, "one")
    ids = [await begin(backend, one) for _ in range(4)]
    claims = [claim(event_id, "one") for event_id in ids]
    await one.offer(claims[:2], clean=[True, True])
    await one.offer(claims[2:3], clean=[True], failed=True)
    await one.offer(claims[3:], clean=[True])
    looks = [[progress.event_id for progress in await take(one)] for _ in range(3)]
    assert sorted(looks, key=len) == [[], [ids[2]], [ids[0], ids[1], ids[3]]]


async def test_trouble_is_told_in_the_progress(backend: Backend, clock: trio.abc.Clock) -> None:
    """What keeps a worker from starting stands in the progress, the last word of it, and is no outcome."""
    one, _ = await open_session(backend, "one")
    event_id = await begin(backend, one)
    for cause in ("Unschedulable", "ImageNotFound"):
        troubles = ((2, f'{{"cause":"{cause}","reason":"so it is"}}'),)
        (written,) = await one.record([Writing(claim(event_id, "one"), troubles=troubles)])
        assert written.is_ours
    progress = await one.read_progress(event_id)
    assert progress is not None
    assert progress.troubles == {2: {"cause": "ImageNotFound", "reason": "so it is"}}
    assert progress.outcomes == {}


async def test_ids_from_the_future_hold_nothing_up(backend: Backend, clock: trio.abc.Clock) -> None:
    """Events whose ids say that they are of a time to come are taken as others are: offered because there was no room,
    or because their owner died.
    """
    dead, _ = await open_session(backend, "dead", lease=backend.lease)
    backend.skip_ahead()
    waiting, held = await begin(backend, dead, offer=True), await begin(backend, dead)
    assert (waiting, held) == ("99999999999999-1", "99999999999999-2")
    await trio.sleep(backend.lease + 0.05)
    heir, _ = await open_session(backend, "heir")
    assert [progress.event_id for progress in await take(heir, expire=True)] == [waiting, held]
