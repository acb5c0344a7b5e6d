"""Contract of the stream: events that are asked for under a name, and looking at many events together. Every keeper."""

from __future__ import annotations

import json
from functools import partial
from typing import Literal

import pytest
import trio

from ottoscaler.errors import Unavailable
from ottoscaler.stream.base import MISMATCHED, REPEATED, Accepted, Candidate, Closing, Outcome, Stream, Writing
from ottoscaler.stream.requests import Request, Requested, Standing
from tests.stream.backends import Backend, MemoryBackend, RedisBackend
from tests.stream.steps import PAIRS, begin, claim, open_session, registration

pytestmark = pytest.mark.slow_clock
DAY = 86_400  # seconds


async def ask(stream: Stream, request_id: str = "r", content: str = "c", token: str = "t") -> Requested:
    """Ask for an event."""
    return await stream.request(PAIRS, request_id, content, token)


async def register(
    backend: Backend, stream: Stream, request_id: str = "r", content: str = "c", replay_of: str = ""
) -> tuple[str, int]:
    """An entry that somebody else added, registered: its id and the epoch."""
    event_id = backend.add(*PAIRS)
    await stream.read(10, 1.0)
    row = registration(event_id)
    named = type(row)(
        *(row.event_id, row.lane, row.entry, row.task_id, row.planned, row.offer, request_id, content, replay_of)
    )
    (epoch,) = await stream.register([named])
    return event_id, epoch


async def end(stream: Stream, event_id: str, target: Literal["results", "dlq"] = "results", kept: str = "") -> None:
    """Close an event that is held since its first taking."""
    closing = Closing(event_id, target, (("event_id", event_id),), claim(event_id, stream.session), kept=kept)
    assert (await stream.close(closing)).how == "here"


def ended(index: int, retried: int = 0) -> Outcome:
    """An outcome, of an attempt that is followed by another where `retried` says which it was."""
    return Outcome(
        index, json.dumps({"outcome": "failed"}), {"Stopped": json.dumps({"outcome": "terminated"})}, retried
    )


async def test_the_same_request_is_one_event(backend: Backend, clock: trio.abc.Clock) -> None:
    """The first asking adds the event; others under its id are told of it, whoever asks and whatever they ask for."""
    one, _ = await open_session(backend, "one")
    two, _ = await open_session(backend, "two")
    first = await ask(one)
    assert first.how == "new"
    before = backend.contents()
    assert await ask(two, token="u") == Requested(first.event_id, "known")
    assert await ask(two, content="d", token="u") == Requested(first.event_id, "other")
    assert await ask(one) == first
    assert backend.contents() == before
    assert (await ask(one, "s")).event_id != first.event_id
    assert (await one.read(10, 1.0))[0].id == first.event_id
    assert await one.read_request("r") == Request(first.event_id, "c")
    assert (await one.read_request("r") or Request("", "")).token == "t"
    assert await one.read_request("nobody's") is None


async def test_a_request_may_be_known_under_another_hash(backend: Backend, clock: trio.abc.Clock) -> None:
    """The first hash is kept; what stands under any of those that are given asks for the same."""
    one, _ = await open_session(backend, "one")
    first = await ask(one, content="written")
    assert await ask(one, content="meant written", token="u") == Requested(first.event_id, "known")
    assert (await ask(one, content="meant", token="u")).how == "other"
    second = await ask(one, "s", content="meant written")
    assert await one.read_request("s") == Request(second.event_id, "meant")
    assert (await ask(one, "s", content="mean", token="u")).how == "other"
    assert (await register(backend, one, content="meant written"))[1] == REPEATED
    assert (await register(backend, one, content="meant"))[1] == MISMATCHED


async def test_a_request_without_an_id_is_added_once_per_token(backend: Backend, clock: trio.abc.Clock) -> None:
    """A repeat with the token of a call adds nothing; another call adds another event."""
    one, _ = await open_session(backend, "one")
    first = await ask(one, "")
    assert await ask(one, "") == first
    assert (await ask(one, "", token="u")).event_id != first.event_id
    assert len(await one.read(10, 1.0)) == 2


async def test_the_key_outlives_the_event(backend: Backend, clock: trio.abc.Clock) -> None:
    """While the event waits, runs and has ended its id is known; then the key says how many workers it had."""
    one, _ = await open_session(backend, "one")
    event_id = (await ask(one)).event_id
    await one.read(1, 1.0)
    assert await one.register([registration(event_id)]) == [1]
    assert await ask(one, token="u") == Requested(event_id, "known")
    await one.record([Writing(claim(event_id, "one"), (Accepted(1, 1, "u", 1), Accepted(3, 1, "u", 1)))])
    await one.record([Writing(claim(event_id, "one"), outcomes=tuple(ended(index) for index in (1, 2, 3)))])
    await end(one, event_id, kept="of it")
    assert await ask(one, token="u") == Requested(event_id, "known")
    assert await one.read_request("r") == Request(event_id, "c", 3, (2,), "of it")
    assert ((await one.read_ending(event_id)) or ("", {}))[1] == {"event_id": event_id, "not_created": "[2]"}


