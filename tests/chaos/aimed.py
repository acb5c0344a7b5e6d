"""Aimed chaos: one small piece of work on a stage of light chaos, and two or three harms at exact steps of it.

A step is a call of a replica, before its effect and before its answer, or a change of a pod. Light chaos does harm at
any time of a long run, so that two harms hardly ever meet within the same moment of one worker; here they nearly always
do. A calm run of the same work says how many steps there are to aim at.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple

import trio

from ottoscaler.stream.memory import MemoryServer
from tests.chaos.aimed_harms import AIMED, OPENING, Aim, Later
from tests.chaos.aimed_scenes import SCENES, Scene
from tests.chaos.aimed_truth import Truth
from tests.chaos.asking import ask_last, watch_entries
from tests.chaos.light import is_guarded
from tests.chaos.light_stage import Replica, Run
from tests.chaos.light_verdict import is_well, settle
from tests.spine.determinism import LeapingClock, schedule_from
from tests.spine.world import Plan, World

LONGEST_WORK = 40.0
"""Harm that was aimed at a later step is not done."""
PLANS = (
    Plan(start_delay=0.05, duration=0.1),
    Plan(start_delay=0.3, duration=1.0),
    Plan(start_delay=0.3, duration=1.0, exit_code=1),
    Plan(start_delay=0.3, duration=5.0, ignores_term=True),
    Plan(start_delay=0.3, duration=1.0, finalizer_seconds=8.0),
    Plan(start_delay=2.0, duration=0.5, exit_code=3),
)
REGULAR = ("tend", "renew", "read", "list_fences", "held", "look", "sweep", "reserve")
RARELY = 6
"""One of so many regular calls is a step: most of them change nothing, and most of the time there are no others."""
PHASE_LAGS = (1.1, 1.1, 1.1, 1.1, 0.0, 0.0, 4.0, 12.0)
"""Seconds between the end of a worker and its pod's final phase."""


class Steps:
    """Counts the steps from the first entry on, and does at each what was aimed at it."""

    def __init__(self, made: Run, aims: list[Aim]) -> None:
        self.count = 0
        self.has_begun = False
        self._regular = 0
        self._made = made
        self._aims = sorted(aims, key=lambda aim: aim.step)
        self.nursery: trio.Nursery

    def take(self, what: str) -> None:
        """One step."""
        if not self.has_begun:
            return
        if what.removesuffix(" done") in REGULAR:
            self._regular += 1
            if self._regular % RARELY:
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


async def _do_later(seconds: float, act: Callable[[], Later]) -> None:
    await trio.sleep(seconds)
    if later := act():
        await _do_later(*later)


def run(seed: int, harm: str = "") -> Run:
    """Play a seed; `harm`: a kind of harm that one of its aims is to be."""
    dice = random.Random(seed)
    scene = dice.choice(sorted(SCENES))
    attempts = dice.choice([1, 1, 3])
    work = Work(scene, dice.randrange(len(PLANS)), dice.randint(1, 3), SCENES[scene].attempts or attempts)
    steps = steps_of(work)
    phase_lag, aims = dice.choice(PHASE_LAGS), list(_aims(dice, steps))
    if harm:
        at = dice.randrange(len(aims))
        aims[at] = replace(aims[at], name=harm)
    return play(seed, work, phase_lag, aims)


def _aims(dice: random.Random, steps: int) -> Iterator[Aim]:
    step = 0
    for number in range(dice.choice([1, 2, 2, 3])):
        near = number and dice.random() < 0.6
        step = step + dice.randint(0, 12) if near else dice.randrange(steps)
        name = dice.choice(OPENING if not number and dice.random() < 0.4 else sorted(AIMED))
        yield Aim(step, name, dice.randrange(3), dice.choice([0.05, 0.5, 4.0, 12.0]), dice.random())


class Work(NamedTuple):
    """What is done: a scene, which of the plans all its workers have, by how many replicas, WORKER_MAX_ATTEMPTS."""

    scene: str
    plan: int
    replicas: int
    attempts: int


@cache
def steps_of(work: Work) -> int:
    """The steps of this work when nothing goes wrong."""
    return play(1, work, PHASE_LAGS[0], []).steps


def play(seed: int, work: Work, phase_lag: float, aims: list[Aim]) -> Run:
    """Play this work with these harms."""
    plan = PLANS[work.plan]
    world = World(plan=lambda labels: plan, phase_lag=phase_lag)
    made = Run(seed, world, MemoryServer(started_at=1_760_000_000.0), attempts=work.attempts)
    made.scene = work.scene
    made.truth = Truth(world)
    made.is_run_again = "platform_retry_started" in SCENES[work.scene].settings
    schedule_from(seed)
    with (clock := LeapingClock()).sleeping_here():
        trio.run(_play, made, SCENES[work.scene], work.replicas, aims, clock=clock)
    return made


async def _play(made: Run, scene: Scene, count: int, aims: list[Aim]) -> None:
    steps, dice = Steps(made, aims), random.Random(made.seed)
    made.on_step = steps.take
    _tell_changes(made.world, steps)
    watch_entries(made.server, made.asked, made.sent)
    async with trio.open_nursery() as nursery:
        await nursery.start(made.world.run)
        made.replicas = replicas = [Replica(made, number, **scene.settings) for number in range(count)]
        made.world.is_guarded = partial(is_guarded, made, replicas)
        for replica in replicas:
            nursery.start_soon(replica.live)
        await trio.sleep(2.0)
        async with trio.open_nursery() as steps.nursery:
            steps.has_begun = True
            with trio.move_on_after(LONGEST_WORK):
                await scene.work(made, replicas, dice)
                while not is_well(made, replicas):  # noqa: ASYNC110 - nobody tells
                    await trio.sleep(0.25)
            made.steps = steps.count
            steps.give_up()
        made.redis.keep_all()
        made.server.weather, made.is_cured = "fine", True
        made.world.late_creates.clear()
        made.world.strangers.clear()
        for replica in replicas:
            replica.recover()
        made.calm_at = trio.current_time()
        await ask_last(made.asked, replicas, dice)
        await settle(made, replicas)
        ends = (made.server.results.last[0], made.server.dead_letters.last[0])
        made.waited = max(ends) / 1000 - 1_760_000_000.0 - made.calm_at
        nursery.cancel_scope.cancel(reason="the run is over")


def _tell_changes(world: World, steps: Steps) -> None:
    publish = world._publish

    def told(kind: str, pod: dict[str, Any]) -> None:
        publish(kind, pod)
        steps.take(f"pod {kind}")

    world._publish = told  # type: ignore[method-assign]  # the one way of every change
