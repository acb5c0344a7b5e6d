"""ExecutePipeline: what is told, to whom, and what it means to ask again, to leave, or to ask for what cannot be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from datetime import datetime
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.calls.following import Following
from ottoscaler.calls.pipeline_entry import pipeline_pairs
from ottoscaler.events import Event, Limits, parse_entry
from ottoscaler.policy import Policy
from ottoscaler.policy_file import PolicyFile
from ottoscaler.rpc.door import (
    DeadLetter,
    InvalidCall,
    PipelineCall,
    PipelineNews,
    PolicyRefused,
    RequestMismatch,
    RetryCall,
    StageCall,
)
from ottoscaler.spec import Retry, Spec
from ottoscaler.stream.base import Claim, Closing
from ottoscaler.stream.pipelines import Told
from tests.calls.house import Replica, open_house
from tests.spine.world import Plan, World

BUILD = StageCall(stage_id="build", worker_count=2)
DEPLOY = StageCall(stage_id="deploy", worker_count=1, depends_on=("build",))


def call(*stages: StageCall, pipeline_id: str = "p", **more: object) -> PipelineCall:
    """A pipeline."""
    return PipelineCall(pipeline_id=pipeline_id, stages=stages or (BUILD, DEPLOY), **more)  # type: ignore[arg-type]  # the test's own words


def stays() -> bool:
    """A client that does not leave, or not by its own will."""
    return False


async def follow(replica: Replica, asked: PipelineCall, is_abandoned: Callable[[], bool] = stays) -> list[PipelineNews]:
    """All that is told until the call ends."""
    async with aclosing(replica.calls.execute_pipeline(asked, is_abandoned)) as told:
        return [news async for news in told]


def ends(news: list[PipelineNews]) -> dict[str, str]:
    """The last state of every stage."""
    return {one.stage_id: one.status for one in news}


async def test_every_change_is_told_until_the_end(autojump_clock: MockClock) -> None:
    """The call ends after the last change of the last stage; what is told has pods, times and metrics."""
    async with open_house() as house:
        news = await follow(await house.open(), call())
    assert ends(news) == {"build": "completed", "deploy": "completed"}
    assert [one.status for one in news if one.stage_id == "deploy"][:2] == ["pending", "running"]
    last = news[-1]
    assert (last.pipeline_id, last.stage_id, last.progress_percentage) == ("p", "deploy", 100)
    assert len(last.worker_pod_names) == 1
    assert last.started_at < last.completed_at <= last.timestamp
    assert last.metrics is not None
    assert (last.metrics.successful_workers, last.metrics.total_workers) == (1, 1)


async def test_news_come_as_they_happen(autojump_clock: MockClock) -> None:
    """A change is told within a second, while the pipeline goes on."""
    async with open_house(World(lambda labels: Plan(duration=100))) as house:
        one = await house.open()
        async with aclosing(one.calls.execute_pipeline(call(), stays)) as told:
            async for news in told:
                if news.status == "running":
                    break
        assert trio.current_time() < 3


async def test_news_of_this_replica_come_at_once(autojump_clock: MockClock) -> None:
    """What the replica that is called writes down is told without waiting for the next look at all pipelines."""
    async with open_house() as house:
        one = await house.open()
        async with aclosing(one.calls.execute_pipeline(call(), stays)) as told:
            late = [house.server.now() / 1000 - _seconds(news.timestamp) async for news in told]
    assert len(late) >= 5
    assert max(late) < 0.03


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


async def test_whoever_asks_again_joins_from_the_first_entry(autojump_clock: MockClock) -> None:
    """While it runs and after its end, on the same replica and on another, the same entries are told."""
    async with open_house() as house:
        one, two = await house.open("one"), await house.open("two")
        told: dict[str, list[PipelineNews]] = {}

        async def ask(name: str, replica: Replica, delay: float) -> None:
            await trio.sleep(delay)
            told[name] = await follow(replica, call())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "first", one, 0)
            nursery.start_soon(ask, "beside", one, 1)
            nursery.start_soon(ask, "elsewhere", two, 2)
        await ask("after the end", two, 1000)
        assert len(set(map(tuple, (map(repr, news) for news in told.values())))) == 1
        assert house.workers_run == 3
        assert len(one.calls.following) == len(two.calls.following) == 0


async def test_the_same_id_with_other_content_is_refused(autojump_clock: MockClock) -> None:
    """The id stands for one pipeline, also after its end."""
    async with open_house() as house:
        one = await house.open()
        await follow(one, call(metadata={"a": "1", "b": "2"}))
        await follow(one, call(metadata={"b": "2", "a": "1"}))
        for other in (call(BUILD), call(metadata={"a": "2"}), call(repository="r")):
            with pytest.raises(RequestMismatch) as caught:
                await follow(one, other)
            assert (caught.value.field, caught.value.value) == ("pipeline_id", "p")
        assert house.workers_run == 3


async def test_a_client_that_leaves_stops_nothing(autojump_clock: MockClock) -> None:
    """The pipeline goes on to its end, and tells it to whoever asks later."""
    async with open_house() as house:
        one = await house.open()
        with trio.move_on_after(0.5):
            await follow(one, call())
        assert len(one.calls.following) == 0
        await trio.sleep(60)
        assert house.workers_run == 3
        assert ends(await follow(one, call())) == {"build": "completed", "deploy": "completed"}


async def test_a_failed_stage_is_told_and_the_call_ends_well(autojump_clock: MockClock) -> None:
    """What failed and what was skipped is in the entries; the call itself raises nothing."""
    async with open_house(World(lambda labels: Plan(exit_code=1))) as house:
        news = await follow(await house.open(), call())
    assert ends(news) == {"build": "failed", "deploy": "skipped"}
    assert news[-1].error_message
    failed = next(one for one in news if one.status == "failed")
    assert "2 of 2 workers failed" in failed.message
    assert failed.metrics is not None
    assert (failed.metrics.failed_workers, failed.metrics.successful_workers) == (2, 0)


async def test_a_killed_replica_is_followed_elsewhere(autojump_clock: MockClock) -> None:
    """Another replica goes on with the pipeline, and tells all of it; no worker runs twice."""
    async with open_house(World(lambda labels: Plan(duration=10))) as house:
        one, two = await house.open("one"), await house.open("two")
        with trio.move_on_after(6):
            await follow(one, call())
        one.kill()
        news = await follow(two, call())
        assert ends(news) == {"build": "completed", "deploy": "completed"}
        assert house.workers_run == 3
        assert max(Counter(house.world.runs).values()) == 1


async def test_redis_may_be_away_while_a_pipeline_is_followed(autojump_clock: MockClock) -> None:
    """The call waits, and goes on telling where it was."""
    async with open_house(World(lambda labels: Plan(duration=10))) as house:
        one = await house.open()

        async def trouble() -> None:
            await trio.sleep(5)
            house.server.weather = "refusing"
            await trio.sleep(5)
            house.server.weather = "fine"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trouble)
            news = await follow(one, call())
        assert ends(news) == {"build": "completed", "deploy": "completed"}
        assert len({repr(one) for one in news}) == len(news)


@pytest.mark.parametrize(
    ("asked", "field", "value"),
    [
        (PipelineCall(pipeline_id="p", stages=()), "stages", []),
        (call(pipeline_id=""), "pipeline_id", ""),
        (call(BUILD, BUILD), "stages[1].stage_id", "build"),
        (call(DEPLOY), "stages[0].depends_on[0]", "build"),
        (call(StageCall(stage_id="a", worker_count=1, depends_on=("a",))), "stages[0].depends_on", ["a"]),
        (call(StageCall(stage_id="a")), "stages[0].worker_count", 0),
        (call(StageCall(stage_id="a", worker_count=10_001)), "stages[0].worker_count", 10_001),
        (call(StageCall(stage_id="a", worker_count=1, timeout_seconds=-1)), "stages[0].timeout_seconds", -1),
        (
            call(StageCall(stage_id="a", worker_count=1, retry=RetryCall(max_attempts=-1))),
            "stages[0].retry_policy.max_attempts",
            -1,
        ),
        (call(StageCall(stage_id="a", worker_count=1, config={"otto.x": "y"})), "stages[0].config", "otto.x"),
        (call(metadata={"type": "x"}), 'metadata["type"]', "type"),
        (call(metadata={"repository": "x"}, repository="y"), 'metadata["repository"]', "repository"),
        (call(metadata={"a": "\0"}), 'metadata["a"]', ""),
    ],
)
async def test_what_cannot_be_is_refused(
    autojump_clock: MockClock, asked: PipelineCall, field: str, value: object
) -> None:
    """The error names field and value as the call has them, and nothing comes to the stream."""
    async with open_house() as house:
        one = await house.open()
        with pytest.raises(InvalidCall) as caught:
            await follow(one, asked)
        assert (caught.value.field, caught.value.value) == (field, value)
        assert not house.server.events.entries


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            StageCall(stage_id="a", worker_count=1, config={"token": "s3cret\0"}),
            'stages[1].config["token"] holds a NUL byte, expected text without a NUL byte',
        ),
        (
            StageCall(stage_id="a", worker_count=1, type="build\0"),
            "stages[1].type holds a NUL byte, expected text without a NUL byte",
        ),
        (
            StageCall(stage_id="a", worker_count=1, config={"token": "s3cret", "Token": "s3cret"}),
            "stages[1].config makes an event that is refused: metadata 'Token' and 'token' both become "
            "OTTO_META_TOKEN, expected names that differ in letters or digits",
        ),
        (
            StageCall(stage_id="a", worker_count=1, config={"token": "s3cret" * 20_000}),
            "stages[1].config makes an event that is refused: metadata and task_id are 120027 bytes, expected at most "
            "65536 (MAX_METADATA_BYTES)",
        ),
    ],
)
async def test_what_is_wrong_with_a_stages_config_is_said_without_its_values(asked: StageCall, said: str) -> None:
    """They become metadata of its workers, and may be secrets as that may; the field is one of the call."""
    with pytest.raises(InvalidCall) as caught:
        await pipeline_pairs(call(BUILD, asked), Limits(), 0.0)
    assert str(caught.value) == said


async def test_a_policy_that_cannot_be_used_is_named_in_its_own_words(tmp_path: Path) -> None:
    """The field is the stage, the value what it asks for, and what is allowed is none, with the reason of that."""
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1")
    policy = Policy(PolicyFile(str(path)), frozenset(), lambda event, index, attempt: {})
    path.unlink()
    with pytest.raises(PolicyRefused) as caught:
        await pipeline_pairs(
            call(StageCall(stage_id="a", worker_count=1, image="b:1")), Limits(policy=policy.judge), 0.0
        )
    assert (caught.value.field, caught.value.value) == ("stages[0]", '{"image":"b:1"}')
    assert caught.value.allowed.startswith("none while the policy cannot be used (POLICY_FILE is ")


async def test_the_policy_judges_every_stage(autojump_clock: MockClock) -> None:
    """One stage that asks for what is not allowed refuses the pipeline, before any stage begins."""

    def judge(event: Event) -> str | None:
        image = event.spec.image if event.spec else ""
        return f"field otto.spec.image is {image!r}, expected one of busybox" if image == "evil" else None

    async with open_house() as house:
        one = await house.open(limits=Limits(policy=judge))
        with pytest.raises(PolicyRefused) as caught:
            await follow(one, call(BUILD, StageCall(stage_id="b", worker_count=1, image="evil")))
        assert (caught.value.field, caught.value.value) == ("stages[1].image", "evil")
        assert not house.server.events.entries


async def test_what_is_given_reaches_the_stage() -> None:
    """Image, command, time and retries of a stage; what gRPC cannot tell from nothing is left to the service."""
    asked = call(
        StageCall(
            stage_id="a",
            type="build",
            worker_count=3,
            config={"k": "v"},
            image="i:1",
            command=("c",),
            args=("d",),
            timeout_seconds=9,
            retry=RetryCall(max_attempts=2, retryable_failures=("own",)),
        ),
        StageCall(stage_id="b", worker_count=1, retry=RetryCall()),
        triggered_by="me",
    )
    pairs = await pipeline_pairs(asked, Limits(), 5.0)
    event = parse_entry("1-1", tuple((name.encode(), value.encode()) for name, value in pairs), Limits())
    assert isinstance(event, Event)
    assert event.pipeline is not None
    first, second = event.pipeline.stages
    assert first.spec == Spec("i:1", ("c",), ("d",), 9, Retry(max_attempts=2, retryable_failures=("own",)))
    assert (first.worker_count, first.type, first.config) == (3, "build", {"k": "v"})
    assert second.spec == Spec()
    assert event.metadata == (("triggered_by", "me"),)


async def test_a_pipeline_that_became_a_dead_letter_says_why(autojump_clock: MockClock) -> None:
    """Refused on the stream the call names the field; given up for another reason it says so, and so does a repeat."""
    stage = "field otto.pipeline.stages[0] makes an event that is refused"
    reasons = {
        f"{stage}: field otto.spec.image is 'x', expected one of y": PolicyRefused,
        "its handling broke 3 times, expected fewer than 3": DeadLetter,
    }
    async with open_house() as house:
        one = await house.open()
        for number, (reason, kind) in enumerate(reasons.items()):
            asked = call(StageCall(stage_id="a", worker_count=1, config={"n": str(number)}), pipeline_id=f"p{number}")
            with trio.move_on_after(0.5):
                await follow(one, asked)
            (event_id,) = (id_ for id_, each in house.server.progress.items() if each["lane"] == "pipelines")
            owner = house.server.progress[event_id]
            claim = Claim(event_id, owner["owner"], int(owner["epoch"]))
            fields = (("event_id", event_id), ("cause", "PolicyRefused"), ("reason", reason), ("entry", "[]"))
            await one.scaler.stream.close(Closing(event_id, "dlq", fields, claim))
            with pytest.raises(kind):
                await follow(one, asked)
            with pytest.raises(kind):
                await follow(one, asked)


class SlowNews:
    """A ledger and its stream, which tells what one pipeline told, two at a time, a second after it was asked."""

    def __init__(self, *texts: str) -> None:
        self.stream = self
        self.listeners: list[object] = []
        self._texts = texts

    async def insist(self, ask: Callable[[], Awaitable[dict[str, Told]]]) -> dict[str, Told]:
        """As `Ledger.insist`."""
        return await ask()

    async def read_news(self, known: Mapping[str, int]) -> dict[str, Told]:
        """What there is beyond what is known."""
        await trio.sleep(1)
        return {event_id: Told(self._texts[number : number + 2], is_over=False) for event_id, number in known.items()}


async def test_who_leaves_and_comes_back_hears_everything_in_order(autojump_clock: MockClock) -> None:
    """An answer that was on its way to followers who have left is no answer to those who came since."""
    following = Following(SlowNews("a", "b", "c"))  # type: ignore[arg-type]  # all that is asked of it
    heard: list[str] = []

    async def follow(number: int) -> None:
        async with aclosing(following.follow("1-0")) as news:
            async for text in news:
                heard.append(text)
                if len(heard) == number:
                    return

    async with trio.open_nursery() as nursery:
        await nursery.start(following.run)
        with trio.move_on_after(1.5):
            await follow(9)
        assert heard == ["a", "b"]
        heard.clear()
        await follow(3)
        assert heard == ["a", "b", "c"]
        nursery.cancel_scope.cancel(reason="the test is over")