@pytest.mark.parametrize("kind", ["memory"])
@pytest.mark.parametrize("target", ["results", "dlq"])
async def test_a_request_id_is_free_a_day_after_the_end(
    backend: MemoryBackend, clock: trio.abc.Clock, target: Literal["results", "dlq"]
) -> None:
    """A request that stays open for ten days is known, and for a day after its end; then its id may be used again."""
    one, _ = await open_session(backend, "one", lease=100 * DAY)
    event_id = (await ask(one)).event_id
    await one.read(1, 1.0)
    await one.register([registration(event_id)])
    await trio.sleep(10 * DAY)
    assert (await ask(one, token="u")).how == "known"
    await end(one, event_id, target)
    await trio.sleep(DAY - 10)
    assert (await ask(one, token="u")).how == "known"
    await trio.sleep(20)
    assert await one.read_request("r") is None
    assert (await ask(one, token="u")).how == "new"
    for number in range(3):
        await end(one, (await register(backend, one, f"more-{number}"))[0])
    assert set(backend.server.requests) == {"r", "more-0", "more-1", "more-2"}


async def test_redis_keeps_a_request_for_a_day(valkey: RedisBackend) -> None:
    """The key has no expiry while the event is open, and goes a day after it, before what says how it ended."""
    one, _ = await open_session(valkey, "one")
    event_id, _ = await register(valkey, one)
    assert valkey.server.command("PTTL", valkey.keys.request("r")) == -1
    await end(one, event_id)
    names = (valkey.keys.request("r"), valkey.keys.done(event_id))
    left, done_left = (valkey.server.command("PEXPIRETIME", name) for name in names)
    assert left <= done_left
    assert 0 <= DAY * 1000 - valkey.server.command("PTTL", valkey.keys.request("r")) < 10_000
    assert valkey.keys.requests not in valkey.contents()


async def test_entries_of_others_mean_the_same(backend: Backend, clock: trio.abc.Clock) -> None:
    """Of entries with one request id the first that is registered stands, for calls as for entries."""
    one, _ = await open_session(backend, "one")
    first, epoch = await register(backend, one)
    assert epoch == 1
    assert await ask(one) == Requested(first, "known")
    repeated, answer = await register(backend, one)
    assert answer == REPEATED
    before = backend.contents()
    assert (await register(backend, one, content="d"))[1] == MISMATCHED
    assert await one.read_progress(repeated) is None
    assert {key: before[key] for key in before if "request" in key} == {
        key: value for key, value in backend.contents().items() if "request" in key
    }
    assert (await one.close(Closing(repeated, "results", (("original", first),)))).how == "here"
    assert await one.read_request("r") == Request(first, "c")


async def test_an_entry_meets_the_request_of_a_call(backend: Backend, clock: trio.abc.Clock) -> None:
    """What a call asked for is registered under its own id; an entry with that id repeats it, even later."""
    one, _ = await open_session(backend, "one")
    asked = (await ask(one)).event_id
    foreign = backend.add(*PAIRS)
    await one.read(10, 1.0)
    rows = [registration(asked), registration(foreign)]
    named = [type(row)(row.event_id, "work", PAIRS, "", 3, request_id="r", content="c") for row in rows]
    assert await one.register(named) == [1, REPEATED]
    assert await one.register(named) == [1, REPEATED]
    await end(one, asked)
    assert await one.register(named) == [-1, REPEATED]


async def test_a_replayed_dead_letter_keeps_its_request_id(backend: Backend, clock: trio.abc.Clock) -> None:
    """The event that a dead letter becomes goes on under the id; it is the one that later requests are told of."""
    one, _ = await open_session(backend, "one")
    former, _ = await register(backend, one)
    await end(one, former, "dlq")
    assert (await register(backend, one, replay_of="1-1"))[1] == REPEATED
    event_id, epoch = await register(backend, one, replay_of=former)
    assert epoch == 1
    assert await ask(one, token="u") == Requested(event_id, "known")
    await end(one, event_id)
    assert (await one.read_request("r") or Request("", "")).planned == 3


async def test_no_entry_takes_the_id_of_an_event_that_is_no_dead_letter(
    backend: Backend, clock: trio.abc.Clock
) -> None:
    """Whoever writes that it replays an event which lives, or has a result, repeats it, or asks for something else."""
    one, _ = await open_session(backend, "one")
    first, _ = await register(backend, one)
    for _ in ("while it lives", "when it has ended"):
        assert (await register(backend, one, replay_of=first))[1] == REPEATED
        assert (await register(backend, one, content="d", replay_of=first))[1] == MISMATCHED
        assert await ask(one, token="u") == Requested(first, "known")
        if await one.read_progress(first):
            await end(one, first)


