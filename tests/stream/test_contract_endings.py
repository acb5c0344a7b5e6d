"""Contract of the stream, second half: recording, stopping, closing, reading what was written. Every keeper."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from ottoscaler.errors import Unavailable
from ottoscaler.stream.base import Accepted, Candidate, Closing, Outcome, Writing, Written
from ottoscaler.stream.retention import Retention
from tests.stream.backends import Backend
from tests.stream.steps import PAIRS, begin, claim, open_session, registration, strays, take

pytestmark = pytest.mark.slow_clock


def outcome(index: int, how: str = "succeeded") -> Outcome:
    """An outcome, which would be `terminated` under a stop mark."""
    return Outcome(index, json.dumps({"outcome": how}), {"Stopped": json.dumps({"outcome": "terminated"})})


def candidate(event_id: str, index: int) -> Candidate:
    """A worker that may be stopped."""
    return Candidate(event_id, index, json.dumps({"outcome": "terminated"}))


def result(event_id: str, session: str, epoch: int = 1, **fields: str) -> Closing:
    """The close of an event with a result."""
    return Closing(
        event_id, "results", tuple({"event_id": event_id, **fields}.items()), claim(event_id, session, epoch)
    )


async def test_outcomes_are_recorded_once(backend: Backend, clock: trio.abc.Clock) -> None:
    """The first outcome of a worker stands; a repeat and a contradiction are answered with it."""
    one, _ = await open_session(backend, "one")
    event_id = await begin(backend, one)
    writing = Writing(
        claim(event_id, "one"), (Accepted(1, 1, "u-1", 1000), Accepted(2, 1, "u-2", 2000)), (outcome(1), outcome(2))
    )
    written = [Written(True, (outcome(1).outcome, outcome(2).outcome))]
    assert await one.record([writing]) == written
    before = backend.contents()
    assert await one.record([writing]) == written
    assert backend.contents() == before
    other = Writing(claim(event_id, "one"), (Accepted(1, 1, "u-9", 9),), (outcome(1, "failed"),))
    assert await one.record([other]) == [Written(True, (outcome(1).outcome,))]
    assert backend.contents() == before
    progress = await one.read_progress(event_id)
    assert progress is not None
    assert (progress.started, progress.accepted) == (
        1000,
        {(1, 1): {"uid": "u-1", "at": 1000}, (2, 1): {"uid": "u-2", "at": 2000}},
    )
    assert progress.outcomes == {1: {"outcome": "succeeded"}, 2: {"outcome": "succeeded"}}


async def test_one_call_records_for_many_events(backend: Backend, clock: trio.abc.Clock) -> None:
    """Each event's claim is judged by itself; one that is lost stops none of the others."""
    one, _ = await open_session(backend, "one")
    ids = [await begin(backend, one) for _ in range(3)]
    await one.offer([claim(ids[1], "one")], clean=[False])
    answers = await one.record([Writing(claim(id_, "one"), outcomes=(outcome(1),)) for id_ in ids])
    assert [(answer.is_ours, len(answer.outcomes)) for answer in answers] == [(True, 1), (False, 0), (True, 1)]
    assert await one.record([Writing(claim(ids[0], "one"))]) == [Written(True, ())]


async def test_thousands_of_outcomes_are_recorded(backend: Backend, clock: trio.abc.Clock) -> None:
    """Beyond what one script call takes, everything is recorded and answered in order."""
    one, _ = await open_session(backend, "one")
    event_id = await begin(backend, one, planned=2500)
    accepted = tuple(Accepted(index, 1, f"u-{index}", index) for index in range(1, 2501))
    outcomes = tuple(outcome(index, f"o-{index}") for index in range(1, 2501))
    [written] = await one.record([Writing(claim(event_id, "one"), accepted, outcomes)])
    assert written == Written(True, tuple(one_.outcome for one_ in outcomes))
    progress = await one.read_progress(event_id)
    assert progress is not None
    assert (len(progress.accepted), len(progress.outcomes), progress.started) == (2500, 2500, 1)


