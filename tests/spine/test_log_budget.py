"""What is logged of an event's life: few lines at level info, each with the facts that it is found by."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.stream.memory import MemoryServer
from tests.pipelines.theatre import stage, text_of
from tests.spine.scaler import Scaler
from tests.spine.world import Plan, World

PER_EVENT = 4
PER_WORKER = 2
OF_AN_EVENT = {"event_id", "stage"}
OF_A_WORKER = {"event_id", "stage", "task_id", "worker", "attempt"}


class Story:
    """Scalers that live one after the other on one world and one stream, and what they log."""

    def __init__(self, caplog: pytest.LogCaptureFixture, world: World, **settings: str) -> None:
        caplog.set_level(logging.INFO, "ottoscaler")
        self.world = world
        self.server = MemoryServer(started_at=1_760_000_000.0)
        self.pods: dict[str, int] = {}
        self._caplog = caplog
        self._settings = settings

    def send(self, kind: str = "scale_up", pods: int = 1, **fields: str) -> str:
        """Add an event; its id."""
        pairs = [("type", kind), *fields.items()]
        if kind in ("scale_up", "scale_down"):
            pairs += [("pod_count", str(pods)), ("task_id", "t")]
        event_id = self.server.add_entry(pairs)
        self.pods[event_id] = pods if kind == "scale_up" else 0
        return event_id

    async def wait_results(self, count: int) -> None:
        """Return when so many events have ended."""
        with trio.fail_after(600):
            while len(self.server.results.entries) < count:  # noqa: ASYNC110 - the twin of Redis tells nobody when it has grown
                await trio.sleep(0.5)
        await trio.sleep(5)

    def scaler(self, name: str) -> Scaler:
        """Another scaler."""
        return Scaler(self.world, self.server, name, **self._settings)

    def told(self, level: int = logging.INFO) -> list[tuple[str, dict[str, Any]]]:
        """Message and facts of each line of a level that is about an event."""
        lines = [
            (each.getMessage(), getattr(each, "facts", {})) for each in self._caplog.records if each.levelno == level
        ]
        return [(message, facts) for message, facts in lines if "event_id" in facts]

    def judge(self) -> None:
        """Each event kept to its number of lines, and each line has its facts."""
        events = Counter[str]()
        workers = Counter[str]()
        for message, facts in self.told():
            is_of_worker = "worker" in facts
            assert facts.keys() >= (OF_A_WORKER if is_of_worker else OF_AN_EVENT), (message, facts)
            (workers if is_of_worker else events)[facts["event_id"]] += 1
        assert events.keys() == self.pods.keys()
        assert all(count <= PER_EVENT for count in events.values()), self.told()
        assert all(workers[event_id] <= PER_WORKER * pods for event_id, pods in self.pods.items()), self.told()


async def play(story: Story, ends: int) -> None:
    """One scaler from before until so many events have ended."""
    async with trio.open_nursery() as nursery:
        await nursery.start(story.world.run)
        nursery.start_soon(story.scaler("one").run)
        await story.wait_results(ends)
        nursery.cancel_scope.cancel(reason="the story is over")


def failing(times: int) -> World:
    """Workers that fail so many times, then succeed."""
    return World(lambda labels: Plan(exit_code=3 if int(labels["ottoscaler/attempt"]) <= times else 0))


async def test_success(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Two lines for an event, and two for each worker: created, ended."""
    story = Story(caplog, World())
    story.send(pods=3)
    await play(story, 1)
    story.judge()
    said = Counter(message for message, _ in story.told())
    assert said == {"scale_up started": 1, "worker created": 3, "worker ended": 3, "scale_up closed": 1}
    stages = Counter(facts["stage"] for _, facts in story.told())
    assert stages == {"started": 1, "accepted": 3, "recorded": 3, "closed": 1}


