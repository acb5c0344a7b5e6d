"""Contract of the stream: the lane of pipelines, stages that are started once, news in order. For every keeper."""

from __future__ import annotations

import pytest
import trio

from ottoscaler.errors import Unavailable
from ottoscaler.stream.base import Candidate, Closing, Outcome, Stream, Writing
from ottoscaler.stream.pipelines import News, Told
from tests.stream.backends import Backend, MemoryBackend, RedisBackend
from tests.stream.steps import PAIRS, begin, claim, open_session, registration, take

pytestmark = pytest.mark.slow_clock
DAY = 86_400  # seconds


async def begin_pipeline(backend: Backend, stream: Stream, *, offer: bool = False) -> str:
    """A pipeline of three stages."""
    return await begin(backend, stream, lane="pipelines", offer=offer)


async def read(stream: Stream, event_id: str, known: int = 0) -> Told:
    """The news of one pipeline."""
    return (await stream.read_news({event_id: known}))[event_id]


async def test_pipelines_have_a_lane_of_their_own(backend: Backend, clock: trio.abc.Clock) -> None:
    """They are taken where there is room for pipelines, whatever room there is for others."""
    one, _ = await open_session(backend, "one")
    pipeline, up = await begin_pipeline(backend, one, offer=True), await begin(backend, one, offer=True)
    assert [progress.event_id for progress in await take(one)] == [up]
    found = (await one.tend(0, 0, 1, expire=False, audit=False)).taken
    assert [(progress.event_id, progress.lane) for progress in found] == [(pipeline, "pipelines")]
    assert (await one.backlog()).waiting == 0
    assert await one.survey("") == [found for found in await one.survey("") if found.event_id == up]


async def test_a_pipeline_without_an_owner_is_put_right(backend: Backend, clock: trio.abc.Clock) -> None:
    """The sweep offers it again in its own lane, once."""
    one, _ = await open_session(backend, "one")
    pipeline = await begin_pipeline(backend, one)
    backend.disown(pipeline, "nobody")
    await one.sweep([])
    before = backend.contents()
    await one.sweep([])
    assert backend.contents() == before
    assert await take(one) == []
    assert len((await one.tend(0, 0, 1, expire=False, audit=False)).taken) == 1


async def test_a_start_is_a_sign_of_life(backend: Backend, clock: trio.abc.Clock) -> None:
    """An owner that has started a stage may die without the pipeline's handling counting as broken."""
    one, _ = await open_session(backend, "one")
    two, _ = await open_session(backend, "two")
    event_id = backend.add(*PAIRS)
    await one.read(1, 1.0)
    assert await one.register([registration(event_id, lane="pipelines")]) == [1]
    assert await one.start_stage(claim(event_id, "one"), 1, PAIRS, News(0, ()))
    backend.disown(event_id, "nobody")
    await one.sweep([])
    (taken,) = (await two.tend(0, 0, 1, expire=False, audit=False)).taken
    assert (taken.epoch, taken.failures) == (2, 0)


async def test_a_stage_is_started_once(backend: Backend, clock: trio.abc.Clock) -> None:
    """Its event is added with the note of it; asked again, by whichever owner, the same event is answered."""
    one, _ = await open_session(backend, "one")
    two, _ = await open_session(backend, "two")
    pipeline = await begin_pipeline(backend, one)
    token = claim(pipeline, "one")
    event_id = await one.start_stage(token, 2, PAIRS, News(0, ("started",)))
    assert event_id
    before = backend.contents()
    assert await one.start_stage(token, 2, PAIRS, News(0, ("started",))) == event_id
    assert await two.start_stage(claim(pipeline, "two", 2), 2, PAIRS, News(1, ("again",))) is None
    assert backend.contents() == before
    assert [(entry.id, entry.fields) for entry in await one.read(5, 1.0)] == [
        (event_id, tuple((name.encode(), value.encode()) for name, value in PAIRS))
    ]
    progress = await one.read_progress(pipeline)
    assert progress is not None
    assert (progress.accepted[2, 1]["uid"], progress.told) == (event_id, 1)
    await one.offer([token], clean=[True])
    (taken,) = (await two.tend(0, 0, 1, expire=False, audit=False)).taken
    assert await two.start_stage(claim(pipeline, "two", taken.epoch), 2, PAIRS, News(1, ("x",))) == event_id
    assert await one.start_stage(token, 1, PAIRS, News(1, ())) is None
    assert (await read(one, pipeline)).texts == ("started",)


async def test_a_stage_that_is_to_stop_is_not_started(backend: Backend, clock: trio.abc.Clock) -> None:
    """With a stop mark or an outcome nothing is added and nothing told; the owner heard of the mark."""
    one, _ = await open_session(backend, "one")
    pipeline, cancel = await begin_pipeline(backend, one), await begin(backend, one, lane="control")
    token = claim(pipeline, "one")
    await one.mark_victims(claim(cancel, "one"), 1, [Candidate(pipeline, 1, "{}")], last=True, cause="Cancelled")
    await one.record([Writing(token, outcomes=(Outcome(2, '{"outcome":"terminated"}'),))])
    before = backend.contents()
    assert await one.start_stage(token, 1, PAIRS, News(0, ("x",))) == ""
    assert await one.start_stage(token, 2, PAIRS, News(0, ("x",))) == ""
    assert backend.contents() == before
    assert (await one.tend(0, 0, expire=False, audit=False)).notices == (pipeline,)
    await one.record([Writing(token, outcomes=(Outcome(1, '{"outcome":"terminated"}'),))])
    asking = await one.read_progress(cancel)
    assert asking is not None
    assert asking.victim_outcomes == {(pipeline, 1): {"outcome": "terminated"}}