async def test_a_former_owner_records_nothing(backend: Backend, clock: trio.abc.Clock) -> None:
    """After a hand-over and back to the same session the old epoch is refused: names may come back, epochs do not."""
    one, _ = await open_session(backend, "one")
    two, _ = await open_session(backend, "two")
    event_id = await begin(backend, one)
    await one.offer([claim(event_id, "one")], clean=[False])
    await take(two)
    await two.offer([claim(event_id, "two", 2)], clean=[False])
    await take(one)
    before = backend.contents()
    assert await one.record([Writing(claim(event_id, "one", 1), outcomes=(outcome(1),))]) == [Written(is_ours=False)]
    assert not await one.adopt(claim(event_id, "one", 1))
    assert (await one.close(result(event_id, "one", 1))).how == "lost"
    assert backend.contents() == before
    assert (await one.close(result(event_id, "one", 3))).how == "here"


async def test_the_survey_shows_live_work(backend: Backend, clock: trio.abc.Clock) -> None:
    """All live events of the work lane, oldest first, by task, with what is settled and accepted."""
    one, _ = await open_session(backend, "one")
    first = await begin(backend, one, task="a")
    down = await begin(backend, one, lane="control")
    second = await begin(backend, one, task="b", offer=True)
    await one.record([Writing(claim(first, "one"), (Accepted(1, 1, "u", 1), Accepted(12, 2, "u", 1)), (outcome(1),))])
    await one.mark_victims(claim(down, "one"), 1, [candidate(first, 2)], last=True)
    found = await one.survey("")
    assert [(live.event_id, live.task_id, live.planned, live.epoch, live.owner) for live in found] == [
        (first, "a", 3, 1, "one"),
        (second, "b", 3, 0, ""),
    ]
    assert found[0].settled == {1, 2}
    assert found[0].accepted == {1, 12}
    assert [live.event_id for live in await one.survey("b")] == [second]
    assert await one.survey("c") == []


async def test_victims_are_marked_and_their_owner_is_told(backend: Backend, clock: trio.abc.Clock) -> None:
    """Victims are chosen in order, passing over the settled; each owner gets one notice, each outcome its way back."""
    one, _ = await open_session(backend, "one")
    two, _ = await open_session(backend, "two")
    up = await begin(backend, one)
    down = await begin(backend, two, lane="control")
    await one.record([Writing(claim(up, "one"), outcomes=(outcome(1),))])
    wishes = [candidate(up, 1), candidate("1-1", 1), candidate(up, 2), candidate(up, 2), candidate(up, 3)]
    chosen = ((up, 2), (up, 3))
    assert await two.mark_victims(claim(down, "two"), 2, wishes, last=False) == chosen
    before = backend.contents()
    assert await two.mark_victims(claim(down, "two"), 2, [candidate(up, 1)], last=False) == chosen
    assert backend.contents() == before
    assert (await one.tend(0, 0, expire=False, audit=False)).notices == (up,)
    assert (await one.tend(0, 0, expire=False, audit=False)).notices == ()
    progress = await one.read_progress(up)
    assert progress is not None
    assert progress.stops == {index: {"by": down, "cause": "Stopped"} for index in (2, 3)}
    assert await one.record([Writing(claim(up, "one"), outcomes=(outcome(2, "failed"),))]) == [
        Written(True, (outcome(2).if_stopped["Stopped"],))
    ]
    assert (await two.tend(0, 0, expire=False, audit=False)).notices == (down,)
    asker = await two.read_progress(down)
    assert asker is not None
    assert (asker.victims, asker.victims_chosen) == (chosen, True)
    assert asker.victim_outcomes == {(up, 2): {"outcome": "terminated"}}


async def test_victims_can_be_chosen_in_several_calls(backend: Backend, clock: trio.abc.Clock) -> None:
    """The list grows until it is complete, by its number or because the last call said so; a stranger gets None."""
    one, _ = await open_session(backend, "one")
    up, down = await begin(backend, one), await begin(backend, one, lane="control")
    assert await one.mark_victims(claim(down, "one", 2), 1, [candidate(up, 1)], last=True) is None
    assert await one.mark_victims(claim(down, "one"), 3, [candidate(up, 1)], last=False) == ((up, 1),)
    assert await one.mark_victims(claim(down, "one"), 3, [candidate(up, 1)], last=False) == ((up, 1),)
    assert await one.mark_victims(claim(down, "one"), 3, [candidate(up, 2)], last=True) == ((up, 1), (up, 2))
    assert await one.mark_victims(claim(down, "one"), 3, [candidate(up, 3)], last=True) == ((up, 1), (up, 2))


