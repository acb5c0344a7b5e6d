"""GetWorkerStatus: what runs and what has ended, counted before the filter, page by page."""

from __future__ import annotations

from contextlib import aclosing

import msgspec
import pytest
import trio
from trio.testing import MockClock

from ottoscaler.calls.worker_rows import place_of
from ottoscaler.errors import Unavailable
from ottoscaler.outcomes import WorkerOutcome
from ottoscaler.rpc.door import InvalidCall, PipelineCall, StageCall, StatusAnswer
from tests.calls.house import House, Replica, open_house
from tests.spine.world import Plan, World


def world_by_task() -> World:
    """Tasks are named for what becomes of their workers."""
    plans = {
        "runs": Plan(duration=600),
        "stuck": Plan(stuck="ErrImagePull", reason="no such image"),
        "fails": Plan(duration=1, exit_code=3),
    }
    return World(lambda labels: plans.get(labels["ottoscaler/task-id"], Plan(duration=1)))


def counts(answer: StatusAnswer) -> tuple[int, ...]:
    """Total, pending, running, succeeded, failed, terminated."""
    return (
        *(answer.total_count, answer.pending_count, answer.running_count),
        *(answer.succeeded_count, answer.failed_count, answer.terminated_count),
    )


async def test_every_state_is_counted(autojump_clock: MockClock) -> None:
    """Pods that run and that wait, and workers that succeeded, failed and were stopped, on any replica."""
    async with open_house(world_by_task()) as house:
        one, two = await house.open("one"), await house.open("two")
        for task, number in (("runs", 3), ("stuck", 2), ("fails", 1), ("succeeds", 2)):
            await one.up(number, task_id=task)
        await trio.sleep(15)
        await one.down(2, task_id="runs")
        await trio.sleep(5)
        answer = await two.status()
        assert counts(answer) == (8, 2, 2, 2, 1, 1)
        assert len(answer.workers) == 8
        assert counts(await two.status(task_id="runs")) == (3, 0, 2, 0, 0, 1)
        assert counts(await two.status(task_id="nobody's")) == (0, 0, 0, 0, 0, 0)
        failed = await two.status(status_filter="failed")
        assert counts(failed) == counts(answer)
        (worker,) = failed.workers
        assert (worker.task_id, worker.status) == ("fails", "failed")
        assert "3" in worker.error_message
        assert worker.completed_at
        assert worker.labels["ottoscaler/task-id"] == "fails"
        (stopped,) = (await one.status(status_filter="terminated")).workers
        assert stopped.error_message.startswith("Stopped: ")
        stuck = (await one.status(task_id="stuck")).workers
        assert {worker.error_message for worker in stuck} == {"ErrImagePull: no such image"}
        assert all(worker.created_at for worker in stuck)


async def test_one_pod_is_found_in_any_state(autojump_clock: MockClock) -> None:
    """By its name while it runs, and when it has ended and is gone."""
    async with open_house(World(lambda labels: Plan(duration=20))) as house:
        one = await house.open()
        name = (await one.up(3)).worker_pod_names[1]
        await trio.sleep(5)
        assert counts(await one.status(worker_pod_name=name)) == (1, 0, 1, 0, 0, 0)
        await trio.sleep(60)
        answer = await one.status(worker_pod_name=name)
        assert counts(answer) == (1, 0, 0, 1, 0, 0)
        assert [worker.pod_name for worker in answer.workers] == [name]


async def test_ended_workers_of_a_live_event_are_counted(autojump_clock: MockClock) -> None:
    """One of three has ended, and its pod is gone, while the event goes on: it is not forgotten meanwhile."""
    world = World(lambda labels: Plan(duration=1 if labels["ottoscaler/index"] == "1" else 600))
    async with open_house(world) as house:
        one = await house.open()
        await one.up(3, task_id="t")
        await trio.sleep(30)
        assert len(house.world.pods) == 2
        for words in ({}, {"task_id": "t"}):
            assert counts(await one.status(**words)) == (3, 0, 2, 1, 0, 0)


async def test_a_worker_that_runs_again_is_one_worker(autojump_clock: MockClock) -> None:
    """While its first pod is still there beside the second, it is counted once."""
    world = World(lambda labels: Plan(duration=1, exit_code=3) if labels["ottoscaler/attempt"] == "1" else Plan())
    async with open_house(world) as house:
        one = await house.open(worker_max_attempts="2", cleanup_delay_seconds="30")
        await one.up(1)
        seen = set()
        for _ in range(200):
            answer = await one.status()
            assert answer.total_count == 1
            seen.add(answer.workers[0].status)
            await trio.sleep(0.1)
        assert "succeeded" in seen


