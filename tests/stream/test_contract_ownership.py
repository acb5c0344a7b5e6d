"""Contract of the stream, first half: reading, registering, sessions, taking over. Runs against every keeper."""

from __future__ import annotations

import pytest
import trio

from ottoscaler.stream.base import Candidate, Closing, Entry, GroupLost
from tests.stream.backends import Backend
from tests.stream.steps import LEASE, PAIRS, begin, claim, lose, open_session, registration, strays, take

pytestmark = pytest.mark.slow_clock


async def test_group_and_era_are_made_once(backend: Backend, clock: trio.abc.Clock) -> None:
    """Whoever opens the group second finds the first one's era, and entries added before are delivered."""
    first_id = backend.add(*PAIRS)
    one, era = await open_session(backend, "one")
    two = backend.open("two")
    assert await two.open_group("$", "elsewhere") == era
    assert era.namespace == "default"
    assert [entry.id for entry in await one.read(10, 0)] == [first_id]


async def test_a_group_can_begin_with_what_comes_later(backend: Backend, clock: trio.abc.Clock) -> None:
    """With `$` an entry added before the group is not delivered."""
    backend.add(*PAIRS)
    stream = backend.open("one")
    await stream.open_group("$", "default")
    assert await stream.read(10, 0) == []
    later = backend.add(*PAIRS)
    assert [entry.id for entry in await stream.read(10, 1)] == [later]


async def test_entries_arrive_byte_for_byte(backend: Backend, clock: trio.abc.Clock) -> None:
    """Bytes that are no text, and names that come twice, are delivered as they were added."""
    stream, _ = await open_session(backend, "one")
    pairs = ((b"\xff\x00", b"\xfe"), (b"twice", b"1"), (b"twice", b"2"), (b"", b""))
    event_id = backend.add(*pairs)
    assert await stream.read(10, 1) == [Entry(event_id, pairs, 1)]


async def test_a_read_waits_and_ends(backend: Backend, clock: trio.abc.Clock) -> None:
    """A read waits for the first entry, and gives an empty list when its time is over."""
    stream, _ = await open_session(backend, "one")
    began = trio.current_time()
    assert await stream.read(10, 0.2) == []
    assert 0.15 <= trio.current_time() - began < 10
    async with trio.open_nursery() as nursery:

        async def add_soon() -> None:
            await trio.sleep(0.1)
            backend.add(*PAIRS)

        nursery.start_soon(add_soon)
        assert len(await stream.read(10, 30)) == 1
    assert trio.current_time() - began < 20


async def test_a_read_without_its_group_says_so(backend: Backend, clock: trio.abc.Clock) -> None:
    """After Redis was emptied reading raises GroupLost, and a renewal says that the era is gone and writes nothing."""
    stream, era = await open_session(backend, "one")
    event_id = await begin(backend, stream)
    backend.flush()
    with pytest.raises(GroupLost):
        await stream.read(1, 0)
    assert not (await stream.renew(LEASE, era.id)).era_stands
    with pytest.raises(GroupLost):
        await stream.register([registration(event_id)])
    assert backend.contents() == {}


async def test_a_session_of_an_era_that_is_over_touches_nothing(backend: Backend, clock: trio.abc.Clock) -> None:
    """After Redis was emptied and another session began anew, one that did not notice is refused: it registers and
    takes nothing, and is not told that the events of its pods are unknown. Who knows the new era gets the entry.
    """
    late, _ = await open_session(backend, "late", lease=backend.lease)
    running = await begin(backend, late)
    backend.flush()
    prompt, _ = await open_session(backend, "prompt")
    offered, event_id = await begin(backend, prompt, offer=True), backend.add(*PAIRS)
    assert [entry.id for entry in await late.read(1, 1.0)] == [event_id]
    before = backend.contents()
    for call in (
        lambda: late.register([registration(event_id)]),
        lambda: late.tend(1, 1, expire=False, audit=False),
        lambda: late.sweep([running]),
    ):
        with pytest.raises(GroupLost):
            await call()
    assert backend.contents() == before
    assert [entry.id for entry in await strays(prompt, audit=True)] == [event_id]
    assert [progress.event_id for progress in await take(prompt)] == [offered]


async def test_a_renewal_opens_and_keeps_a_session(backend: Backend, clock: trio.abc.Clock) -> None:
    """The first renewal opens, later ones find the session, count what it holds, and notice another era."""
    stream = backend.open("one")
    era = await stream.open_group("0", "default")
    first = await stream.renew(LEASE, era.id)
    assert (first.existed, first.held, first.era_stands) == (False, 0, True)
    event_id = await begin(backend, stream)
    second = await stream.renew(LEASE, era.id)
    assert (second.existed, second.held, second.era_stands) == (True, 1, True)
    assert await stream.held() == {event_id}
    assert not (await stream.renew(LEASE, "another")).era_stands


