"""What a leaving process hands over: all that it holds, in the state that its last requests left it in, and in time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.stream.base import Registration, Writing, Written
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from tests.spine.determinism import schedule_from
from tests.spine.scaler import Scaler
from tests.spine.test_cut import EVENTS, CutAtStep
from tests.spine.world import Plan, World

LONG = Plan(duration=9999)


class Scene:
    """A world, a server, and one scaler that is ready; `end` is when it had gone, `times` when it wrote to the API."""

    def __init__(self, world: World, server: MemoryServer, scaler: Scaler) -> None:
        self.world = world
        self.server = server
        self.scaler = scaler
        self.ended = trio.Event()
        self.end = 0.0
        self.times: list[float] = []
        self.calls: list[str] = []

    async def run(self) -> None:
        """The scaler's life."""
        await self.scaler.run(self._watch)
        self.end = trio.current_time()
        self.ended.set()

    def _watch(self, scaler: Scaler) -> None:
        check = scaler.kube._may_write

        def note() -> None:
            check()
            self.times.append(trio.current_time())

        scaler.kube._may_write = note
        for name in ("offer", "register", "close", "leave"):
            setattr(scaler.stream, name, self._note(name, getattr(scaler.stream, name)))

    def _note(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        async def noted(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            return await call(*args, **kwargs)

        return noted

    async def add(self, count: int = 1, pods: int = 1) -> list[str]:
        """Send scale_ups."""
        producer = MemoryStream(self.server, "producer")
        pairs = [("type", "scale_up"), ("pod_count", str(pods))]
        return [await producer.add_event(pairs, token_hex(8)) for _ in range(count)]

    def owners(self) -> list[str]:
        """Who has the live events, oldest first; empty = offered."""
        return [self.server.progress[event_id]["owner"] for event_id in self.server.live_ids()]

    def is_offered_clean(self, event_id: str) -> bool:
        """Whether the next owner is told that no create is under way; the event must be offered."""
        assert event_id in self.server.offered["work"]
        return self.server.progress[event_id].get("clean") == "1"


@asynccontextmanager
async def open_scene(
    plan: Callable[[Mapping[str, str]], Plan] = lambda labels: LONG, **settings: str
) -> AsyncIterator[Scene]:
    """A scaler named "one" that has been there for some seconds."""
    world, server = World(plan), MemoryServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        scene = Scene(world, server, Scaler(world, server, "one", **settings))
        nursery.start_soon(scene.run)
        await trio.sleep(5)
        yield scene
        nursery.cancel_scope.cancel(reason="the test is over")


async def end_slowly() -> None:
    """Work whose end takes 5 s, as that of thousands of tasks does."""
    try:
        await trio.sleep_forever()
    finally:
        with trio.move_on_after(5, shield=True):
            await trio.sleep_forever()


async def test_events_are_offered_before_their_tasks_have_ended(autojump_clock: MockClock) -> None:
    """At the deadline the events are everybody's and the session has left, however long the tasks take to end."""
    async with open_scene(drain_seconds="5") as scene:
        (event_id,) = await scene.add()
        await trio.sleep(2)
        assert scene.scaler.rings._handler is not None
        scene.scaler.rings._handler._work.start_soon(end_slowly)
        before = trio.current_time()
        scene.scaler.drain.request("SIGTERM")
        await trio.sleep(4.9)
        assert scene.owners() == ["one"]
        await trio.sleep(0.2)
        assert event_id in scene.server.offered["work"]
        assert scene.server.sessions.get("one", 0) == 0
        assert not scene.ended.is_set()
        await scene.ended.wait()
        assert scene.end - before == pytest.approx(10, abs=0.5)
        assert scene.calls.count("offer") == scene.calls.count("leave") == 1


async def test_nothing_is_written_once_events_are_handed_over(autojump_clock: MockClock) -> None:
    """A process in the midst of many creates sends none after the deadline: the next owner sends them."""
    async with open_scene(drain_seconds="1") as scene:
        scene.scaler.kube._latency = 0.1
        await scene.add(pods=200)
        await trio.sleep(1)
        deadline = trio.current_time() + 1
        scene.scaler.drain.request("SIGTERM")
        await scene.ended.wait()
        assert deadline - 0.2 < max(scene.times) <= deadline
        assert 0 < len(scene.world.pods) == len(scene.times) < 200
        (event_id,) = scene.server.live_ids()
        accepted = [name for name in scene.server.progress[event_id] if name.startswith("a:")]
        assert len(accepted) == len(scene.times)


def create_at_the_deadline(scene: Scene, answer: Callable[[Any], Any]) -> None:
    """Let the next create be under way when the drain's time is over."""
    create = scene.scaler.kube.create_pod

    async def create_pod(namespace: str, body: Mapping[str, Any]) -> Any:
        scene.scaler.drain.request("SIGTERM")
        scene.scaler.kube.create_pod = create  # type: ignore[method-assign]  # once
        return await answer(body)

    scene.scaler.kube.create_pod = create_pod  # type: ignore[method-assign]  # it takes its time


async def test_a_create_that_is_answered_in_time_is_handed_over_as_accepted(autojump_clock: MockClock) -> None:
    """A create under way at the deadline, answered within 0.15 s: the next owner knows its pod, and fences nothing."""
    async with open_scene(drain_seconds="0") as scene:

        async def answer(body: Mapping[str, Any]) -> Any:
            await trio.sleep(0.1)
            return scene.world.create(body)

        create_at_the_deadline(scene, answer)
        (event_id,) = await scene.add()
        await scene.ended.wait()
        (pod,) = scene.world.pods.values()
        assert pod["metadata"]["uid"] in scene.server.progress[event_id]["a:1:1"]
        assert scene.is_offered_clean(event_id)


async def test_a_create_without_an_answer_is_fenced_by_the_next_owner(autojump_clock: MockClock) -> None:
    """A create under way at the deadline, carried out when its worker has long ended elsewhere, runs nothing."""
    async with open_scene(lambda labels: Plan(duration=1), drain_seconds="0") as scene:
        began = trio.current_time()

        async def answer(body: Mapping[str, Any]) -> Any:
            scene.world.create_later(body, 20)
            await trio.sleep_forever()

        create_at_the_deadline(scene, answer)
        (event_id,) = await scene.add()
        await scene.ended.wait()
        assert scene.end - began < 0.9
        assert not scene.is_offered_clean(event_id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Scaler(scene.world, scene.server, "two").run)
            await trio.sleep(40)
            assert scene.world.runs == [(event_id, 1, 1)]
            assert not scene.server.progress
            nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_deadline_waits_for_what_is_on_its_way_into_the_progress(autojump_clock: MockClock) -> None:
    """An outcome that Redis takes 0.1 s to write down, reported right at the deadline, is in the progress that the
    next owner reads.
    """
    async with open_scene(lambda labels: Plan(duration=3 if labels["ottoscaler/index"] == "1" else 9999)) as scene:
        record = scene.scaler.stream.record

        async def record_slowly(writings: Sequence[Writing]) -> list[Written]:
            if any(writing.outcomes for writing in writings):
                scene.scaler.drain.request("SIGTERM")
                scene.scaler.drain.request("a second SIGTERM")
            await trio.sleep(0.1)
            return await record(writings)

        scene.scaler.stream.record = record_slowly  # type: ignore[method-assign]  # a Redis that takes its time
        (event_id,) = await scene.add(pods=2)
        await scene.ended.wait()
        assert "o:1" in scene.server.progress[event_id]
        assert scene.is_offered_clean(event_id)


@pytest.mark.parametrize("seconds", [0.0, 3.0])
async def test_a_silent_redis_does_not_hold_up_the_end(seconds: float, autojump_clock: MockClock) -> None:
    """With events that run, that wait, that were read and not registered, and with outcomes to write, a drain ends
    within 0.9 s of its deadline while Redis says nothing.
    """
    plan = {"1": Plan(duration=3), "2": LONG}
    async with open_scene(lambda labels: plan[labels["ottoscaler/index"]], drain_seconds=str(seconds)) as scene:
        scene.scaler.rings._site.slots.limit = 2
        await scene.add(pods=2)
        await scene.add()
        await trio.sleep(1)
        await scene.add()
        scene.server.weather = "silent"
        await trio.sleep(2.4)
        before = trio.current_time()
        scene.scaler.drain.request("SIGTERM")
        with trio.move_on_after(60):
            await scene.ended.wait()
        scene.server.weather = "fine"  # whatever still waits must not outlive the test
        assert 0 < scene.end - before <= seconds + 0.9


def lose_registration(scene: Scene) -> None:
    """Let the next registration reach nobody."""
    register = scene.scaler.stream.register

    async def never_answer(registrations: Sequence[Registration]) -> list[int]:
        scene.scaler.stream.register = register  # type: ignore[method-assign]  # once
        await trio.sleep_forever()
        raise AssertionError

    scene.scaler.stream.register = never_answer  # type: ignore[method-assign]  # Redis does not hear of it


async def test_what_was_read_and_not_registered_is_offered_at_once(autojump_clock: MockClock) -> None:
    """An entry whose registration is without an answer when a drain begins does not wait for the drain's end."""
    async with open_scene(drain_seconds="60") as scene:
        await scene.add()
        await trio.sleep(2)
        lose_registration(scene)
        (event_id,) = await scene.add()
        await trio.sleep(1)
        assert event_id not in scene.server.progress
        scene.scaler.drain.request("SIGTERM")
        await trio.sleep(0.2)
        assert scene.owners() == ["one", ""]
        assert event_id in scene.server.offered["work"]


async def test_what_arrived_with_the_end_of_the_intake_is_offered_at_once(autojump_clock: MockClock) -> None:
    """Entries whose delivery meets the drain's begin are nobody's loss: they are offered, and not begun here."""
    async with open_scene(drain_seconds="60") as scene:
        await scene.add()
        await trio.sleep(0.5)  # a read lasts 2 s
        call = scene.scaler.stream._call

        async def answer_slowly(name: str, script: Callable[[], Any]) -> Any:
            answer = await call(name, script)
            if name == "read" and scene.scaler.stream._deliveries.has_unread():
                await trio.sleep(2)
            return answer

        scene.scaler.stream._call = answer_slowly  # type: ignore[method-assign]  # the answer is on its way
        late = [scene.server.add_entry([("type", "scale_up"), ("pod_count", "1")]) for _ in range(3)]
        await trio.sleep(0.5)
        assert scene.owners() == ["one"]
        scene.scaler.drain.request("SIGTERM")
        await trio.sleep(0.2)
        assert scene.owners() == ["one", "", "", ""]
        assert set(scene.server.offered["work"]) == set(late)


async def test_a_silent_redis_is_asked_once_for_what_was_read(autojump_clock: MockClock) -> None:
    """Redis refusing at the drain's begin: what was read is not asked for again and again while work has its time."""
    async with open_scene(drain_seconds="60") as scene:
        await scene.add()
        await trio.sleep(2)
        scene.server.lose_answer_of.add("register")
        await scene.add()
        await trio.sleep(0.05)
        scene.server.weather = "refusing"
        scene.scaler.drain.request("SIGTERM")
        asked = scene.calls.count("register")
        await trio.sleep(10)
        assert scene.calls.count("register") <= asked + 1


@pytest.mark.parametrize(("first", "seconds"), [(1, "0"), (2, "1")])
def test_a_drain_at_any_step_leaves_nothing_in_its_name(first: int, seconds: str) -> None:
    """Asked to drain at any step over a few events (every other one with no time at all), a scaler goes with nothing
    held, read or half written.
    """
    for step in range(first, 5000, 2):
        server = MemoryServer(started_at=1_760_000_000.0)
        schedule_from(step)
        steps = trio.run(_drain_at, step, seconds, server, clock=MockClock(autojump_threshold=0))
        pending = server.events.groups[server.keys.group].pending if server.era else {}
        unknown = [id_ for id_ in pending if f"{id_[0]}-{id_[1]}" not in server.progress]
        held = {id_ for id_, progress in server.progress.items() if progress["owner"]}
        assert (server.held["one"], held, unknown, server.sessions.get("one", 0)) == (set(), set(), [], 0), step
        if steps < step:
            return
    pytest.fail("the uncut run has more steps than were tried")


async def _drain_at(step: int, seconds: str, server: MemoryServer) -> int:
    world = World(lambda labels: Plan(start_delay=0.2, duration=1.0))
    scaler = Scaler(world, server, "one", drain_seconds=seconds)
    instrument = CutAtStep(step, lambda: scaler.drain.request("SIGTERM"))

    async def send() -> None:
        await trio.sleep(1)
        trio.lowlevel.add_instrument(instrument)
        for event in EVENTS:
            await MemoryStream(server, "producer").add_event(list(event.items()), token_hex(8))
        await trio.sleep(10)
        scaler.drain.request("the events have ended")

    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        nursery.start_soon(send)
        await scaler.run()
        trio.lowlevel.remove_instrument(instrument)
        nursery.cancel_scope.cancel(reason="it has ended")
    return instrument.steps


async def test_an_era_lost_in_a_run_ends_it_and_gets_nothing_back(autojump_clock: MockClock) -> None:
    """Redis emptied: this life ends within two renewals, and says no word more of what it held."""
    async with open_scene(max_workers="1", lease_seconds="3") as scene:
        await scene.add(2)
        await trio.sleep(1)
        scene.server.flush()
        scene.calls.clear()
        with trio.fail_after(3):
            await scene.ended.wait()
        assert scene.calls == []
        assert not scene.scaler.drain.requested.is_set()
        assert len(scene.world.pods) == 1


@pytest.mark.parametrize("late", [False, True], ids=["before the drain", "in the drain"])
async def test_an_era_lost_around_a_drain_ends_it_in_peace(
    late: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis emptied right before or during a drain, something just read: it ends by its deadline with code 0, and
    hands nothing over.
    """
    async with open_scene(max_workers="1", drain_seconds="5", lease_seconds="3") as scene:
        await scene.add(2)
        await trio.sleep(1)
        lose_registration(scene)
        await scene.add()
        await trio.sleep(0.1)
        if not late:
            scene.server.flush()
        before = trio.current_time()
        scene.scaler.drain.request("SIGTERM")
        await trio.sleep(0.5)
        scene.server.flush()
        scene.calls.clear()
        await scene.ended.wait()
        assert scene.end - before <= 5.9
        assert scene.calls == []
        assert (scene.scaler.drain.exit_code, len(scene.world.pods)) == (0, 1)
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    ("call", "drains"), [("tend", False), ("read", False), ("list_fences", False), ("list_fences", True)]
)
async def test_a_part_that_crashes_for_ever_ends_it_with_a_hand_over(
    call: str, drains: bool, autojump_clock: MockClock
) -> None:
    """A hopeless part costs no event: all is handed over at once, also in a drain that has time left, and the exit
    code is 1.
    """
    async with open_scene(drain_seconds="600", supervisor_max_restarts="3") as scene:
        (event_id,) = await scene.add()
        await trio.sleep(2)
        if drains:
            scene.scaler.drain.request("SIGTERM")

        async def crash(*args: Any, **kwargs: Any) -> None:
            raise ValueError("a bug")

        setattr(scene.scaler.stream, call, crash)
        with trio.fail_after(30):
            await scene.ended.wait()
        assert scene.scaler.drain.exit_code == 1
        assert ("SIGTERM" if drains else "crashed 3 times") in scene.scaler.drain.reason
        assert scene.is_offered_clean(event_id)
        assert len(scene.world.pods) == 1