async def test_a_worker_that_runs_again_is_found_by_the_name_that_was_told(autojump_clock: MockClock) -> None:
    """ScaleUp names the first pod; asked by that name the worker is found while its second runs, and when it has ended.
    So it is by the name of the second.
    """
    world = World(
        lambda labels: Plan(duration=1, exit_code=3) if labels["ottoscaler/attempt"] == "1" else Plan(duration=30)
    )
    async with open_house(world) as house:
        one = await house.open(worker_max_attempts="2")
        (name, _) = (await one.up(2)).worker_pod_names
        await trio.sleep(20)
        for expected in ((1, 0, 1, 0, 0, 0), (1, 0, 0, 1, 0, 0)):
            answer = await one.status(worker_pod_name=name)
            assert counts(answer) == expected
            assert [worker.pod_name for worker in answer.workers] == [f"{name}-r2"]
            assert counts(await one.status(worker_pod_name=f"{name}-r2")) == expected
            await trio.sleep(60)


async def test_a_worker_that_waits_to_run_again_is_pending(autojump_clock: MockClock) -> None:
    """Between two attempts, whether its former pod is still there or gone, it is counted, found by the name that was
    told, and says what failed.
    """
    world = World(
        lambda labels: Plan(duration=5, exit_code=3) if labels["ottoscaler/attempt"] == "1" else Plan(duration=60)
    )
    spec = '{"retry": {"max_attempts": 2, "retry_delay_seconds": 300}}'
    async with open_house(world) as house:
        one = await house.open(cleanup_delay_seconds="100")
        event_id = house.server.add_entry([("type", "scale_up"), ("pod_count", "1"), ("otto.spec", spec)])
        name = f"otto-agent-1-{event_id}"
        for seconds, is_there in ((50, True), (200, False)):
            await trio.sleep(seconds)
            assert (name in house.world.pods) is is_there
            for words in ({}, {"worker_pod_name": name}):
                answer = await one.status(**words)
                assert counts(answer) == (1, 1, 0, 0, 0, 0)
                (worker,) = answer.workers
                assert (worker.pod_name, worker.started_at, worker.completed_at) == (name, "", "")
                assert worker.error_message == "ExitCode: the worker ended with exit code 3"
        await trio.sleep(70)
        assert counts(await one.status(worker_pod_name=name)) == (1, 0, 1, 0, 0, 0)
        await trio.sleep(100)
        assert counts(await one.status(worker_pod_name=name)) == (1, 0, 0, 1, 0, 0)


async def test_stages_are_no_workers(autojump_clock: MockClock) -> None:
    """Of a pipeline that goes on, whose first stage has ended, its workers are counted, and not its stages."""
    plans = iter((Plan(duration=1), Plan(duration=600)))
    asked = PipelineCall(
        pipeline_id="p",
        stages=(
            StageCall(stage_id="build", worker_count=1),
            StageCall(stage_id="deploy", worker_count=1, depends_on=("build",)),
        ),
    )
    async with open_house(World(lambda _: next(plans))) as house:
        one = await house.open()
        async with aclosing(one.calls.execute_pipeline(asked, lambda: False)) as told:
            async for news in told:
                if (news.stage_id, news.progress_percentage, len(news.worker_pod_names)) == ("deploy", 0, 1):
                    break
        await trio.sleep(10)
        for words in ({}, {"task_id": "p"}):
            answer = await one.status(**words)
            assert counts(answer) == (2, 0, 1, 1, 0, 0)
            assert {worker.task_id for worker in answer.workers} == {"p"}
        assert counts(await one.status(worker_pod_name="build")) == (0, 0, 0, 0, 0, 0)


async def pages_of(replica: Replica, size: int, **words: object) -> list[StatusAnswer]:
    """All pages."""
    pages = [await replica.status(page_size=size, **words)]
    while token := pages[-1].next_page_token:
        pages.append(await replica.status(page_size=size, page_token=token, **words))
    return pages


