"""Contract of the stream, third part: dead letters replayed, dropped and restored. Every keeper."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ottoscaler.errors import Unavailable
from ottoscaler.events import BadEntry
from ottoscaler.outcomes import dead_letter_pairs
from ottoscaler.stream.base import Closing, Stream
from ottoscaler.stream.dead_letters import Letter, Replayed, Restored
from ottoscaler.stream.requests import Request
from tests.stream.backends import Backend, Field, MemoryBackend, RedisBackend
from tests.stream.steps import begin, claim, open_session

pytestmark = pytest.mark.slow_clock
BytePairs = tuple[tuple[bytes, bytes], ...]
BAD: BytePairs = ((b"type", b"scale_sideways"), (b"\xff\x00", b"a\xfeb"), (b"type", b""))


async def refuse(backend: Backend, stream: Stream, *pairs: Field) -> tuple[str, str]:
    """Add an entry, read it and refuse it; the ids of the event and of its dead letter."""
    event_id = backend.add(*(pairs or BAD))
    [entry] = await stream.read(1, 1.0)
    letter = letter_pairs(event_id, entry.fields or ())
    closed = await stream.close(Closing(event_id, "dlq", letter))
    assert (entry.id, closed.how) == (event_id, "here")
    return event_id, closed.entry_id


def letter_pairs(event_id: str, pairs: BytePairs) -> tuple[tuple[str, str], ...]:
    """A dead letter as a scaler writes it."""
    bad = BadEntry(event_id, "UnknownType", "field type is odd", pairs)
    return dead_letter_pairs(bad, deliveries=1, failed=1_756_659_802.5)


async def letters(stream: Stream) -> list[tuple[str, str]]:
    """Event and id of each dead letter."""
    return [(fields["event_id"], id_) for id_, fields in await stream.read_entries("dlq", "0", 100_000, 0)]


async def next_entry(stream: Stream) -> tuple[str, BytePairs | None]:
    """Id and pairs of the next new event."""
    [entry] = await stream.read(1, 1.0)
    return entry.id, entry.fields


async def test_what_was_refused_and_comes_again_is_refused_once(backend: Backend, clock: trio.abc.Clock) -> None:
    """Delivered once more by a group that was set back, a refused entry keeps its one letter, and is done with."""
    one, _ = await open_session(backend, "one")
    event_id, letter_id = await refuse(backend, one)
    backend.set_back()
    assert [entry.id for entry in await one.read(1, 1.0)] == [event_id]
    assert backend.pending() == {event_id}
    closed = await one.close(Closing(event_id, "dlq", letter_pairs(event_id, BAD)))
    assert (closed.how, closed.entry_id) == ("before", letter_id)
    assert (await letters(one), backend.pending()) == ([(event_id, letter_id)], set())


async def test_a_replay_is_the_entry_and_what_it_replays(backend: Backend, clock: trio.abc.Clock) -> None:
    """The new event has the old one's bytes in their order, then the old one's id; the dead letter is gone."""
    one, _ = await open_session(backend, "one")
    former, letter_id = await refuse(backend, one)
    [answer] = await one.replay_dead_letters([letter_id])
    assert answer.how == "here"
    assert await next_entry(one) == (answer.event_id, (*BAD, (b"otto.replay_of", former.encode())))
    assert await letters(one) == []
    assert await one.dead_letter_of(former) == letter_id


PIPELINE = '{"pipeline_id":"p é","stages":[{"stage_id":"a","worker_count":1}]}'


@pytest.mark.parametrize(
    ("request_id", "field"), [("r é", ("otto.request_id", "r é")), ("pipeline:p é", ("otto.pipeline", PIPELINE))]
)
async def test_a_request_id_means_the_replay_at_once(
    backend: Backend, clock: trio.abc.Clock, request_id: str, field: tuple[str, str]
) -> None:
    """From the replay on, not only from when somebody reads it, and also where it is refused and replayed again; a
    request id that means another event is left alone.
    """
    one, _ = await open_session(backend, "one")
    pairs = [("type", "pipeline"), field]
    asked = await one.request(pairs, request_id, "hash", "token")
    for _ in range(2):
        [entry] = await one.read(1, 1.0)
        closed = await one.close(Closing(entry.id, "dlq", letter_pairs(entry.id, entry.fields or ())))
        [answer] = await one.replay_dead_letters([closed.entry_id])
        assert await one.read_request(request_id) == Request(answer.event_id, "hash")
        again = await one.request(pairs, request_id, "hash other", "of another call")
        assert (again.event_id, again.how) == (answer.event_id, "known")
        assert (await one.look([answer.event_id]))[answer.event_id].where == "waiting"
    assert answer.event_id != asked.event_id
    [entry] = await one.read(1, 1.0)
    _, letter_id = await refuse(backend, one, *[(name.encode(), value.encode()) for name, value in pairs])
    await one.replay_dead_letters([letter_id])
    assert await one.read_request(request_id) == Request(answer.event_id, "hash")


async def test_a_replay_asked_twice_adds_one_event(backend: Backend, clock: trio.abc.Clock) -> None:
    """Each repeat, from whichever session, is answered with the same event and changes nothing."""
    one, _ = await open_session(backend, "one")
    _, letter_id = await refuse(backend, one)
    [first] = await one.replay_dead_letters([letter_id])
    before = backend.contents()
    again = await backend.open("two").replay_dead_letters([letter_id, letter_id])
    assert again == [Replayed("before", first.event_id)] * 2
    assert backend.contents() == before


async def test_a_replay_of_a_replay_names_the_last_one(backend: Backend, clock: trio.abc.Clock) -> None:
    """What an earlier replay noted is replaced; a chain of replays makes the entry no longer."""
    one, _ = await open_session(backend, "one")
    _, letter_id = await refuse(backend, one)
    [answer] = await one.replay_dead_letters([letter_id])
    second, pairs = await next_entry(one)
    closed = await one.close(Closing(second, "dlq", letter_pairs(second, pairs or ())))
    [answer] = await one.replay_dead_letters([closed.entry_id])
    assert await next_entry(one) == (answer.event_id, (*BAD, (b"otto.replay_of", second.encode())))


async def test_what_cannot_be_replayed_stays(backend: Backend, clock: trio.abc.Clock) -> None:
    """A trimmed entry, one in an unknown form and one with more fields than a script can add stay where they are."""
    one, _ = await open_session(backend, "one")
    wide = tuple((b"%d" % number, b"") for number in range(3901))
    ids = []
    for pairs in (letter_pairs("1-1", ()), letter_pairs("2-1", wide), (("entry", "no JSON"), ("event_id", "3-1"))):
        event_id = await begin(backend, one)
        ids.append((await one.close(Closing(event_id, "dlq", pairs, claim(event_id, "one")))).entry_id)
    before = backend.contents()
    answers = await one.replay_dead_letters([*ids, "5-5"])
    assert [answer.how for answer in answers] == ["empty", "too_many", "unreadable", "missing"]
    assert backend.contents() == before


async def test_the_widest_entry_is_replayed(backend: Backend, clock: trio.abc.Clock) -> None:
    """3,900 fields come back in one command."""
    one, _ = await open_session(backend, "one")
    wide = tuple((b"%d" % number, b"x") for number in range(3900))
    _, letter_id = await refuse(backend, one, *wide)
    assert [answer.how for answer in await one.replay_dead_letters([letter_id])] == ["here"]
    assert ((await next_entry(one))[1] or ())[:-1] == wide


async def test_many_letters_are_handled_in_order(backend: Backend, clock: trio.abc.Clock) -> None:
    """Beyond what one script call takes, every letter is replayed, or dropped, and answered in order."""
    one, _ = await open_session(backend, "one")
    refused = [await refuse(backend, one, ("number", str(number))) for number in range(130)]
    answers = await one.replay_dead_letters([letter_id for _, letter_id in refused[:120]])
    assert {answer.how for answer in answers} == {"here"}
    entries = await one.read(200, 1.0)
    assert [entry.id for entry in entries] == [answer.event_id for answer in answers]
    assert [(entry.fields or ())[0][1] for entry in entries] == [b"%d" % number for number in range(120)]
    assert await one.drop_dead_letters([letter_id for _, letter_id in refused]) == 10
    assert await one.drop_dead_letters([letter_id for _, letter_id in refused]) == 0
    assert await letters(one) == []


async def test_a_dropped_letter_comes_back_by_restoring(backend: Backend, clock: trio.abc.Clock) -> None:
    """A restored letter has all its pairs and replays as the first would have; what is there is not written twice."""
    one, _ = await open_session(backend, "one")
    event_id, letter_id = await refuse(backend, one)
    letter = Letter(event_id, letter_id, letter_pairs(event_id, BAD))
    assert [answer.how for answer in await one.restore_dead_letters([letter], "0")] == ["there"]
    await one.drop_dead_letters([letter_id])
    answers = await one.restore_dead_letters([letter, letter], "0")
    assert [answer.how for answer in answers] == ["here", "there"]
    assert await one.read_entries("dlq", "0", 10, 0) == [(answers[0].letter_id, dict(letter.pairs))]
    assert await one.dead_letter_of(event_id) == answers[0].letter_id
    await one.replay_dead_letters([answers[0].letter_id])
    assert (await next_entry(one))[1] == (*BAD, (b"otto.replay_of", event_id.encode()))
    assert await one.restore_dead_letters([letter], "0") == [Restored("replayed")]


async def test_what_lives_on_is_not_restored(backend: Backend, clock: trio.abc.Clock) -> None:
    """No letter is restored whose event was replayed since, or has ended with a result."""
    one, _ = await open_session(backend, "one")
    replayed, letter_id = await refuse(backend, one)
    await one.replay_dead_letters([letter_id])
    await one.read(1, 1.0)
    ended = await begin(backend, one)
    await one.close(Closing(ended, "results", (("event_id", ended),), claim(ended, "one")))
    before = backend.contents()
    chosen = [Letter(id_, "1-1", letter_pairs(id_, BAD)) for id_ in (replayed, ended)]
    chosen.append(Letter("9-9", letter_id, letter_pairs("9-9", BAD)))
    assert [answer.how for answer in await one.restore_dead_letters(chosen, "0")] == ["replayed", "ended", "replayed"]
    assert backend.contents() == before
    assert await one.dead_letter_of(ended) is None


async def test_letters_beyond_a_page_are_looked_at(backend: Backend, clock: trio.abc.Clock) -> None:
    """Only what was written behind the id that the caller knows is looked at, and all of that."""
    one, _ = await open_session(backend, "one")
    many = [Letter(f"{number}-7", "1-1", letter_pairs(f"{number}-7", BAD)) for number in range(1, 1102)]
    written = await one.restore_dead_letters(many, "0")
    assert {answer.how for answer in written} == {"here"}
    assert {answer.how for answer in await one.restore_dead_letters(many[-60:], "0")} == {"there"}
    last = written[-1].letter_id
    assert [answer.how for answer in await one.restore_dead_letters(many[:1], last)] == ["here"]


@pytest.mark.parametrize("kind", ["memory"])
@pytest.mark.parametrize("name", ["replay", "restore"])
async def test_a_lost_answer_doubles_nothing(backend: MemoryBackend, clock: trio.abc.Clock, name: str) -> None:
    """A replay or restoring that was carried out without an answer changes nothing more when it is repeated."""
    one, _ = await open_session(backend, "one")
    event_id, letter_id = await refuse(backend, one)
    others = [Letter("9-9", "1-1", letter_pairs("9-9", BAD))]
    backend.server.lose_answer_of.add(name)
    with pytest.raises(Unavailable):
        await (one.replay_dead_letters([letter_id]) if name == "replay" else one.restore_dead_letters(others, "0"))
    before = backend.contents()
    if name == "replay":
        [answer] = await one.replay_dead_letters([letter_id])
        assert (answer.how, await next_entry(one)) == (
            "before",
            (answer.event_id, (*BAD, (b"otto.replay_of", event_id.encode()))),
        )
    else:
        assert await one.restore_dead_letters(others, "0") == [Restored("there")]
    assert backend.contents() == before


@pytest.mark.parametrize("kind", ["memory"])
async def test_a_replay_is_remembered_for_a_day(backend: MemoryBackend, clock: trio.abc.Clock) -> None:
    """For a day a repeat is answered with the event; afterwards there is no such dead letter."""
    one, _ = await open_session(backend, "one")
    event_id, letter_id = await refuse(backend, one)
    [answer] = await one.replay_dead_letters([letter_id])
    await trio.sleep(86_390)
    assert await one.replay_dead_letters([letter_id]) == [Replayed("before", answer.event_id)]
    assert await one.dead_letter_of(event_id) == letter_id
    await trio.sleep(20)
    assert await one.replay_dead_letters([letter_id]) == [Replayed("missing")]
    assert await one.dead_letter_of(event_id) is None


async def test_redis_remembers_a_replay_for_a_day(valkey: RedisBackend) -> None:
    """The link expires by itself, as does what is known of the event's end."""
    one, _ = await open_session(valkey, "one")
    event_id, letter_id = await refuse(valkey, one)
    await one.replay_dead_letters([letter_id])
    for key in (valkey.keys.replayed(letter_id), valkey.keys.done(event_id)):
        assert 86_390_000 < valkey.server.command("PTTL", key) <= 86_400_000