async def test_a_request_that_was_trimmed_unread_is_made_again(backend: Backend, clock: trio.abc.Clock) -> None:
    """An entry that others trimmed away before anybody got it stands in nobody's way, in calls and in entries."""
    one, _ = await open_session(backend, "one")
    lost = (await ask(one)).event_id
    assert (await one.look([lost]))[lost].where == "waiting"
    backend.trim(0)
    assert (await one.look([lost]))[lost] == Standing("nowhere")
    again = await ask(one, token="u")
    assert again.how == "new"
    assert again.event_id != lost
    backend.trim(0)
    event_id, epoch = await register(backend, one, content="d")
    assert epoch == 1
    assert await one.read_request("r") == Request(event_id, "d")


async def test_a_request_that_was_trimmed_after_it_was_read_still_stands(
    backend: Backend, clock: trio.abc.Clock
) -> None:
    """Delivered and pending, it will end as a dead letter: until then it is known, and its key goes the usual way."""
    one, _ = await open_session(backend, "one")
    event_id = (await ask(one)).event_id
    await one.read(1, 1.0)
    backend.trim(0)
    assert (await one.look([event_id]))[event_id].where == "waiting"
    assert (await ask(one, token="u")).how == "known"
    assert (await one.close(Closing(event_id, "dlq", (("v", "1"),)))).how == "here"
    assert (await ask(one, token="u")).how == "known"
    assert await one.read_request("r") == Request(event_id, "c")


async def test_a_look_counts(backend: Backend, clock: trio.abc.Clock) -> None:
    """Many events are looked at in one call: how many workers had a pod, never had one, and have ended."""
    one, _ = await open_session(backend, "one")
    waiting, live = (await ask(one)).event_id, ""
    await one.read(1, 1.0)
    await one.register([registration(waiting)])
    live = await begin(backend, one, planned=4, task="a")
    token = claim(live, "one")
    attempts = (Accepted(1, 1, "u", 1), Accepted(2, 2, "u", 1))
    await one.record([Writing(token, outcomes=(ended(2, retried=1),))])
    await one.record([Writing(token, attempts, troubles=((3, json.dumps({"cause": "Quota", "reason": "full"})),))])
    await one.record([Writing(token, attempts, (ended(1, retried=1), ended(2), ended(3, retried=1)))])
    await one.record([Writing(token, (Accepted(1, 2, "v", 2),), (ended(1), ended(3), ended(4, retried=1)))])
    gone = await begin(backend, one)
    await end(one, gone)
    unread = backend.add(*PAIRS)
    assert await one.look([waiting, live, gone, unread, "1-1"]) == {
        waiting: Standing("live", planned=3),
        live: Standing("live", 4, created=2, not_created=1, ended=3, trouble=("Quota", "full"), task_id="a", retried=4),
        gone: Standing("ended", ending="results"),
        unread: Standing("waiting"),
        "1-1": Standing("nowhere"),
    }
    assert [standing.is_answered for standing in (await one.look([live, gone, unread])).values()] == [
        False,
        True,
        False,
    ]
    await one.record([Writing(token, outcomes=(ended(4),))])
    assert (await one.look([live]))[live].is_answered
    assert await one.look([]) == {}


async def test_an_entry_that_nobody_will_be_given_is_nowhere(backend: Backend, clock: trio.abc.Clock) -> None:
    """An entry that is kept, behind what the group was delivered and pending for nobody, is as good as gone, as that of
    an event is whose end is forgotten; so is what is no id as Redis writes it. With a group set back it waits again.
    """
    one = backend.open("one")
    passed = backend.add(*PAIRS)
    await one.open_group("$", "default")
    unread, odd = backend.add(*PAIRS), ["0" + passed, "99999999999999999999-0"]
    stands = {passed: Standing("nowhere"), unread: Standing("waiting")} | dict.fromkeys(odd, Standing("nowhere"))
    assert await one.look(list(stands)) == stands
    await one.read(1, 1.0)
    assert await one.look(["0" + unread, unread]) == {"0" + unread: Standing("nowhere"), unread: Standing("waiting")}
    backend.set_back()
    assert await one.look([passed]) == {passed: Standing("waiting")}


