"""Aimed chaos: one small piece of work on a stage of light chaos, and two or three harms at exact steps of it.

A step is a call of a replica, before its effect and before its answer, or a change of a pod. Light chaos does harm at
any time of a long run, so that two harms hardly ever meet within the same moment of one worker; here they nearly always
do. A calm run of the same work says how many steps there are to aim at.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial

import trio

from ottoscaler.errors import Unavailable
from ottoscaler.rpc.door import ScaleUpCall
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from tests.chaos.aimed_harms import AIMED, Aim
from tests.chaos.asking import ask, ask_last, watch_entries
from tests.chaos.light import is_guarded, send
from tests.chaos.light_stage import Replica, Run
from tests.chaos.light_verdict import is_well, settle
from tests.chaos.pipelines import pipeline_entry
from tests.spine.determinism import LeapingClock, schedule_from
from tests.spine.world import Plan, World

LONGEST_WORK = 40.0
"""Harm that was aimed at a later step is not done."""
UP = {"type": "scale_up", "pod_count": "1", "task_id": "a"}
TWO = UP | {"pod_count": "2"}
SCENES = ("one", "two", "down", "cancel", "pipeline", "request")
PLANS = (
    Plan(start_delay=0.05, duration=0.1),
    Plan(start_delay=0.3, duration=1.0),
    Plan(start_delay=0.3, duration=1.0, exit_code=1),
    Plan(start_delay=0.3, duration=5.0, ignores_term=True),
)


class Steps:
    """Counts the steps from the first entry on, and does at each what was aimed at it."""

    def __init__(self, made: Run, aims: list[Aim]) -> None:
        self.count = 0
        self.has_begun = False
        self._made = made
        self._aims = sorted(aims, key=lambda aim: aim.step)
        self.nursery: trio.Nursery

    def take(self, what: str) -> None:
        """One step."""
        if not self.has_begun:
            return
        self.count += 1
        while self._aims and self._aims[0].step <= self.count:
            aim = self._aims.pop(0)
            replicas = self._made.replicas
            first = aim.replica % len(self._made.replicas)
            self._made.harm.append(
                f"{trio.current_time():.2f} {aim.name} for {aim.seconds:g} s at step {self.count}, {what} r{first}"
            )
            later = AIMED[aim.name](self._made, [*replicas[first:], *replicas[:first]], what, aim)
            if later is not None:
                self.nursery.start_soon(_do_later, *later)

    def give_up(self) -> None:
        """Aim at nothing more."""
        self._aims.clear()


async def _do_later(seconds: float, act: Callable[[], None]) -> None:
    await trio.sleep(seconds)
    act()


def run(seed: int) -> Run:
    """Play a seed."""
    dice = random.Random(seed)
    scene, plan, replicas, attempts = (
        dice.choice(SCENES),
        dice.choice(PLANS),
        dice.randint(1, 3),
        dice.choice([1, 1, 3]),
    )
    steps = steps_of(scene, PLANS.index(plan), replicas, attempts)
    return play(seed, scene, plan, replicas, attempts, list(_aims(dice, steps)))


def _aims(dice: random.Random, steps: int) -> Iterator[Aim]:
    step = 0
    for number in range(dice.choice([1, 2, 2, 3])):
        near = number and dice.random() < 0.6
        step = step + dice.randint(0, 12) if near else dice.randrange(steps)
        yield Aim(
            step, dice.choice(sorted(AIMED)), dice.randrange(3), dice.choice([0.05, 0.5, 4.0, 12.0]), dice.random()
        )


@cache
def steps_of(scene: str, plan: int, replicas: int, attempts: int) -> int:
    """The steps of this work when nothing goes wrong."""
    made = play(1, scene, PLANS[plan], replicas, attempts, [])
    return made.steps


def play(seed: int, scene: str, plan: Plan, replicas: int, attempts: int, aims: list[Aim]) -> Run:
    """Play this work with these harms."""
    made = Run(seed, World(plan=lambda labels: plan), MemoryServer(started_at=1_760_000_000.0), attempts=attempts)
    schedule_from(seed)
    with (clock := LeapingClock()).sleeping_here():
        trio.run(_play, made, scene, replicas, aims, clock=clock)
    return made


async def _play(made: Run, scene: str, count: int, aims: list[Aim]) -> None:
    steps, dice = Steps(made, aims), random.Random(made.seed)
    made.on_step = steps.take
    _tell_changes(made.world, steps)
    watch_entries(made.server, made.asked, made.sent)
    async with trio.open_nursery() as nursery:
        await nursery.start(made.world.run)
        made.replicas = replicas = [Replica(made, number) for number in range(count)]
        made.world.is_guarded = partial(is_guarded, made, replicas)
        for replica in replicas:
            nursery.start_soon(replica.live)
        await trio.sleep(2.0)
        async with trio.open_nursery() as steps.nursery:
            steps.has_begun = True
            with trio.move_on_after(LONGEST_WORK):
                await _work(made, scene, replicas, dice)
                while not is_well(made, replicas):  # noqa: ASYNC110 - nobody tells
                    await trio.sleep(0.25)
            made.steps = steps.count
            steps.give_up()
        made.server.weather = "fine"
        for replica in replicas:
            replica.recover()
        await ask_last(made.asked, replicas, dice)
        await settle(made, replicas)
        nursery.cancel_scope.cancel(reason="the run is over")


def _tell_changes(world: World, steps: Steps) -> None:
    publish = world._publish

    def told(kind: str, pod: dict[str, object]) -> None:
        publish(kind, pod)
        steps.take(f"pod {kind}")

    world._publish = told  # type: ignore[method-assign]  # the one way of every change


async def _work(made: Run, scene: str, replicas: list[Replica], dice: random.Random) -> None:
    stream = MemoryStream(made.server, "producer")
    match scene:
        case "one":
            await _send(made, stream, UP, "1")
        case "two":
            await _send(made, stream, TWO, "1")
        case "down":
            await _send(made, stream, TWO, "1")
            await trio.sleep(dice.choice([0.0, 0.2, 0.6]))
            await _send(made, stream, {"type": "scale_down", "pod_count": "1", "task_id": "a"}, "2")
        case "cancel":
            await _send(made, stream, TWO, "1")
            await trio.sleep(dice.choice([0.0, 0.2, 0.6]))
            await _send(made, stream, {"type": "cancel", "event_id": min(made.sent)}, "2")
        case "pipeline":
            await _send(made, stream, pipeline_entry(dice), "1")
        case "request":
            made.asked.calls["r0"] = call = ScaleUpCall(worker_count=1, task_id="a", request_id="r0")
            async with trio.open_nursery() as nursery:
                for replica in replicas[:2]:
                    nursery.start_soon(_ask, made, call, replica, dice.choice([0.05, 2.0]))


async def _send(made: Run, stream: MemoryStream, fields: dict[str, str], token: str) -> None:
    """Add it, however often that takes. Redis may be emptied between the adding and the answer."""
    log, is_sent = made.server.events, False
    while not is_sent:
        with suppress(Unavailable):
            await send(made, stream, fields, token)
            is_sent = True
    if made.server.events is not log:
        made.forgotten |= set(made.sent)


async def _ask(made: Run, call: ScaleUpCall, replica: Replica, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await ask(made.asked, call, replica)