async def test_nothing_to_stop_is_a_complete_answer(backend: Backend, clock: trio.abc.Clock) -> None:
    """Without candidates the list is empty and complete."""
    one, _ = await open_session(backend, "one")
    down = await begin(backend, one, lane="control")
    assert await one.mark_victims(claim(down, "one"), 3, [], last=True) == ()
    progress = await one.read_progress(down)
    assert progress is not None
    assert (progress.victims, progress.victims_chosen) == ((), True)


async def test_workers_never_begun_end_at_once(backend: Backend, clock: trio.abc.Clock) -> None:
    """Where nobody ever began the event the outcome is written at once; nothing left to run needs no scaling."""
    one, _ = await open_session(backend, "one")
    up, down = await begin(backend, one, planned=2, offer=True), await begin(backend, one, lane="control")
    assert await one.mark_victims(claim(down, "one"), 2, [candidate(up, 2)], last=False) == ((up, 2),)
    assert await take(one, work=0) == []
    assert await one.mark_victims(claim(down, "one"), 2, [candidate(up, 1)], last=True) == ((up, 2), (up, 1))
    asker = await one.read_progress(down)
    assert asker is not None
    assert asker.victim_outcomes.keys() == {(up, 1), (up, 2)}
    [taken] = await take(one, work=0)
    assert (taken.event_id, set(taken.outcomes), taken.stops) == (up, {1, 2}, {})


async def test_a_marked_offer_waits_for_no_scaling(backend: Backend, clock: trio.abc.Clock) -> None:
    """An offered event that bears marks moves to the control lane, and so does one that is offered with marks."""
    one, _ = await open_session(backend, "one")
    up, down = await begin(backend, one), await begin(backend, one, lane="control")
    await one.offer([claim(up, "one")], clean=[False])
    await one.mark_victims(claim(down, "one"), 1, [candidate(up, 1)], last=True)
    assert [(p.event_id, p.epoch) for p in await take(one, work=0)] == [(up, 2)]
    await one.offer([claim(up, "one", 2)], clean=[False])
    assert [(p.event_id, p.epoch) for p in await take(one, work=0)] == [(up, 3)]
    await one.record([Writing(claim(up, "one", 3), outcomes=(outcome(1),))])
    await one.offer([claim(up, "one", 3)], clean=[False])
    assert await take(one, work=0) == []
    assert [(p.event_id, p.epoch) for p in await take(one)] == [(up, 4)]


async def test_a_close_leaves_one_result_and_nothing_else(backend: Backend, clock: trio.abc.Clock) -> None:
    """Result, acknowledgement and the end of the progress come together; a repeat says `before`."""
    one = backend.open("one", Retention())
    era = await one.open_group("0", "default")
    await one.renew(60, era.id)
    event_id = await begin(backend, one)
    closed = await one.close(result(event_id, "one", status="succeeded"))
    assert closed.how == "here"
    again = await one.close(result(event_id, "one", status="failed"))
    assert (again.how, again.entry_id) == ("before", closed.entry_id)
    assert await one.read_ending(event_id) == ("results", {"event_id": event_id, "status": "succeeded"})
    assert await one.read_progress(event_id) is None
    assert await one.live_events() == []
    assert await one.held() == frozenset()
    keys = backend.keys
    assert set(backend.contents()) - {keys.stream} == {
        *(keys.results, keys.results_kept, keys.sessions, keys.era, keys.done(event_id))
    }
    assert not backend.contents().get(keys.stream)
    assert await one.read_ending("1-1") is None


async def test_a_bad_entry_becomes_a_dead_letter(backend: Backend, clock: trio.abc.Clock) -> None:
    """A close without a claim needs a pending entry without progress; whatever else it is given, it writes nothing."""
    one, _ = await open_session(backend, "one")
    bad = backend.add(("type", "nonsense"))
    letter = Closing(bad, "dlq", (("event_id", bad), ("cause", "UnknownType")))
    assert (await one.close(letter)).how == "lost"
    await one.read(1, 1)
    assert (await one.close(letter)).how == "here"
    assert (await one.close(letter)).how == "before"
    assert await one.read_ending(bad) == ("dlq", {"event_id": bad, "cause": "UnknownType"})
    good = await begin(backend, one)
    assert (await one.close(Closing(good, "dlq", (("event_id", good),)))).how == "lost"
    assert (await one.close(Closing("1-1", "dlq", (("event_id", "1-1"),)))).how == "lost"
    assert len(await one.read_entries("dlq", "0", 10, 0)) == 1