async def test_failure(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """A worker that failed for good is no more lines than one that succeeded, and names its cause."""
    story = Story(caplog, failing(9))
    story.send(pods=2)
    await play(story, 1)
    story.judge()
    ended = [facts for message, facts in story.told() if message == "worker ended"]
    assert {(facts["outcome"], facts["cause"]) for facts in ended} == {("failed", "ExitCode")}
    assert story.told(logging.WARNING) == []


async def test_retries(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """An attempt that failed and is made again is one warning; the worker keeps to its two lines."""
    story = Story(caplog, failing(3), worker_max_attempts="5")
    story.send(pods=2)
    await play(story, 1)
    story.judge()
    warned = Counter(
        (facts["worker"][len("otto-agent-")], facts["attempt"]) for _, facts in story.told(logging.WARNING)
    )
    assert warned == {(index, attempt): 1 for index in "12" for attempt in (1, 2, 3)}
    assert all(facts["cause"] == "ExitCode" and facts["retry"] for _, facts in story.told(logging.WARNING))


async def test_scale_down_and_cancel(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Being stopped costs an event no line more; the scale_down and the cancel are two lines each."""
    story = Story(caplog, World(lambda labels: Plan(duration=3600)))
    up = story.send(pods=4)
    async with trio.open_nursery() as nursery:
        await nursery.start(story.world.run)
        nursery.start_soon(story.scaler("one").run)
        await trio.sleep(10)
        story.send("scale_down", pods=2)
        await story.wait_results(1)
        story.send("cancel", event_id=up)
        await story.wait_results(3)
        nursery.cancel_scope.cancel(reason="the story is over")
    story.judge()
    causes = Counter(facts["cause"] for message, facts in story.told() if message == "worker ended")
    assert causes == {"Stopped": 2, "Cancelled": 2}


async def test_takeovers(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """However often an event changes hands, its life keeps to its lines."""
    story = Story(caplog, World(lambda labels: Plan(duration=100)))
    story.send(pods=2)
    async with trio.open_nursery() as nursery:
        await nursery.start(story.world.run)
        for number in range(6):
            with trio.move_on_after(10):
                await story.scaler(f"replica{number}").run()
        nursery.start_soon(story.scaler("last").run)
        await story.wait_results(1)
        nursery.cancel_scope.cancel(reason="the story is over")
    story.judge()
    assert [message for message, _ in story.told()].count("scale_up adopted") == 1


async def test_pipeline(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """A pipeline is two lines and two for each stage; what a stage becomes is an event as any other."""
    story = Story(caplog, World())
    pipeline = story.send("pipeline", pods=1, **{"otto.pipeline": text_of(stage("a"), stage("b", "a", workers=2))})
    await play(story, 3)
    stages = [facts for message, facts in story.told() if message in ("stage started", "stage ended")]
    assert [facts["stage_id"] for facts in stages] == ["a", "a", "b", "b"]
    own = [message for message, facts in story.told() if facts["event_id"] == pipeline and "stage_id" not in facts]
    assert own == ["pipeline started", "pipeline closed"]
    of_stages = [message for message, facts in story.told() if facts["event_id"] != pipeline]
    assert len(of_stages) == 2 * 2 + PER_WORKER * 3


async def test_what_is_refused(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """A bad entry is one warning that says why; one that repeats another is one line."""
    story = Story(caplog, World())
    for _ in range(2):
        story.send(pods=1, **{"otto.request_id": "same"})
    bad = story.send(pods=-1)
    await play(story, 2)
    (refused,) = story.told(logging.WARNING)
    assert (refused[1]["event_id"], refused[1]["cause"]) == (bad, "BadPodCount")
    del story.pods[bad]
    story.judge()


async def test_lines_of_no_event_are_few(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """A start, a hundred events and a drain: what is about no event is a handful of lines."""
    story = Story(caplog, World())
    async with trio.open_nursery() as nursery:
        await nursery.start(story.world.run)
        scaler = story.scaler("one")
        async with trio.open_nursery() as life:
            life.start_soon(scaler.run)
            for _ in range(100):
                story.send()
            await story.wait_results(100)
            scaler.drain.request("the story is over")
        nursery.cancel_scope.cancel(reason="the story is over")
    story.judge()
    others = [each.getMessage() for each in caplog.records if "event_id" not in getattr(each, "facts", {})]
    assert len(others) <= 5, others
