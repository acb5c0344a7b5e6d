"""The harm that light chaos does, each kind a function of the run, a replica, seconds and dice."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import trio

from ottoscaler.errors import Unavailable
from ottoscaler.stream.entry_id import Id, parse_id
from tests.chaos.light_stage import Replica, Run, no_fault
from tests.spine.world import ambiguous, lost

HARM_SECONDS = 60.0
"""Harm ends after this time; then all must become well again."""


async def harm_all(made: Run, replicas: list[Replica], dice: random.Random) -> None:
    """A seeded list of harm, all of it over when this returns."""
    with trio.move_on_after(HARM_SECONDS):
        async with trio.open_nursery() as nursery:
            for _ in range(dice.randint(0, 8)):
                await trio.sleep(dice.expovariate(0.4))
                replica, seconds = dice.choice(replicas), dice.choice([0.2, 2.0, 5.0, 12.0])
                name, act = dice.choice(HARMS)
                made.harm.append(f"{trio.current_time():.1f} {name} r{replica.number} {seconds}")
                nursery.start_soon(act, made, replica, seconds, dice)
    made.redis.keep_all()
    made.server.weather = "fine"
    for replica in replicas:
        replica.recover()


async def _kill(made: Run, replica: Replica, seconds: float, dice: random.Random) -> None:
    replica.kill()


async def _drain(made: Run, replica: Replica, seconds: float, dice: random.Random) -> None:
    replica.drain()


async def _freeze(made: Run, replica: Replica, seconds: float, dice: random.Random) -> None:
    await replica.freeze(seconds)


async def _redis_away(made: Run, replica: Replica, seconds: float, dice: random.Random) -> None:
    made.server.weather = dice.choice(["refusing", "silent"])
    await trio.sleep(seconds)
    made.server.weather = "fine"


def crash_redis(made: Run, last: Id) -> bool:
    """What was written since it began to lose is forgotten, with all events behind `last`; False: it loses no more."""
    if not made.redis.is_losing:
        return False
    made.redis.crash()
    made.world.unguarded.update(made.world.creates_to_come)  # that somebody had sent them may be forgotten
    made.forgotten |= {id_ for id_ in made.sent if parse_id(id_) > last}
    return True


async def _redis_crashes(made: Run, replica: Replica, seconds: float, dice: random.Random) -> None:
    """What is written for up to a second never reaches the disk."""
    if not made.redis.is_losing:
        made.redis.lose_from_now()
        last = made.server.events.last
        await trio.sleep(dice.random())
        if crash_redis(made, last):
            await trio.sleep(min(seconds, 4.0))
            made.server.weather = "fine"


async def _lost_answer(made: Run, replica: Replica, seconds: float, dice: random.Random) -> None:
    names = ["record", "close", "register", "tend", "offer", "mark_victims", "renew", "request", "look", "start_stage"]
    made.server.lose_answer_of.add(dice.choice(names))


async def _api_away(made: Run, replica: Replica, seconds: float, dice: random.Random) -> None:
    chance = dice.choice([0.3, 1.0])
    of = dice.choice([{"create"}, {"created"}, {"delete", "create"}, {"list", "watch"}])
    error = ambiguous if of == {"created"} else lost
    replica.api_fault = lambda verb, name: error(verb) if verb in of and dice.random() < chance else None
    await trio.sleep(seconds)
    replica.api_fault = no_fault


async def _api_busy(made: Run, replica: Replica, seconds: float, dice: random.Random) -> None:
    """429, with and without a word on when to come again."""
    error = Unavailable("too many requests", status=429, retry_after=dice.choice([None, 1.0]), address="https://world")
    replica.api_fault = lambda verb, name: error if verb in {"create", "delete", "list"} else None
    await trio.sleep(seconds)
    replica.api_fault = no_fault


async def _api_slow(made: Run, replica: Replica, seconds: float, dice: random.Random) -> None:
    if replica.scaler is not None:
        kube = replica.scaler.kube
        kube._latency, former = dice.choice([0.5, 3.0]), kube._latency
        await trio.sleep(seconds)
        kube._latency = former


async def _watch_cut(made: Run, replica: Replica, seconds: float, dice: random.Random) -> None:
    if replica.scaler is not None:
        replica.scaler.kube.cut_watch()


async def _late_create(made: Run, replica: Replica, seconds: float, dice: random.Random) -> None:
    """The next create gets no answer now, and is carried out later."""
    made.world.late_creates.append(seconds)


def take_away(made: Run, name: str, how: Callable[[str], None]) -> None:
    """End a pod behind everybody's back."""
    labels = made.world.pods[name]["metadata"]["labels"]
    progress = made.server.progress.get(labels.get("ottoscaler/event-id", ""), {})
    is_recorded = f"a:{labels.get('ottoscaler/index')}:{labels.get('ottoscaler/attempt')}" in progress
    is_known = any(replica.is_session(progress.get("owner", "")) for replica in made.replicas)
    if made.redis.is_losing or (not is_recorded and (made.redis.restarts or not is_known)):
        made.unseen.add(name)
    made.excused.add(name)
    how(name)


async def _delete_by_hand(made: Run, replica: Replica, seconds: float, dice: random.Random) -> None:
    if made.world.pods:
        take_away(made, dice.choice(sorted(made.world.pods)), made.world.remove)


async def _evict(made: Run, replica: Replica, seconds: float, dice: random.Random) -> None:
    if made.world.pods:
        made.evictions += 1
        take_away(made, dice.choice(sorted(made.world.pods)), made.world.evict)


async def _empty_redis(made: Run, replica: Replica, seconds: float, dice: random.Random) -> None:
    """Redis comes back with nothing: what it had is forgotten, and no running worker may pay for it."""
    if dice.random() < 0.3:
        made.forgotten |= set(made.sent)
        made.redis.keep_all()
        made.world.unguarded.update(made.world.creates_to_come)  # their fences are forgotten, too
        made.server.flush()


async def _trim(made: Run, replica: Replica, seconds: float, dice: random.Random) -> None:
    """A producer trims the stream, of pending entries, too."""
    group = made.server.events.groups.get(made.server.keys.group)
    if group is not None:
        made.server.events.trim(sum(id_ > group.last for id_ in made.server.events.entries))


async def _strip_label(made: Run, replica: Replica, seconds: float, dice: random.Random) -> None:
    if made.world.pods:
        name = dice.choice(sorted(made.world.pods))
        if "ottoscaler/instance" in made.world.pods[name]["metadata"]["labels"]:
            made.excused.add(name)
            made.world.strip_labels(name)


HARMS: list[tuple[str, Callable[[Run, Replica, float, random.Random], Any]]] = [
    ("kill -9", _kill),
    ("SIGTERM", _drain),
    ("SIGSTOP", _freeze),
    ("Redis away", _redis_away),
    ("Redis crashes", _redis_crashes),
    ("lost answer", _lost_answer),
    ("API away", _api_away),
    ("API busy", _api_busy),
    ("API slow", _api_slow),
    ("watch cut", _watch_cut),
    ("late create", _late_create),
    ("pod deleted by hand", _delete_by_hand),
    ("labels stripped", _strip_label),
    ("evicted", _evict),
    ("Redis emptied", _empty_redis),
    ("stream trimmed", _trim),
]