async def test_registering_writes_the_progress(backend: Backend, clock: trio.abc.Clock) -> None:
    """A registered event is held at epoch 1, and its progress says everything that was known of it."""
    stream, era = await open_session(backend, "one")
    event_id = await begin(backend, stream, task="t-1", planned=7)
    progress = await stream.read_progress(event_id)
    assert progress is not None
    assert (progress.owner, progress.epoch, progress.lane) == ("one", 1, "work")
    assert (progress.entry, progress.task_id, progress.planned) == (PAIRS, "t-1", 7)
    assert progress.registered >= era.created
    assert await stream.live_events() == [event_id]


async def test_registering_again_changes_nothing(backend: Backend, clock: trio.abc.Clock) -> None:
    """The same registration by the same owner answers the same epoch; another session is told it is not its own."""
    one, _ = await open_session(backend, "one")
    two, _ = await open_session(backend, "two")
    event_id = await begin(backend, one)
    before = backend.contents()
    assert await one.register([registration(event_id)]) == [1]
    assert await two.register([registration(event_id)]) == [-1]
    assert backend.contents() == before


async def test_only_a_pending_entry_can_be_registered(backend: Backend, clock: trio.abc.Clock) -> None:
    """An unread entry, one that another session read, and one that has ended are not ours to register."""
    one, _ = await open_session(backend, "one")
    two, _ = await open_session(backend, "two")
    unread = backend.add(*PAIRS)
    assert await one.register([registration(unread)]) == [-1]
    await one.read(1, 0)
    assert await two.register([registration(unread)]) == [-1]
    assert (await one.close(Closing(unread, "dlq", (("event_id", unread),)))).how == "here"
    assert await one.register([registration(unread)]) == [-1]
    assert await one.live_events() == []


async def test_an_offered_registration_goes_to_whoever_has_room(backend: Backend, clock: trio.abc.Clock) -> None:
    """What is registered as an offer is held by nobody, counted as waiting, and taken oldest first, up to the room."""
    one, _ = await open_session(backend, "one")
    two, _ = await open_session(backend, "two")
    ids = [await begin(backend, one, offer=True) for _ in range(3)]
    assert await one.register([registration(ids[0], offer=True)]) == [0]
    assert await one.held() == frozenset()
    look = await two.tend(2, 0, expire=False, audit=False)
    assert [(progress.event_id, progress.owner, progress.epoch) for progress in look.taken] == [
        (ids[0], "two", 1),
        (ids[1], "two", 1),
    ]
    assert look.offered == 1
    assert await two.held() == set(ids[:2])
    assert [progress.event_id for progress in await take(one)] == ids[2:]


async def test_lanes_have_rooms_of_their_own(backend: Backend, clock: trio.abc.Clock) -> None:
    """A process without a free scaling still takes what waits in the control lane."""
    one, _ = await open_session(backend, "one")
    await begin(backend, one, offer=True)
    down = await begin(backend, one, lane="control", offer=True)
    assert [progress.event_id for progress in await take(one, work=0)] == [down]


async def test_commands_without_room_keep_out_nothing_that_they_stop(backend: Backend, clock: trio.abc.Clock) -> None:
    """An offered event that bears marks is taken though there is no room for commands, also from behind more of them
    than one page holds, and though it broke before; the commands stay until there is room.
    """
    one, _ = await open_session(backend, "one")
    up, broken = await begin(backend, one), await begin(backend, one)
    down = await begin(backend, one, lane="control")
    commands = [backend.add(*PAIRS) for _ in range(700)]
    await one.read(len(commands), 1.0)
    await one.register([registration(event_id, lane="control", offer=True) for event_id in commands])
    await one.mark_victims(claim(down, "one"), 2, [Candidate(up, 1, "{}"), Candidate(broken, 1, "{}")], last=True)
    await one.offer([claim(up, "one")], clean=[False])
    await one.offer([claim(broken, "one")], clean=[False], failed=True)
    taken = [[(p.event_id, p.lane) for p in await take(one, work=0, control=0)] for _ in range(3)]
    assert taken == [[(up, "work")], [(broken, "work")], []]
    found = {progress.event_id for progress in await take(one, work=0, control=2)}
    assert len(found) == 2
    assert found < set(commands)


