"""Light chaos: several scalers over twins in one process, under virtual time; some 2,000 runs a minute
on two cores.

A seed gives the events and the harm. `run(seed)` plays it and returns a `Run`; `judge(run)` (`light_verdict.py`)
raises `Broken` naming the promise that does not hold. The same seed plays the same run again.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial

import trio

from ottoscaler.stream.memory import MemoryServer, MemoryStream
from tests.chaos.asking import ask_last, ask_many, repeated_entry, watch_entries
from tests.chaos.light_harms import harm_all
from tests.chaos.light_stage import Replica, Run
from tests.chaos.light_verdict import settle
from tests.chaos.pipelines import pipeline_entry
from tests.spine.determinism import LeapingClock, schedule_from
from tests.spine.world import Plan, World


def run(seed: int) -> Run:
    """Play a seed."""
    dice = random.Random(seed)
    world = World(plan=lambda labels: plan_of(seed, labels))
    made = Run(seed, world, MemoryServer(started_at=1_760_000_000.0), attempts=dice.choice([1, 1, 3]))
    random.seed(seed)
    schedule_from(seed)
    with (clock := LeapingClock()).sleeping_here():
        trio.run(_play, made, dice, clock=clock)
    return made


def plan_of(seed: int, labels: Mapping[str, str]) -> Plan:
    """How a worker lives: a function of seed and identity."""
    dice = random.Random(f"{seed} {labels['ottoscaler/event-id']} {labels['ottoscaler/index']}")
    return Plan(
        start_delay=dice.choice([0.05, 0.3, 2.0]),
        duration=dice.choice([0.1, 1.0, 3.0, 12.0]),
        exit_code=dice.choice([0, 0, 0, 1]),
        ignores_term=dice.random() < 0.1,
    )


async def _play(made: Run, dice: random.Random) -> None:
    watch_entries(made.server, made.asked, made.sent)
    async with trio.open_nursery() as nursery:
        await nursery.start(made.world.run)
        made.replicas = replicas = [Replica(made, number) for number in range(dice.randint(1, 3))]
        made.world.is_guarded = partial(is_guarded, made, replicas)
        for replica in replicas:
            nursery.start_soon(replica.live)
        async with trio.open_nursery() as trouble:
            trouble.start_soon(_send, made, random.Random(dice.random()))
            trouble.start_soon(harm_all, made, replicas, random.Random(dice.random()))
            trouble.start_soon(ask_many, made.asked, replicas, random.Random(dice.random()))
        await ask_last(made.asked, replicas, dice)
        await settle(made, replicas)
        nursery.cancel_scope.cancel(reason="the run is over")


def is_guarded(made: Run, replicas: Sequence[Replica], event_id: str) -> bool:
    """Whether a late create for an event would be undone at once: by all who follow the list of fences, and by its
    owner, which knows those that are not in the list yet, once it has recorded the ends that they belong to.
    """
    if made.server.weather != "fine":
        return False
    owner = made.server.progress.get(event_id, {}).get("owner")
    return all(replica.can_delete() for replica in replicas) and (
        owner is None or any(replica.is_session(owner) for replica in replicas)
    )


async def _send(made: Run, dice: random.Random) -> None:
    stream = MemoryStream(made.server, "producer")
    for number in range(dice.randint(2, 8)):
        await trio.sleep(dice.expovariate(0.5))
        await send(made, stream, seeded_event(dice, sorted(made.sent)), f"{made.seed}-{number}")


async def send(made: Run, stream: MemoryStream, fields: dict[str, str], token: str) -> None:
    """Add an event, whatever the weather: a producer waits until its own Redis answers."""
    made.server.weather, weather = "fine", made.server.weather
    event_id = await stream.add_event(list(fields.items()), token)
    made.server.weather = weather
    made.sent[event_id] = fields


def seeded_event(dice: random.Random, before: list[str]) -> dict[str, str]:
    """What a producer asks for; `before` are events that it may want to cancel."""
    task = dice.choice(["a", "b"])
    match dice.choices(["up", "down", "cancel", "bad", "repeat", "pipeline"], [5, 2, 1, 1, 1, 2])[0]:
        case "pipeline":
            return pipeline_entry(dice)
        case "repeat":
            return repeated_entry(dice)
        case "cancel":
            return {"type": "cancel", "event_id": dice.choice([*before, "1-1"])}
        case "up":
            return {
                "type": "scale_up",
                "pod_count": str(min(dice.randint(1, 12), dice.randint(1, 12))),
                "task_id": task,
            }
        case "down":
            return {"type": "scale_down", "pod_count": str(dice.randint(1, 5)), "task_id": task}
        case _:
            return dice.choice([{"type": "explode"}, {"type": "scale_up", "pod_count": "0"}, {"x": "y"}])
