"""The logs of events: handed on before pods and events go, given up after the grace, gone on with by the next owner."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.logs.mark import Entry
from ottoscaler.logs.messages import Wording
from ottoscaler.outcomes import read_outcome, rfc3339
from ottoscaler.spine.scaling import Scaling
from ottoscaler.stream.memory import MemoryServer
from tests.logs.house import FakeHandler, House, LoggedWorld, logged_stage, open_house
from tests.logs.receiver import FakeAnswer, FakeReceiver
from tests.spine.world import Plan


async def run_event(house: House, pods: int, **fields: str) -> float:
    """Run one event to its close; the seconds that it took."""
    progress = await house.stage.add(type="scale_up", pod_count=pods, **fields)
    begun = trio.current_time()
    await house.stage.work(progress).run()
    return trio.current_time() - begun


def names(house: House) -> list[str]:
    """All pods that ever ran."""
    return sorted(house.world.logs)


async def test_every_line_is_handed_on_before_the_event_closes(tmp_path: Path, autojump_clock: MockClock) -> None:
    """All lines of all workers arrive once, in order, with their numbers; then pods and event go."""
    async with open_house(tmp_path) as house:
        took = await run_event(house, 5, task_id="task-7")
        assert len(names(house)) == 5
        for name in names(house):
            assert house.handler.numbers(name) == list(range(1, 11))
        assert {entry.message for entry in house.handler.entries} == {f"line {number}" for number in range(1, 11)}
        assert {entry.task_id for entry in house.handler.entries} == {"task-7"}
        assert house.handler.gaps == []
        assert took < 6
        assert await house.stage.pods_left() == []
        (result,) = await house.stage.results()
        assert result["status"] == "succeeded"


async def test_states_are_told_in_order_with_cause_and_reason(tmp_path: Path, autojump_clock: MockClock) -> None:
    """CREATED, RUNNING and the end are told once each, in order, also where the handler says ERROR at first."""
    async with open_house(tmp_path, plan=Plan(exit_code=3)) as house:
        house.handler.refuses = 4
        await run_event(house, 2)
        for name in names(house):
            assert house.handler.states(name) == ["CREATED", "RUNNING", "FAILED"]
        last = house.handler.told[-1]
        assert (last.metadata["cause"], last.metadata["exit_code"]) == ("ExitCode", "3")
        assert "3" in last.reason


async def test_no_pod_goes_before_its_mark_says_that_all_is_done(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Whoever takes the event over once a pod was deleted knows that nothing of its log is missing."""
    async with open_house(tmp_path) as house:
        marks: list[str] = []
        delete, server = house.stage.kube.delete_pod, house.stage.stream._server

        async def look_and_delete(namespace: str, name: str, **words: Any) -> Any:
            (progress,) = server.progress.values()
            marks.append(progress[f"l:{name.split('-')[2]}:1"])
            return await delete(namespace, name, **words)

        house.stage.kube.delete_pod = look_and_delete  # type: ignore[method-assign]  # looks at Redis on the way
        await run_event(house, 3)
        assert ['"ended":true' in mark for mark in marks] == [True] * 3