async def test_the_era_can_be_read_without_making_one(backend: Backend, clock: trio.abc.Clock) -> None:
    """None where Redis knows no era, and nothing is written by looking."""
    one = backend.open("one")
    assert await one.read_era() is None
    assert backend.contents() == {}
    era = await one.open_group("0", "default")
    assert await one.read_era() == era


PART = st.one_of(
    st.binary(max_size=12), st.text(max_size=8).map(str.encode), st.sampled_from([b"otto.replay_of", b"type"])
)


def test_any_entry_comes_back_byte_for_byte(backend: Backend) -> None:
    """Whatever bytes an entry holds, its replay holds them in the same order, and what it replays."""

    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(PART, PART), min_size=1, max_size=6))
    def holds(pairs: Sequence[tuple[bytes, bytes]]) -> None:
        async def replay() -> tuple[str, BytePairs | None]:
            stream = backend.open("one")
            await stream.open_group("0", "default")
            former, letter_id = await refuse(backend, stream, *pairs)
            [answer] = await stream.replay_dead_letters([letter_id])
            entry_id, fields = await next_entry(stream)
            assert (answer.how, entry_id) == ("here", answer.event_id)
            return former, fields

        former, fields = trio.run(replay)
        kept = tuple(pair for pair in pairs if pair[0] != b"otto.replay_of")
        assert fields == (*kept, (b"otto.replay_of", former.encode()))

    holds()


async def test_sixty_four_kilobytes_of_any_bytes_come_back(backend: Backend, clock: trio.abc.Clock) -> None:
    """A large value that is no text is restored in full."""
    one, _ = await open_session(backend, "one")
    value = bytes(range(256)) * 257
    _, letter_id = await refuse(backend, one, (b"raw", value))
    await one.replay_dead_letters([letter_id])
    assert ((await next_entry(one))[1] or ())[0] == (b"raw", value)