async def test_pages_follow_each_other(autojump_clock: MockClock) -> None:
    """Each worker is on one page, in an order that new and ended workers do not disturb; each page has all counts."""
    async with open_house(World(lambda labels: Plan(duration=15))) as house:
        one = await house.open()
        first = (await one.up(25, task_id="a")).worker_pod_names
        await trio.sleep(1)
        page = await one.status(page_size=10)
        assert [worker.pod_name for worker in page.workers] == list(first[:10])
        await one.up(5, task_id="b")
        await trio.sleep(17)
        rest = await one.status(page_size=100, page_token=page.next_page_token)
        assert [worker.pod_name for worker in rest.workers][:15] == list(first[10:])
        assert (len(rest.workers), rest.next_page_token, rest.total_count) == (20, "", 30)
        pages = await pages_of(one, 7)
        names = [worker.pod_name for page in pages for worker in page.workers]
        assert (len(names), len(set(names)), [len(page.workers) for page in pages]) == (30, 30, [7, 7, 7, 7, 2])
        assert {page.total_count for page in pages} == {30}
        filtered = await pages_of(one, 2, task_id="b", status_filter="succeeded")
        assert [len(page.workers) for page in filtered] == [2, 2, 1]


async def test_a_worker_that_runs_again_between_two_pages_is_on_one(autojump_clock: MockClock) -> None:
    """Its pod has another name by then; what comes behind it is the next worker."""
    world = World(
        lambda labels: Plan(duration=5, exit_code=3) if labels["ottoscaler/attempt"] == "1" else Plan(duration=60)
    )
    async with open_house(world) as house:
        one = await house.open(worker_max_attempts="2")
        first, second = (await one.up(2)).worker_pod_names
        await trio.sleep(1)
        page = await one.status(page_size=1)
        await trio.sleep(20)
        rest = await one.status(page_token=page.next_page_token)
        assert [worker.pod_name for answer in (page, rest) for worker in answer.workers] == [first, f"{second}-r2"]


@pytest.mark.parametrize("token", ["x", "!", "e30=", "WzEsMl0=", "ß"])
async def test_a_token_that_is_none_is_refused(autojump_clock: MockClock, token: str) -> None:
    """The answer names the field."""
    with pytest.raises(InvalidCall, match="page_token"):
        place_of(token)


def add_results(house: House, events: int, workers: int) -> None:
    """Results of events that ended before."""
    for number in range(events):
        event_id = f"{1000 + number}-0"
        ended = [
            WorkerOutcome(f"old-{number}-{index}", index, 1, "failed", "ExitCode", "for a long reason " * 20)
            for index in range(1, workers + 1)
        ]
        pairs = {
            "event_id": event_id,
            "type": "scale_up",
            "task_id": f"t{number % 10}",
            "workers": msgspec.json.encode([worker.public() for worker in ended]).decode(),
        }
        house.server.results.add([(n.encode(), v.encode()) for n, v in pairs.items()], 1000 + number)


@pytest.mark.parametrize(("events", "workers"), [(10_000, 1), (10, 1000), (1, 10_000)])
async def test_ten_thousand_workers_fit(autojump_clock: MockClock, events: int, workers: int) -> None:
    """All are counted, and what does not fit into an answer of gRPC is on further pages."""
    async with open_house() as house:
        one = await house.open()
        add_results(house, events, workers)
        pages = await pages_of(one, 0)
        assert {(page.total_count, page.is_truncated) for page in pages} == {(10_000, False)}
        assert len({worker.pod_name for page in pages for worker in page.workers}) == 10_000
        assert max(len(page.workers) for page in pages) < 10_000


@pytest.mark.parametrize(("events", "workers"), [(10_001, 1), (11, 1000), (2, 5_001)])
async def test_more_than_is_read_back_is_said(autojump_clock: MockClock, events: int, workers: int) -> None:
    """One worker or result too many: the newest 10,000 are there, and the answer says that there are more."""
    async with open_house() as house:
        one = await house.open()
        add_results(house, events, workers)
        answer = await one.status()
        assert (answer.total_count, answer.is_truncated) == (10_000, True)
        names = {worker.pod_name for page in await pages_of(one, 0) for worker in page.workers}
        assert f"old-{events - 1}-1" in names


async def test_results_too_large_to_read_back_are_said(autojump_clock: MockClock) -> None:
    """What lies behind 32 MiB of results is not counted, and the answer says so."""
    async with open_house() as house:
        one = await house.open()
        add_results(house, 40, 200)
        for number in range(20):
            huge = {"event_id": f"{5000 + number}-0", "type": "scale_up", "workers": "[]", "failures": "x" * 2**21}
            house.server.results.add([(n.encode(), v.encode()) for n, v in huge.items()], 5000 + number)
        assert (await one.status()).is_truncated


async def test_a_silent_redis_is_not_zero_workers(autojump_clock: MockClock) -> None:
    """While Redis does not answer the question has no answer."""
    async with open_house() as house:
        one = await house.open()
        await trio.sleep(1)
        house.server.weather = "refusing"
        with pytest.raises(Unavailable):
            await one.status()