async def test_idle_is_who_knows_of_no_event_anywhere(backend: Backend, clock: trio.abc.Clock) -> None:
    """From its delivery to its close an event keeps everybody awake, also while nobody holds it; else all are idle."""
    one, _ = await open_session(backend, "one")
    two, _ = await open_session(backend, "two")

    async def is_idle() -> bool:
        return (await two.tend(0, 0, expire=False, audit=False)).is_idle

    assert await is_idle()
    event_id = await begin(backend, one)
    assert not await is_idle()
    await one.offer([claim(event_id, "one")], clean=[True])
    assert not await is_idle()
    (progress,) = await take(one)
    await one.close(Closing(event_id, "results", (("status", "succeeded"),), claim(event_id, "one", progress.epoch)))
    assert await is_idle()


async def test_a_hand_over_is_taken_at_once_or_after_its_delay(backend: Backend, clock: trio.abc.Clock) -> None:
    """An offered event has no owner, is taken with the next epoch and its clean mark, and a delay is kept."""
    one, _ = await open_session(backend, "one")
    two, _ = await open_session(backend, "two")
    ids = [await begin(backend, one) for _ in range(3)]
    await one.offer([claim(id_, "one") for id_ in ids[:2]], clean=[True, False])
    await one.offer([claim(ids[2], "one")], clean=[True], delay_seconds=1.5)
    assert await one.held() == frozenset()
    assert [(p.event_id, p.epoch, p.clean) for p in await take(two)] == [(ids[0], 2, True), (ids[1], 2, False)]
    assert await take(two) == []
    await trio.sleep(1.55)
    assert [(p.event_id, p.epoch, p.clean) for p in await take(two)] == [(ids[2], 2, True)]
    progress = await two.read_progress(ids[0])
    assert progress is not None
    assert not progress.clean


async def test_only_the_holder_can_offer(backend: Backend, clock: trio.abc.Clock) -> None:
    """An offer with an old epoch or of another's event does nothing."""
    one, _ = await open_session(backend, "one")
    two, _ = await open_session(backend, "two")
    event_id = await begin(backend, one)
    before = backend.contents()
    await two.offer([claim(event_id, "two")], clean=[True])
    await one.offer([claim(event_id, "one", 2)], clean=[True])
    assert backend.contents() == before


async def test_a_dead_session_loses_its_events(backend: Backend, clock: trio.abc.Clock) -> None:
    """Events of a session that expired are taken by another, oldest first; those of a live one are not."""
    dead, era = await open_session(backend, "dead")
    live, _ = await open_session(backend, "live")
    ids = [await begin(backend, dead) for _ in range(3)]
    kept = await begin(backend, live)
    heir, _ = await open_session(backend, "heir")
    assert await take(heir, expire=True) == []
    await dead.renew(0.02, era.id)
    await trio.sleep(0.05)
    assert await take(heir) == []
    assert [(p.event_id, p.owner, p.epoch) for p in await take(heir, expire=True)] == [(id_, "heir", 2) for id_ in ids]
    assert await heir.held() == set(ids)
    assert await live.held() == {kept}
    assert not await dead.adopt(claim(ids[0], "dead"))
    assert await heir.adopt(claim(ids[0], "heir", 2))
    assert not (await dead.renew(LEASE, era.id)).existed
    assert set(backend.contents()[backend.keys.sessions]) == {"heir", "live", "dead"}


async def test_a_session_that_comes_back_in_time_keeps_its_events(backend: Backend, clock: trio.abc.Clock) -> None:
    """A renewal after the lease, before anybody looked, finds everything as it was."""
    stream, era = await open_session(backend, "one", lease=0.02)
    event_id = await begin(backend, stream)
    await trio.sleep(0.05)
    renewal = await stream.renew(LEASE, era.id)
    assert (renewal.existed, renewal.held) == (True, 1)
    assert await take(backend.open("heir"), expire=True) == []
    assert await stream.held() == {event_id}


async def test_nobody_expires_itself(backend: Backend, clock: trio.abc.Clock) -> None:
    """A process whose own session expired does not take its own events over."""
    stream, _ = await open_session(backend, "one", lease=0.02)
    event_id = await begin(backend, stream)
    await trio.sleep(0.05)
    assert await take(stream, expire=True) == []
    assert await stream.held() == {event_id}


async def test_what_a_dead_session_read_and_never_registered_comes_back(
    backend: Backend, clock: trio.abc.Clock
) -> None:
    """Entries delivered to a dead session come back once, claimed by the finder, who can register them."""
    dead, _ = await open_session(backend, "dead", lease=0.02)
    heir, _ = await open_session(backend, "heir")
    ids = [backend.add(*PAIRS) for _ in range(2)]
    assert len(await dead.read(10, 1)) == 2
    await trio.sleep(0.05)
    found = await strays(heir)
    assert found == [Entry(id_, tuple((n.encode(), v.encode()) for n, v in PAIRS), 1) for id_ in ids]
    assert await strays(heir) == []
    assert await dead.register([registration(ids[0])]) == [-1]
    assert await heir.register([registration(id_) for id_ in ids]) == [1, 1]
    assert set(backend.contents()[backend.keys.sessions]) == {"heir"}


