"""A simulated day: irregular traffic, faults and rollouts over two scalers, in below a minute.

    python -m tests.proof.day --seed 7 --hours 24
    make day SEED=7 HOURS=24

Whole scalers over the twins, under virtual time, as in light chaos; but one life of 24 hours instead of thousands of
minutes. Each hour begins with traffic that follows the time of day, and bursts; it ends in silence, where everything
must have ended and nothing may have grown. The first hour is without harm and every event has one worker, so that the
stage histograms can be held against what stands in the streams to the millisecond.

Leases last 10 s here instead of 3, and the taking loop looks every 2 s instead of four times a second: looks at nothing
would take most of the time.
"""

from __future__ import annotations

import argparse
import gc
import logging
import math
import os
import random
import sys
import time
from collections.abc import Callable
from functools import partial

import trio

from ottoscaler.metrics import STAGES
from ottoscaler.spine import taker
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from tests.chaos.asking import watch_entries
from tests.chaos.light import is_guarded, seeded_event, send
from tests.chaos.light_harms import HARMS
from tests.chaos.light_stage import Replica, Run
from tests.chaos.light_verdict import is_well, note_end
from tests.proof.day_figures import Day, Hour, look_at, read_stages, since
from tests.proof.day_verdict import judge
from tests.spine.determinism import LeapingClock, schedule_from
from tests.spine.world import Plan, World

HOUR = 3600.0
TRAFFIC_SECONDS = 3000.0
"""Of each hour; the rest is for the ends."""
EVENTS_AN_HOUR = 45
BURST = 30
HARMS_AN_HOUR = 8
TICK_SECONDS = 2.0
LEASE_SECONDS = "10"
START_SECONDS = 60.0
"""Until the first hour begins."""
UNCOUNTED = ("labels stripped", "Redis emptied")
"""Harm that leaves something behind by its nature: a pod that is nobody's, events that nobody remembers."""
ROLLOUTS_FROM, ROLLOUTS_EVERY = 1, 4

OnHour = Callable[[Hour], None]


def play(seed: int, hours: int = 24, on_hour: OnHour = lambda hour: None) -> Day:
    """Play a day (or fewer hours), and judge it. Raises `AssertionError` naming what does not hold."""
    world = World(plan=lambda labels: _plan(seed, labels["ottoscaler/event-id"], labels["ottoscaler/index"]))
    world.history_kept = 50  # so that what a watch may still be told is always about the same
    day = Day(seed, Run(seed, world, MemoryServer(started_at=1_760_000_000.0), attempts=2))
    schedule_from(seed)
    gc.collect()
    gc.freeze()
    period, taker.PERIOD_SECONDS = taker.PERIOD_SECONDS, TICK_SECONDS
    try:
        trio.run(_play, day, hours, on_hour, clock=LeapingClock())
    finally:
        taker.PERIOD_SECONDS = period
        gc.unfreeze()
    judge(day)
    return day


def _plan(seed: int, event_id: str, index: str) -> Plan:
    dice = random.Random(f"{seed} {event_id} {index}")
    duration, delay, fails = dice.choice([0.5, 3.0, 20.0, 120.0]), dice.choice([0.1, 1.0, 5.0]), dice.random() < 0.1
    is_plain = trio.current_time() < START_SECONDS + HOUR
    return Plan(start_delay=delay, duration=duration, exit_code=int(fails and not is_plain))


async def _play(day: Day, hours: int, on_hour: OnHour) -> None:
    made, dice = day.run, random.Random(day.seed)
    watch_entries(made.server, made.asked, made.sent)
    before = trio.lowlevel.current_statistics().tasks_living
    async with trio.open_nursery() as nursery:
        await nursery.start(made.world.run)
        replicas = [Replica(made, number, lease_seconds=LEASE_SECONDS) for number in range(2)]
        made.world.is_guarded = partial(is_guarded, made, replicas)
        for replica in replicas:
            nursery.start_soon(replica.live)
        await trio.sleep(START_SECONDS)
        begun = time.monotonic()
        for number in range(hours):
            day.hours.append(hour := await _play_hour(day, replicas, number, dice, begun))
            on_hour(hour)
            if day.is_stuck:
                break
        await note_end(made, replicas)
        for replica in replicas:
            replica.retire()
        await trio.sleep(60)
        nursery.cancel_scope.cancel(reason="the day is over")
    day.tasks = before, trio.lowlevel.current_statistics().tasks_living
    await trio.sleep(24 * HOUR + 1)
    day.left = sorted(made.server.as_keys())


async def _play_hour(day: Day, replicas: list[Replica], number: int, dice: random.Random, begun: float) -> Hour:
    made, kind = day.run, _kind(number)
    known, before, stages = list(made.sent), _counts(day), read_stages()
    ends = trio.current_time() + HOUR
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send, made, number, random.Random(dice.random()))
        if kind == "harm":
            nursery.start_soon(_harm, made, replicas, random.Random(dice.random()))
        if number % ROLLOUTS_EVERY == ROLLOUTS_FROM:
            nursery.start_soon(_roll_out, day, replicas)
    _end_harm(made, replicas)
    await trio.sleep_until(ends)
    day.is_stuck = not await _wait_well(made, replicas)
    creates, workers, harm, rollouts = (now - then for now, then in zip(_counts(day), before, strict=True))
    event_ids = list(made.sent)[len(known) :]
    told, spent = since(read_stages(), stages), time.monotonic() - begun
    standing = look_at(made.server)
    return Hour(number, kind, event_ids, creates, workers, harm, rollouts, standing, told, spent)