async def test_a_bug_in_one_log_is_a_gap_and_touches_no_other(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A log whose forwarding breaks is said to be incomplete; its event goes on, and so do the other logs."""
    caplog.set_level(logging.CRITICAL)
    async with open_house(tmp_path) as house:
        read = house.world.read_log

        def read_or_break(namespace: str, name: str, container: str, **words: Any) -> Any:
            if name.startswith("otto-agent-2-"):
                raise RuntimeError("a bug that only this log meets")
            return read(namespace, name, container, **words)

        house.world.read_log = read_or_break  # type: ignore[method-assign]  # the bug
        await run_event(house, 3)
        await trio.sleep(5)
        first, broken, third = names(house)
        assert house.handler.gaps == ["Broken"]
        assert [len(house.handler.numbers(name)) for name in (first, broken, third)] == [10, 0, 10]


@pytest.mark.parametrize(("bad", "lines", "gaps"), [(b"line 4", 3, ["Broken"]), (b"", 0, [])])
async def test_lines_that_cannot_be_encoded_end_their_own_log_alone(
    tmp_path: Path,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    bad: bytes,
    lines: int,
    gaps: list[str],
) -> None:
    """Whatever the wording of one worker's entries raises, of one line or of the gap, too: the result says that lines
    are missing, its states are told, and every line of the others comes.
    """
    caplog.set_level(logging.CRITICAL)
    encode = Wording.encode

    def encode_or_break(wording: Wording, entry: Entry) -> bytes:
        if wording.who.name.startswith("otto-agent-2-") and (entry.text == bad or not bad):
            raise RuntimeError("a bug that only this worker meets")
        return encode(wording, entry)

    monkeypatch.setattr(Wording, "encode", encode_or_break)
    async with open_house(tmp_path) as house:
        await run_event(house, 3)
        await trio.sleep(5)
        first, broken, third = names(house)
        assert [len(house.handler.numbers(name)) for name in (first, broken, third)] == [10, lines, 10]
        assert house.handler.gaps == gaps
        assert house.handler.states(broken) == ["CREATED", "RUNNING", "COMPLETED"]
        (result,) = await house.stage.results()
        assert [(gap["worker"], gap["why"]) for gap in json.loads(result["log_gaps"])] == [(broken, "Broken")]


async def test_a_slow_handler_keeps_the_pod_until_the_last_line(tmp_path: Path, autojump_clock: MockClock) -> None:
    """As long as lines are under way, inside the grace, the pod stays and the event is open."""
    async with open_house(tmp_path, lines=100) as house:
        house.handler.receiver.delay = 0.2
        took = await run_event(house, 1)
        assert 20 < took < 30
        assert house.handler.numbers(names(house)[0]) == list(range(1, 101))


async def test_a_handler_that_is_away_holds_events_up_for_the_grace(tmp_path: Path, autojump_clock: MockClock) -> None:
    """After the grace pod and event go; when the handler is back it is told that lines are missing."""
    async with open_house(tmp_path, grace=30.0) as house:
        house.handler.receiver.is_away = True
        took = await run_event(house, 3)
        assert 30 < took < 36
        assert len(await house.stage.results()) == 1
        assert await house.stage.pods_left() == []
        house.handler.receiver.is_away = False
        await trio.sleep(20)
        assert house.handler.gaps == ["GraceOver"] * 3


async def test_the_api_may_be_away_meanwhile(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Logs that cannot be read for a while are read later, whole."""
    async with open_house(tmp_path, plan=Plan(duration=20)) as house:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_event, house, 3)
            await trio.sleep(5)
            house.world.is_away = True
            for kubelet in house.world.logs.values():
                kubelet.cut()
            await trio.sleep(30)
            house.world.is_away = False
        for name in names(house):
            assert house.handler.numbers(name) == list(range(1, 11))
        assert house.handler.gaps == []


