"""ScaleUp: what is answered, when, and what it means to ask again."""

from __future__ import annotations

from functools import partial

import msgspec
import pytest
import trio
from trio.testing import MockClock

from ottoscaler.errors import Refused, Unavailable
from ottoscaler.rpc.door import RequestMismatch, ScaleAnswer
from ottoscaler.spine.shared_look import REST_SECONDS
from tests.calls.house import House, Replica, open_house
from tests.spine.world import Plan, World, long_world


def refuse(replica: Replica, *indices: int) -> None:
    """The API refuses these workers of every event, for good."""
    ours = tuple(f"otto-agent-{index}-" for index in indices)

    def fail(verb: str, name: str) -> Exception | None:
        if verb == "create" and name.startswith(ours):
            return Refused("pods is invalid: no such field", status=422, reason="Invalid")
        return None

    replica.scaler.kube.fail = fail


async def test_it_answers_when_every_pod_was_accepted(autojump_clock: MockClock) -> None:
    """Names of all pods, in order, and the time of the first; workers run on, and nothing has ended."""
    async with open_house(long_world()) as house:
        one = await house.open()
        answer = await one.up(3, task_id="t")
        assert (answer.status, answer.processed_count) == ("success", 3)
        assert set(answer.worker_pod_names) == set(house.world.pods)
        assert [name.split("-")[2] for name in answer.worker_pod_names] == ["1", "2", "3"]
        assert answer.started_at <= answer.completed_at != ""
        assert "3 of 3 workers accepted" in answer.message
        assert {pod["metadata"]["labels"]["ottoscaler/task-id"] for pod in house.world.pods.values()} == {"t"}
        assert trio.current_time() < 3


async def test_it_waits_for_the_last_pod(autojump_clock: MockClock) -> None:
    """Where pods come one after the other, as slots get free, the answer comes when the last was accepted."""
    async with open_house(World(lambda labels: Plan(duration=30))) as house:
        one = await house.open(max_workers="1")
        answer = await one.up(3)
        assert (answer.status, answer.processed_count) == ("success", 3)
        assert 60 < trio.current_time() < 90


@pytest.mark.parametrize(
    ("refused", "status", "names"), [((2,), "partial_success", 2), ((1, 2, 3), "failed", 0)], ids=["some", "all"]
)
@pytest.mark.parametrize("duration", [600, 0.001], ids=["running", "ended"])
async def test_workers_refused_for_good_are_told(
    autojump_clock: MockClock, refused: tuple[int, ...], status: str, names: int, duration: float
) -> None:
    """Some or none accepted: the answer says which, and why the others were not, also when all is over by then."""
    async with open_house(World(lambda labels: Plan(duration=duration))) as house:
        one = await house.open()
        refuse(one, *refused)
        answer = await one.up(3)
        assert (answer.status, answer.processed_count, len(answer.worker_pod_names)) == (status, names, names)
        assert "Invalid" in answer.message
        assert "no such field" in answer.message
        assert not any(f"agent-{index}-" in name for index in refused for name in answer.worker_pod_names)
        assert trio.current_time() < 10  # the others' end is not waited for


@pytest.mark.parametrize(("exits", "status"), [([0, 0], "success"), ([0, 3], "partial_success"), ([3, 3], "failed")])
async def test_it_waits_for_the_end_where_that_is_asked(
    autojump_clock: MockClock, exits: list[int], status: str
) -> None:
    """With wait=completed the answer comes when all workers have ended, and says how."""
    world = World(lambda labels: Plan(duration=100, exit_code=exits[int(labels["ottoscaler/index"]) - 1]))
    async with open_house(world) as house:
        one = await house.open()
        answer = await one.up(2, wait_completed=True)
        assert trio.current_time() > 100
        assert (answer.status, answer.processed_count, len(answer.worker_pod_names)) == (status, 2, 2)
        assert ("exit code 3" in answer.message or "NonZeroExit" in answer.message) == (3 in exits)


async def test_the_same_request_is_answered_with_the_same_names(autojump_clock: MockClock) -> None:
    """Asked again while its pods are being made, while they run, when all has ended, and on another replica."""
    async with open_house(World(lambda labels: Plan(duration=50))) as house:
        one, two = await house.open("one"), await house.open("two")
        refuse(one, 2)
        refuse(two, 2)
        answers: list[ScaleAnswer] = []

        async def ask(replica: Replica) -> None:
            answers.append(await replica.up(3, request_id="r", repository="x"))

        async with trio.open_nursery() as nursery:
            for replica in (one, two, one):
                nursery.start_soon(ask, replica)
        await ask(two)
        await trio.sleep(100)
        await ask(two)
        house.server.results.trim(0)
        await ask(one)
        assert sorted(answer.status for answer in answers) == ["already_processed"] * 5 + ["partial_success"]
        assert len({answer.worker_pod_names for answer in answers}) == 1
        assert len(answers[0].worker_pod_names) == 2
        assert all("(partial_success)" in one.message for one in answers if one.status == "already_processed")
        assert all(one.first_status == "partial_success" for one in answers if one.status == "already_processed")
        assert house.workers_run == 2