async def test_workers_stopped_before_their_event_began_are_counted(backend: Backend, clock: trio.abc.Clock) -> None:
    """Their outcome is written with the mark: they have ended, and never had a pod."""
    one, _ = await open_session(backend, "one")
    event_id = await begin(backend, one, offer=True)
    down = await begin(backend, one, lane="control")
    await one.mark_victims(
        claim(down, "one"), 2, [Candidate(event_id, 1, "{}"), Candidate(event_id, 3, "{}")], last=True
    )
    assert (await one.look([event_id]))[event_id] == Standing("live", 3, not_created=2, ended=2)


async def test_a_thousand_events_are_looked_at(backend: Backend, clock: trio.abc.Clock) -> None:
    """Beyond what one script call takes, every event is answered for."""
    one, _ = await open_session(backend, "one")
    ids = [backend.add(*PAIRS) for _ in range(1100)]
    assert set((await one.look(ids)).values()) == {Standing("waiting")}


async def test_a_large_event_names_those_that_were_never_created(backend: Backend, clock: trio.abc.Clock) -> None:
    """Of 1,100 workers the result lists those whose pod was never accepted, retried ones with a pod left out."""
    one, _ = await open_session(backend, "one")
    event_id = await begin(backend, one, planned=1100)
    token = claim(event_id, "one")
    accepted = [Accepted(index, 1, "u", 1) for index in range(1, 1101) if index not in (7, 501, 1100)]
    await one.record([Writing(token, (*accepted, Accepted(501, 2, "u", 1)), (ended(501, retried=1),))])
    await one.record([Writing(token, outcomes=tuple(ended(index) for index in range(1, 1101)))])
    assert (await one.look([event_id]))[event_id] == Standing("live", 1100, 1098, 2, 1100, retried=1)
    await end(one, event_id)
    assert ((await one.read_ending(event_id)) or ("", {}))[1]["not_created"] == "[7,1100]"


@pytest.mark.parametrize("kind", ["memory"])
@pytest.mark.parametrize("request_id", ["r", ""])
async def test_a_lost_answer_adds_nothing_twice(backend: MemoryBackend, clock: trio.abc.Clock, request_id: str) -> None:
    """A request that was carried out without an answer is answered as the first time when it is repeated."""
    one, _ = await open_session(backend, "one")
    backend.server.lose_answer_of.add("request")
    with pytest.raises(Unavailable):
        await ask(one, request_id)
    before = backend.contents()
    assert (await ask(one, request_id)).how == "new"
    assert backend.contents() == before


async def test_targets_that_meet_stop_no_more_than_each_asked(backend: Backend, clock: trio.abc.Clock) -> None:
    """Two who saw the same six workers and want three to remain stop three: what one has marked counts for the other.

    Cut off and repeated, and page by page, neither marks more.
    """
    one, _ = await open_session(backend, "one")
    up = await begin(backend, one, planned=6)
    first, second = await begin(backend, one, lane="control"), await begin(backend, one, lane="control")
    seen = [Candidate(up, index, "{}") for index in range(6, 0, -1)]
    mark = partial(one.mark_victims, claim(first, "one"), 3, passed_count=True)
    for _ in range(2):
        assert await mark(seen[:2], last=False) == ((up, 6), (up, 5))
    late = partial(one.mark_victims, claim(second, "one"), passed_count=True)
    for _ in range(2):
        assert await late(3, seen[:3], last=False) == ((up, 4),)
    assert await mark(seen[2:], last=False) == ((up, 6), (up, 5))
    assert await late(1, seen[3:], last=False) == ((up, 4),)
    progress = await one.read_progress(up)
    assert progress is not None
    assert set(progress.stops) == {4, 5, 6}


async def test_a_target_for_many_is_counted_over_all_pages(backend: Backend, clock: trio.abc.Clock) -> None:
    """With 1,200 workers, 700 of them marked by another, the 800 that are to go are those and 100 more."""
    one, _ = await open_session(backend, "one")
    up = await begin(backend, one, planned=1200)
    first, second = await begin(backend, one, lane="control"), await begin(backend, one, lane="control")
    seen = [Candidate(up, index, "{}") for index in range(1, 1201)]
    assert len(await one.mark_victims(claim(first, "one"), 700, seen, last=True) or ()) == 700
    victims = await one.mark_victims(claim(second, "one"), 800, seen, last=True, passed_count=True)
    assert victims == tuple((up, index) for index in range(701, 801))


async def test_results_are_read_back(backend: Backend, clock: trio.abc.Clock) -> None:
    """Page by page from the newest to the oldest, each once."""
    one, _ = await open_session(backend, "one")
    assert await one.read_results_back("", 3) == []
    ids = [await begin(backend, one) for _ in range(7)]
    for event_id in ids:
        await end(one, event_id)
    found: list[str] = []
    before = ""
    while page := await one.read_results_back(before, 3):
        assert len(page) == min(3, 7 - len(found))
        found += (fields["event_id"] for _, fields in page)
        before = page[-1][0]
    assert found == ids[::-1]