@pytest.mark.parametrize("is_bad", [False, True])
async def test_an_event_that_ended_is_pending_no_more(is_bad: bool, backend: Backend, clock: trio.abc.Clock) -> None:
    """A result and a dead letter acknowledge the entry, and nothing else does: before, it is pending for its reader."""
    one, _ = await open_session(backend, "one")
    event_id = backend.add(*PAIRS)
    await one.read(1, 1.0)
    if not is_bad:
        await one.register([registration(event_id)])
    assert backend.pending() == {event_id}
    target = Closing(event_id, "dlq", (("event_id", event_id),)) if is_bad else result(event_id, "one")
    assert (await one.close(target)).how == "here"
    assert backend.pending() == set()


async def test_an_event_that_ended_is_not_begun_again(backend: Backend, clock: trio.abc.Clock) -> None:
    """Delivered once more by a group that was set back, it is acknowledged at the first sight and given to nobody."""
    heir, _ = await open_session(backend, "heir")
    event_id = await begin(backend, heir)
    await heir.close(result(event_id, "heir"))
    backend.set_back()
    assert [entry.id for entry in await heir.read(1, 1.0)] == [event_id]
    assert await heir.register([registration(event_id)]) == [-1]
    assert await heir.read_progress(event_id) is None
    backend.set_back()
    dead, _ = await open_session(backend, "dead", lease=0.02)
    await dead.read(1, 1.0)
    await trio.sleep(0.05)
    assert await strays(heir) == []
    assert backend.pending() == set()


@pytest.mark.parametrize(("trim", "groups", "is_kept"), [("auto", 1, False), ("auto", 2, True), ("off", 1, True)])
async def test_closed_entries_leave_the_stream(
    backend: Backend, clock: trio.abc.Clock, trim: Any, groups: int, is_kept: bool
) -> None:
    """By itself only while ours is the only group, never when switched off."""
    one = backend.open("one", Retention(trim=trim))
    await one.open_group("0", "default")
    event_id, other = await begin(backend, one), backend.add(*PAIRS)
    if groups == 2:
        backend.add_group("others")
    await one.close(result(event_id, "one"))
    assert len(backend.contents()[backend.keys.stream]) == (2 if is_kept else 1)
    assert [entry.id for entry in await one.read(10, 0)] == [other]


async def test_another_group_keeps_what_it_needs(backend: Backend, clock: trio.abc.Clock) -> None:
    """Switched on, a closed entry stays while another group has not read it, or has it pending."""
    one = backend.open("one", Retention(trim="on"))
    await one.open_group("0", "default")
    ids = [await begin(backend, one) for _ in range(2)]
    backend.add_group("others")
    backend.deliver("others", 1)
    for id_ in ids:
        await one.close(result(id_, "one"))
    assert len(backend.contents()[backend.keys.stream]) == 2
    third = await begin(backend, one)
    backend.deliver("others", 2)
    backend.acknowledge("others", third)
    await one.close(result(third, "one"))
    assert len(backend.contents()[backend.keys.stream]) == 2


async def test_results_are_trimmed_by_number(backend: Backend, clock: trio.abc.Clock) -> None:
    """The newest results stay; the ending of an older event is known without its fields; dead letters all stay."""
    one = backend.open("one", Retention(results_keep=2))
    await one.open_group("0", "default")
    ids = [await begin(backend, one) for _ in range(4)]
    for id_ in ids:
        await one.close(result(id_, "one"))
    kept = await one.read_entries("results", "0", 10, 0)
    assert [fields["event_id"] for _, fields in kept] == ids[2:]
    assert await one.read_ending(ids[0]) == ("results", {})
    for _ in range(4):
        bad = backend.add(("type", "x"))
        await one.read(1, 1)
        await one.close(Closing(bad, "dlq", (("event_id", bad),)))
    assert len(await one.read_entries("dlq", "0", 10, 0)) == 4