async def test_a_trimmed_stray_still_ends_in_one_entry(backend: Backend, clock: trio.abc.Clock) -> None:
    """An entry that was trimmed before anyone registered it comes back without fields, until somebody closes it."""
    dead, _ = await open_session(backend, "dead", lease=0.02)
    heir, _ = await open_session(backend, "heir")
    event_id = backend.add(*PAIRS)
    await dead.read(10, 1)
    backend.trim(0)
    await trio.sleep(0.05)
    assert await strays(heir) == [Entry(event_id, None, 1)]
    assert await strays(heir) == [Entry(event_id, None, 1)]
    assert (await heir.close(Closing(event_id, "dlq", (("event_id", event_id),)))).how == "here"
    assert await strays(heir) == []
    assert set(backend.contents()[backend.keys.sessions]) == {"heir"}


async def test_a_trimmed_event_is_taken_over_and_closed(backend: Backend, clock: trio.abc.Clock) -> None:
    """An event whose entry others trimmed away is taken from a dead owner as any other, and closes."""
    heir, _ = await open_session(backend, "heir")
    event_id = await lose(backend)
    assert [progress.entry for progress in await take(heir, expire=True)] == [PAIRS]
    closed = await heir.close(Closing(event_id, "results", (("v", "1"),), claim(event_id, "heir", 2)))
    assert closed.how == "here"


async def test_consumers_without_a_session_are_audited(backend: Backend, clock: trio.abc.Clock) -> None:
    """Entries of a consumer that never opened a session are found by an audit, and by nothing else."""
    nobody, heir = backend.open("nobody"), (await open_session(backend, "heir"))[0]
    event_id = backend.add(*PAIRS)
    await nobody.read(10, 1)
    assert await strays(heir) == []
    assert [entry.id for entry in await strays(heir, audit=True)] == [event_id]


async def test_holding_without_a_session_is_found_too(backend: Backend, clock: trio.abc.Clock) -> None:
    """A process that registers without a session has one that expired, so that its event can never be stuck."""
    nobody, heir = backend.open("nobody"), (await open_session(backend, "heir"))[0]
    event_id = await begin(backend, nobody)
    await trio.sleep(0.01)
    assert [progress.event_id for progress in await take(heir, expire=True)] == [event_id]


async def test_leaving_cleans_up(backend: Backend, clock: trio.abc.Clock) -> None:
    """A session that holds nothing leaves no key behind; what one still holds expires at once."""
    one, _ = await open_session(backend, "one")
    two, _ = await open_session(backend, "two")
    event_id = await begin(backend, one)
    await two.leave()
    assert set(backend.contents()[backend.keys.sessions]) == {"one"}
    await one.leave()
    assert [progress.event_id for progress in await take(two, expire=True)] == [event_id]
    assert backend.contents().get(backend.keys.sessions, {}).keys() <= {"two"}


async def test_leaving_loses_no_event_whose_entry_was_trimmed(backend: Backend, clock: trio.abc.Clock) -> None:
    """An event that is held and, trimmed away, pending for nobody is found by others as soon as its holder leaves."""
    one, _ = await open_session(backend, "one")
    two, _ = await open_session(backend, "two")
    event_id = await lose(backend)
    for session in (one, two):
        assert [progress.event_id for progress in await take(session, expire=True)] == [event_id]
        await session.leave()


async def test_an_offered_event_without_progress_is_dropped(backend: Backend, clock: trio.abc.Clock) -> None:
    """What is offered and has ended meanwhile takes no room."""
    one, _ = await open_session(backend, "one")
    event_id = await begin(backend, one)
    assert (await one.close(Closing(event_id, "results", (("v", "1"),), claim(event_id, "one")))).how == "here"
    await one.offer([claim(event_id, "one")], clean=[True])
    look = await one.tend(5, 5, expire=True, audit=True)
    assert (look.taken, look.offered) == ((), 0)


async def test_adopting_is_noted_once(backend: Backend, clock: trio.abc.Clock) -> None:
    """The note names the session and stays as it was first written."""
    one, _ = await open_session(backend, "one")
    event_id = await begin(backend, one)
    assert await one.adopt(claim(event_id, "one"))
    first = await one.read_progress(event_id)
    await trio.sleep(0.01)
    assert await one.adopt(claim(event_id, "one"))
    assert await one.read_progress(event_id) == first
    assert first is not None
    assert first.adopted[1]["session"] == "one"