async def test_a_pipeline_that_nobody_began_is_cancelled_at_once(backend: Backend, clock: trio.abc.Clock) -> None:
    """All its stages have outcomes, and it waits for no room of its lane."""
    one, _ = await open_session(backend, "one")
    pipeline, cancel = await begin_pipeline(backend, one, offer=True), await begin(backend, one, lane="control")
    marked = [Candidate(pipeline, index, "{}") for index in (3, 2, 1)]
    assert len(await one.mark_victims(claim(cancel, "one"), 3, marked, last=True) or ()) == 3
    (taken,) = await take(one, work=0, control=1)
    assert (taken.event_id, taken.lane, set(taken.outcomes)) == (pipeline, "pipelines", {1, 2, 3})


async def test_news_are_told_once_and_in_order(backend: Backend, clock: trio.abc.Clock) -> None:
    """What was told before is not told again, with outcomes as without; whoever asks gets what it does not know."""
    one, _ = await open_session(backend, "one")
    pipeline = await begin_pipeline(backend, one)
    token = claim(pipeline, "one")
    assert await read(one, pipeline) == Told((), is_over=False)
    await one.record([Writing(token, news=News(0, ("a", "b")))])
    second = Writing(token, outcomes=(Outcome(1, '{"outcome":"failed"}'),), news=News(2, ("c",)))
    await one.record([second])
    before = backend.contents()
    await one.record([second, Writing(token, news=News(1, ("x",)))])
    await one.record([Writing(claim(pipeline, "two", 2), news=News(3, ("x",)))])
    assert backend.contents() == before
    assert await read(one, pipeline) == Told(("a", "b", "c"), is_over=False)
    assert await read(one, pipeline, 2) == Told(("c",), is_over=False)
    await one.record([Writing(token, news=News(3, tuple(map(str, range(250)))))])
    many = [await read(one, pipeline, known) for known in (3, 103, 203)]
    assert [text for told in many for text in told.texts] == list(map(str, range(250)))


async def test_news_outlive_the_pipeline(backend: Backend, clock: trio.abc.Clock) -> None:
    """After the end all news are there, and that there will be no more is said with the last of them."""
    one, _ = await open_session(backend, "one")
    pipeline = await begin_pipeline(backend, one)
    await one.record([Writing(claim(pipeline, "one"), news=News(0, tuple(map(str, range(150)))))])
    await one.close(Closing(pipeline, "results", (("v", "1"),), claim(pipeline, "one")))
    assert not (await read(one, pipeline)).is_over
    assert await read(one, pipeline, 100) == Told(tuple(map(str, range(100, 150))), is_over=True)
    assert await read(one, "1-1") == Told((), is_over=True)
    waiting = backend.add(*PAIRS)
    assert await one.read_news({pipeline: 150, waiting: 0}) == {pipeline: Told((), True), waiting: Told((), False)}
    assert await one.read_news({}) == {}


@pytest.mark.parametrize("kind", ["memory"])
async def test_news_go_a_day_after_the_end(backend: MemoryBackend, clock: trio.abc.Clock) -> None:
    """They are kept for a day, and then take no room."""
    one, _ = await open_session(backend, "one", lease=10 * DAY)
    pipeline = ""
    for _ in range(2):
        pipeline = await begin_pipeline(backend, one)
        await one.record([Writing(claim(pipeline, "one"), news=News(0, ("a",)))])
        await trio.sleep(DAY + 1)
        await one.close(Closing(pipeline, "results", (("v", "1"),), claim(pipeline, "one")))
    assert set(backend.server.news) == {pipeline}
    await trio.sleep(DAY - 1)
    assert (await read(one, pipeline)).texts == ("a",)
    await trio.sleep(2)
    assert (await read(one, pipeline)).texts == ()


async def test_redis_keeps_news_for_a_day(valkey: RedisBackend) -> None:
    """The key has no expiry while the pipeline is open, and a day after its end."""
    one, _ = await open_session(valkey, "one")
    pipeline = await begin_pipeline(valkey, one)
    await one.record([Writing(claim(pipeline, "one"), news=News(0, ("a",)))])
    key = valkey.keys.news(pipeline)
    assert valkey.server.command("PTTL", key) == -1
    await one.close(Closing(pipeline, "results", (("v", "1"),), claim(pipeline, "one")))
    assert DAY * 1000 - 10_000 < valkey.server.command("PTTL", key) <= DAY * 1000


@pytest.mark.parametrize("kind", ["memory"])
async def test_a_lost_answer_starts_nothing_twice(backend: MemoryBackend, clock: trio.abc.Clock) -> None:
    """A start that was carried out without an answer is answered when it is repeated."""
    one, _ = await open_session(backend, "one")
    pipeline = await begin_pipeline(backend, one)
    backend.server.lose_answer_of.add("start_stage")
    with pytest.raises(Unavailable):
        await one.start_stage(claim(pipeline, "one"), 1, PAIRS, News(0, ("a",)))
    before = backend.contents()
    assert await one.start_stage(claim(pipeline, "one"), 1, PAIRS, News(0, ("a",)))
    assert backend.contents() == before


async def test_many_pipelines_are_followed_at_once(backend: Backend, clock: trio.abc.Clock) -> None:
    """Beyond what one script call takes, every pipeline is answered for."""
    one, _ = await open_session(backend, "one")
    ids = [backend.add(*PAIRS) for _ in range(250)]
    assert set((await one.read_news(dict.fromkeys(ids, 0))).values()) == {Told((), is_over=False)}
    await one.read(250, 1.0)
    await one.register([registration(event_id, lane="pipelines") for event_id in ids])
    await one.record([Writing(claim(event_id, "one"), news=News(0, (event_id,))) for event_id in ids])
    assert (await one.read_news(dict.fromkeys(ids, 0))) == {id_: Told((id_,), is_over=False) for id_ in ids}