async def test_the_next_owner_goes_on_at_the_marks(tmp_path: Path, autojump_clock: MockClock) -> None:
    """After a `kill -9` nothing is lost, and repeated are only lines whose mark was not written yet."""
    world = LoggedWorld(tmp_path, lambda labels: Plan(duration=30), 300)
    server, handler = MemoryServer(), FakeHandler(FakeReceiver(), [])
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        async with logged_stage(world, server, handler, "s1", 60) as first:
            progress = await first.stage.add(type="scale_up", pod_count=4)
            with trio.move_on_after(15):
                await first.stage.work(progress).run()
        async with logged_stage(world, server, handler, "s2", 60) as second:
            taken = await second.take_from(first.stage, progress.event_id)
            assert len(taken.marks) == 4
            await second.stage.work(taken).run()
        for name in sorted(world.logs):
            numbers = handler.numbers(name)
            assert sorted(set(numbers)) == list(range(1, 301))
            assert len(numbers) - 300 <= 10, "ten lines are written a second, and marks twice"
            assert handler.states(name) == ["CREATED", "RUNNING", "COMPLETED"], "what was told stands in the mark"
        assert handler.gaps == []
        world.close()
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_state_that_nobody_heard_is_told_by_the_next_owner(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A handler that heard no state of the first owner hears all of them, in order, from the second."""
    world = LoggedWorld(tmp_path, lambda labels: Plan(duration=30), 10)
    server, handler = MemoryServer(), FakeHandler(FakeReceiver(), [], is_deaf=True)
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        async with logged_stage(world, server, handler, "s1", 60) as first:
            progress = await first.stage.add(type="scale_up", pod_count=1)
            with trio.move_on_after(10):
                await first.stage.work(progress).run()
        handler.is_deaf = False
        async with logged_stage(world, server, handler, "s2", 60) as second:
            taken = await second.take_from(first.stage, progress.event_id)
            await second.stage.work(taken).run()
        (name,) = world.logs
        assert handler.states(name) == ["CREATED", "RUNNING", "COMPLETED"]
        world.close()
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_states_of_a_pod_that_is_gone_are_told_by_the_next_owner(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Nobody heard of a worker before its scaler died and its pod went: what was written down of it is told."""
    world = LoggedWorld(tmp_path, lambda labels: Plan(duration=5), 10)
    server, handler = MemoryServer(), FakeHandler(FakeReceiver(), [], is_deaf=True)
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        async with logged_stage(world, server, handler, "s1", 60) as first:
            progress = await first.stage.add(type="scale_up", pod_count=1)
            with trio.move_on_after(20):
                await first.stage.work(progress).run()
        (name,) = world.logs
        world.remove(name)
        await trio.sleep(5)
        handler.is_deaf = False
        async with logged_stage(world, server, handler, "s2", 60) as second:
            taken = await second.take_from(first.stage, progress.event_id)
            await second.stage.work(taken).run()
        assert handler.states(name) == ["CREATED", "RUNNING", "COMPLETED"]
        created, running, _ = handler.told
        assert created.timestamp == rfc3339(taken.accepted[1, 1]["at"] / 1000)
        assert running.timestamp == read_outcome(json.dumps(taken.outcomes[1])).started_at != ""
        world.close()
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_hand_over_writes_every_mark(tmp_path: Path, autojump_clock: MockClock) -> None:
    """After `hand_over` nothing is sent any more, and the progress says exactly how far everything is."""
    async with open_house(tmp_path, plan=Plan(duration=30), lines=300) as house:
        progress = await house.stage.add(type="scale_up", pod_count=3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.stage.work(progress).run)
            await trio.sleep(10.13)
            await house.keeper.hand_over()
            before = [house.handler.numbers(name)[-1] for name in names(house)]
            taken = await house.stage.stream.read_progress(progress.event_id)
            assert taken is not None
            marks = [f'"line":{number}' in taken.marks[index, 1] for index, number in enumerate(before, start=1)]
            assert marks == [True] * 3
            await trio.sleep(5)
            assert [house.handler.numbers(name)[-1] for name in names(house)] == before
            nursery.cancel_scope.cancel(reason="the test is over")


async def test_retries_of_one_worker_do_not_reach_another(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Each line of one worker is asked for again; the other one notices nothing."""
    async with open_house(tmp_path) as house:
        seen: set[bytes] = set()

        def judge(entry: bytes) -> FakeAnswer:
            if b"otto-agent-1-" in entry and entry not in seen:
                seen.add(entry)
                return FakeAnswer("RETRY")
            return FakeAnswer()

        house.handler.receiver.judge = judge
        await run_event(house, 2)
        first, second = names(house)
        assert sorted(house.handler.numbers(first)) == sorted([*range(1, 11), *range(1, 11)])
        assert house.handler.numbers(second) == list(range(1, 11))


async def test_a_stopped_worker_that_was_gone_before_the_takeover_has_a_gap(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The next owner finds a stop mark and no pod: nobody knows what it wrote, and a gap says so."""
    world = LoggedWorld(tmp_path, lambda labels: Plan(duration=30), 300)
    server, handler = MemoryServer(), FakeHandler(FakeReceiver(), [])
    handler.receiver.is_away = True
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        async with logged_stage(world, server, handler, "s1", 60) as first:
            progress = await first.stage.add(type="scale_up", pod_count=1)
            with trio.move_on_after(5):
                await first.stage.work(progress).run()
        (name,) = world.pods
        server.progress[progress.event_id]["s:1"] = '{"by": "9-0", "cause": "Cancelled"}'
        world.remove(name)
        await trio.sleep(5)
        handler.receiver.is_away = False
        async with logged_stage(world, server, handler, "s2", 60) as second:
            taken = await second.take_from(first.stage, progress.event_id)
            await second.stage.work(taken).run()
        assert handler.gaps == ["PodGone"]
        assert handler.states(name)[-1] == "TERMINATED"
        world.close()
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_lost_event_is_forwarded_here_no_more(tmp_path: Path, autojump_clock: MockClock) -> None:
    """When another owner has the event a mark is refused, and nothing more of its lines is sent from here."""
    async with open_house(tmp_path, plan=Plan(duration=30), lines=300) as house:
        progress = await house.stage.add(type="scale_up", pod_count=1)
        async with trio.open_nursery() as nursery:
            work = house.stage.work(progress)
            assert isinstance(work, Scaling)
            nursery.start_soon(work.run)
            await trio.sleep(5)
            server = house.stage.stream._server
            server.progress[progress.event_id]["owner"] = "other"
            await trio.sleep(1)
            before = house.handler.numbers(names(house)[0])[-1]
            await trio.sleep(10)
            assert house.handler.numbers(names(house)[0])[-1] == before
            nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_worker_that_never_ran_has_no_gap(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Where no container began there is no log: its end is told, and nothing is said to be missing."""
    async with open_house(tmp_path, plan=Plan(stuck="CreateContainerConfigError", reason="no secret")) as house:
        took = await run_event(house, 2)
        assert took < 30
        assert house.handler.gaps == []
        states = [
            state for name in {one.worker_id for one in house.handler.told} for state in house.handler.states(name)
        ]
        assert sorted(states) == ["CREATED", "CREATED", "FAILED", "FAILED"]


async def test_a_log_that_was_given_up_is_named_in_the_result(tmp_path: Path, autojump_clock: MockClock) -> None:
    """With nobody who takes the gaps they are not lost: the event's result names workers, stamps and reasons."""
    async with open_house(tmp_path, grace=5.0) as house:
        await run_event(house, 1)
        house.handler.receiver.is_away = True
        house.handler.receiver.cut()
        await run_event(house, 2)
        whole, given_up = await house.stage.results()
        assert "log_gaps" not in whole
        gaps = json.loads(given_up["log_gaps"])
        workers = {worker["name"] for worker in given_up["workers"]}
        assert {gap["worker"] for gap in gaps} == workers
        assert [gap["why"] for gap in gaps] == ["GraceOver"] * 2


async def test_a_gap_that_was_not_sent_is_sent_by_the_next_owner(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A scaler that dies with a gap leaves it in the mark: who has the event then reports it, and the result does."""
    durations = [1.0, 60.0]
    world = LoggedWorld(tmp_path, lambda labels: Plan(duration=durations[int(labels["ottoscaler/index"]) % 2]), 10)
    server, handler = MemoryServer(), FakeHandler(FakeReceiver(), [])
    handler.receiver.is_away = True
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        async with logged_stage(world, server, handler, "s1", 5) as first:
            progress = await first.stage.add(type="scale_up", pod_count=2)
            with trio.move_on_after(20):
                await first.stage.work(progress).run()
        handler.receiver.is_away = False
        async with logged_stage(world, server, handler, "s2", 5) as second:
            taken = await second.take_from(first.stage, progress.event_id)
            await second.stage.work(taken).run()
            (result,) = await second.stage.results()
        (gap,) = json.loads(result["log_gaps"])
        assert [(one.worker_id, one.metadata["gap"]) for one in handler.entries if one.metadata["gap"]] == [
            (gap["worker"], "GraceOver")
        ]
        world.close()
        nursery.cancel_scope.cancel(reason="the test is over")