async def test_the_end_is_told_again_after_its_result_was_trimmed(autojump_clock: MockClock) -> None:
    """Who asks again how it ended hears the same numbers, names and times, for as long as the request id stands."""
    async with open_house(World(lambda labels: Plan(exit_code=int(labels["ottoscaler/index"] == "2")))) as house:
        one = await house.open()
        first = await one.up(3, request_id="r", wait_completed=True)
        again = await one.up(3, request_id="r", wait_completed=True)
        house.server.results.trim(0)
        trimmed = await one.up(3, request_id="r", wait_completed=True)
        assert "2 succeeded, 1 failed of 3" in first.message
        assert trimmed.message == again.message.partition("; ")[0]
        assert msgspec.structs.replace(trimmed, message=again.message) == again


async def test_other_content_under_the_same_id_is_refused(autojump_clock: MockClock) -> None:
    """Another number, task or text under a known id is an error; the same in another order is not."""
    async with open_house() as house:
        one = await house.open()
        await one.up(1, request_id="r", metadata={"a": "1", "b": "2"})
        again = await one.up(1, request_id="r", metadata={"b": "2", "a": "1"})
        assert again.status == "already_processed"
        with pytest.raises(RequestMismatch, match="'r' was used before"):
            await one.up(2, request_id="r", metadata={"a": "1", "b": "2"})
        with pytest.raises(RequestMismatch):
            await one.up(1, request_id="r", metadata={"a": "1", "b": "3"})
        with pytest.raises(RequestMismatch):
            await one.down(1, request_id="r")


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.05, 0.2, 0.5])
async def test_a_killed_replica_loses_no_call(autojump_clock: MockClock, seconds: float) -> None:
    """Killed at any time before it answered, its event goes on elsewhere; asked there, all is done once."""
    async with open_house(long_world()) as house:
        one, two = await house.open("one"), await house.open("two")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(one.up, 3, request_id="r"))
            await trio.sleep(seconds)
            has_begun = bool(house.server.requests)
            one.kill()
            nursery.cancel_scope.cancel()
        answer = await two.up(3, request_id="r")
        assert answer.status == ("already_processed" if has_begun else "success")
        assert set(answer.worker_pod_names) == set(house.world.pods)
        assert len(answer.worker_pod_names) == 3


async def test_a_deadline_ends_the_waiting_alone(autojump_clock: MockClock) -> None:
    """A call that is cut off is done all the same, says so when asked again, and is waited for by nobody then."""
    async with open_house(World(lambda labels: Plan(duration=50))) as house:
        one = await house.open()
        with trio.move_on_after(10) as limit:
            await one.up(2, request_id="r", wait_completed=True)
        assert limit.cancelled_caught
        assert len(one.scaler.rings._site.standings) == 0
        answer = await one.up(2, request_id="r", wait_completed=True)
        assert answer.status == "already_processed"
        assert "(success)" in answer.message
        assert house.workers_run == 2


async def test_many_calls_cost_one_look(autojump_clock: MockClock) -> None:
    """Two hundred calls that wait at once are answered, by as many looks as one would have cost."""
    async with open_house(long_world()) as house:
        one = await house.open()
        looks = 0
        look = one.scaler.stream.look

        async def counted(ids: list[str]) -> object:
            nonlocal looks
            looks += 1
            return await look(ids)

        one.scaler.stream.look = counted  # type: ignore[method-assign,assignment]  # counts and passes on
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(one.up, 1)
        assert looks <= (trio.current_time() - began) / REST_SECONDS + 3
        assert len(house.world.pods) == 200


async def test_redis_away_is_waited_out_or_told(autojump_clock: MockClock) -> None:
    """A short outage makes a call later, and doubles nothing; a long one ends it as unavailable."""
    async with open_house(long_world()) as house:
        one = await house.open()
        house.server.lose_answer_of.add("request")
        assert (await one.up(1, request_id="r")).status == "success"
        assert len(house.world.pods) == 1
        house.server.weather = "refusing"
        with pytest.raises(Unavailable):
            await one.up(1)
        house.server.weather = "fine"


async def test_an_outage_while_it_waits_is_survived(autojump_clock: MockClock) -> None:
    """Redis goes away and comes back while a call waits: it is answered as if nothing had been."""
    async with open_house(World(lambda labels: Plan(duration=20))) as house:
        one = await house.open(lease_seconds="5")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(break_for_a_while, house)
            answer = await one.up(2, wait_completed=True)
        assert answer.status == "success"


async def break_for_a_while(house: House) -> None:
    """Redis is away from the fifth to the fifteenth second."""
    await trio.sleep(5)
    house.server.weather = "refusing"
    await trio.sleep(10)
    house.server.weather = "fine"