def _counts(day: Day) -> tuple[int, int, int, int]:
    """Creates, workers that ran, harm, rollouts, so far."""
    made = day.run
    creates = sum(verb == "create" for verb, _ in made.world.writes)
    return creates, len(made.world.runs), len(made.harm), day.rollouts


def _kind(number: int) -> str:
    return "plain" if number == 0 else "harm" if number % 6 else "calm"


async def _send(made: Run, number: int, dice: random.Random) -> None:
    """An hour's traffic: more by day than by night, and now and then a burst."""
    stream, begun = MemoryStream(made.server, "producer"), trio.current_time()
    many = EVENTS_AN_HOUR * (1 + 0.8 * math.sin((number - 9) / 24 * 2 * math.pi))
    times = [dice.uniform(0, TRAFFIC_SECONDS) for _ in range(round(many * dice.uniform(0.8, 1.2)))]
    if dice.random() < 0.3:
        at = dice.uniform(0, TRAFFIC_SECONDS - 60)
        times += [at + dice.uniform(0, 10) for _ in range(BURST)]
    for at in sorted(times):
        await trio.sleep_until(begun + at)
        plain = {"type": "scale_up", "pod_count": "1"}
        fields = seeded_event(dice, list(made.sent)[-20:]) if number else plain
        await send(made, stream, fields, f"{number}-{at}")


async def _harm(made: Run, replicas: list[Replica], dice: random.Random) -> None:
    """An hour's faults, one after the other or together."""
    kinds = [(name, act) for name, act in HARMS if name not in UNCOUNTED]
    async with trio.open_nursery() as nursery:
        for _ in range(HARMS_AN_HOUR):
            await trio.sleep(dice.uniform(0, 2 * TRAFFIC_SECONDS / HARMS_AN_HOUR))
            (name, act), replica = dice.choice(kinds), dice.choice(replicas)
            seconds = dice.choice([2.0, 12.0, 60.0])
            made.harm.append(f"{trio.current_time():.1f} {name} r{replica.number} {seconds}")
            nursery.start_soon(act, made, replica, seconds, dice)


async def _roll_out(day: Day, replicas: list[Replica]) -> None:
    """Each replica is drained, in turn, and another takes its place."""
    await trio.sleep(TRAFFIC_SECONDS / 2)
    for replica in replicas:
        replica.drain()
        await trio.sleep(30)
    day.rollouts += 1


def _end_harm(made: Run, replicas: list[Replica]) -> None:
    """Also what waits for a call that did not come."""
    made.server.weather = "fine"
    made.server.lose_answer_of.clear()
    made.world.late_creates.clear()
    for replica in replicas:
        replica.recover()


async def _wait_well(made: Run, replicas: list[Replica]) -> bool:
    """Whether all became well within another hour."""
    with trio.move_on_after(HOUR):
        while not is_well(made, replicas):  # noqa: ASYNC110 - there is nothing to be told by
            await trio.sleep(5.0)
        return True
    return False


# -- for whoever wants to see it


def main(arguments: list[str] | None = None) -> int:
    """Play a day, show each hour, and what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.day", description="Play a simulated day.")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--hours", type=int, default=24)
    asked = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    print(f"seed {asked.seed}, {asked.hours} hours\n{HEAD}", flush=True)
    begun = time.monotonic()
    try:
        day = play(asked.seed, asked.hours, lambda hour: print(_row(hour), flush=True))
    except AssertionError as broken:
        print(f"\nseed {asked.seed} broke a promise: {broken}")
        return 1
    _print_end(day, time.monotonic() - begun)
    return 0


HEAD = "hour  kind   events  workers  harm  rollouts  tasks  keys  ours  objects     MB  seconds"


def _row(hour: Hour) -> str:
    now = hour.standing
    return (
        f"{hour.number:4}  {hour.kind:5}  {len(hour.event_ids):6}  {hour.workers:7}  {hour.harm:4}  {hour.rollouts:8}"
        f"  {now.tasks:5}  {now.keys:4}  {now.ours:4}  {now.objects:7,}  {now.megabytes:5.1f}  {hour.seconds:7.1f}"
    )


def _print_end(day: Day, seconds: float) -> None:
    made = day.run
    print(f"\n{len(made.sent):,} events, {len(made.world.runs):,} workers, {day.rollouts} rollouts in {seconds:.1f} s")
    print("harm: " + ", ".join(f"{name} {times}" for name, times in sorted(day.harm.items())))
    for stage in STAGES[1:]:
        timed = [hour.stages[stage] for hour in day.hours]
        count, total = sum(each.times for each in timed), sum(each.seconds for each in timed)
        print(f"  {stage:9}  {count:6,} times, {total:12,.1f} s")
    print("every event has one end, nothing is left or has grown, the stages sum up")


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets are walked in the same order, so that a seed plays the same
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.proof.day", *sys.argv[1:]],
            os.environ | {"PYTHONHASHSEED": "0"},
        )
    sys.exit(main())