async def test_results_are_trimmed_by_bytes(backend: Backend, clock: trio.abc.Clock) -> None:
    """Their size stays below the limit, the newest one stays however large it is, and foreign trimming is noticed."""
    one = backend.open("one", Retention(results_max_bytes=3000))
    await one.open_group("0", "default")

    async def close_one(size: int) -> int:
        event_id = await begin(backend, one)
        await one.close(result(event_id, "one", pad="x" * (size - len(event_id) - len("event_idpad"))))
        return len(await one.read_entries("results", "0", 100, 0))

    assert [await close_one(1000) for _ in range(5)] == [1, 2, 3, 3, 3]
    assert await close_one(5000) == 1
    assert [await close_one(1000) for _ in range(4)] == [1, 2, 3, 3]
    assert backend.contents()[backend.keys.results_kept] == {"entries": "3", "bytes": "3000"}
    backend.empty_results()
    assert [await close_one(1000) for _ in range(4)] == [1, 2, 3, 3]


async def test_an_event_is_added_once_per_token(backend: Backend, clock: trio.abc.Clock) -> None:
    """A producer that repeats its call gets the same entry; another token adds another."""
    one, _ = await open_session(backend, "one")
    first = await one.add_event(PAIRS, "token-1")
    assert await one.add_event(PAIRS, "token-1") == first
    second = await one.add_event(PAIRS, "token-2")
    assert [entry.id for entry in await one.read(10, 1)] == [first, second]


async def test_entries_can_be_followed(backend: Backend, clock: trio.abc.Clock) -> None:
    """Results are read from an id on, a reader waits for the next one, and `$` shows only what is new."""
    one, _ = await open_session(backend, "one")
    ids = [await begin(backend, one) for _ in range(4)]
    assert await one.read_entries("results", "0", 10, 0.05) == []
    entry_ids = [(await one.close(result(id_, "one"))).entry_id for id_ in ids[:2]]
    assert [id_ for id_, _ in await one.read_entries("results", "0", 1, 0)] == entry_ids[:1]
    assert [id_ for id_, _ in await one.read_entries("results", entry_ids[0], 10, 0)] == entry_ids[1:]
    seen: list[str] = []

    async def follow() -> None:
        seen.extend(fields["event_id"] for _, fields in await one.read_entries("results", "$", 10, 15))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        nursery.start_soon(follow)
        await backend.wait_blocked(2)
        await one.close(result(ids[2], "one"))
    assert seen == [ids[2], ids[2]]


async def test_text_survives_every_way(backend: Backend, clock: trio.abc.Clock) -> None:
    """Quotes, slashes, control characters and other alphabets come back as they were given."""
    one, _ = await open_session(backend, "one")
    odd = 'a"b\\c/d\n\t\x00\x7f€ß漢😀[1,2]{}'
    event_id = backend.add(*PAIRS)
    await one.read(1, 1)
    row = registration(event_id, task=odd)
    row = type(row)(row.event_id, row.lane, ((odd, odd),), odd, row.planned)
    assert await one.register([row]) == [1]
    progress = await one.read_progress(event_id)
    assert progress is not None
    assert (progress.entry, progress.task_id) == (((odd, odd),), odd)
    await one.record([Writing(claim(event_id, "one"), outcomes=(Outcome(1, json.dumps({"r": odd})),))])
    await one.close(result(event_id, "one", odd=odd))
    assert await one.read_ending(event_id) == (
        "results",
        {"event_id": event_id, "odd": odd, "not_created": "[1,2,3]"},
    )


async def test_the_server_reports_itself(backend: Backend, clock: trio.abc.Clock) -> None:
    """Version and persistence are known, with a sentence on what they promise; waiting for durability ends."""
    one, _ = await open_session(backend, "one")
    report = await one.report()
    assert report.version.split()[0] in ("memory", "Valkey", "Redis")
    assert report.append_only is False
    assert report.promise
    with trio.fail_after(2.5):  # and not 3 s, for which it waits where a server cannot tell
        await one.wait_durable()


async def test_unavailable_is_an_answer(backend: Backend, clock: trio.abc.Clock) -> None:
    """A server that is away gives an error that names it."""
    one = backend.open_unreachable("one")
    with pytest.raises(Unavailable) as caught:
        await one.live_events()
    assert caught.value.address
