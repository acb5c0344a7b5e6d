"""The harm of aimed chaos: each is done within a step, and says what is to be done how many seconds later."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from ottoscaler.errors import Refused, Unavailable
from tests.chaos.light_harms import crash_redis, take_away
from tests.chaos.light_stage import Replica, Run, no_fault
from tests.spine.stage import INSTANCE
from tests.spine.world import ambiguous, lost

Later = tuple[float, Callable[[], "Later"]] | None
Harm = Callable[[Run, Sequence[Replica], str, "Aim"], Later]
"""Of the run, the replicas (the one that is aimed at first), the word of the step, and the aim."""


@dataclass(frozen=True)
class Aim:
    """A harm at a step, to a replica (modulo their number), for some seconds; `dice` (0 to 1) decides what is left."""

    step: int
    name: str
    replica: int
    seconds: float
    dice: float


def _kill(made: Run, replicas: Sequence[Replica], what: str, aim: Aim) -> Later:
    replicas[0].kill()
    return None


def _kill_all(made: Run, replicas: Sequence[Replica], what: str, aim: Aim) -> Later:
    for replica in replicas:
        replica.kill()
    return None


def _drain(made: Run, replicas: Sequence[Replica], what: str, aim: Aim) -> Later:
    replicas[0].drain()
    return None


def _freeze(made: Run, replicas: Sequence[Replica], what: str, aim: Aim) -> Later:
    replicas[0].stop(aim.seconds)
    return aim.seconds, replicas[0].go_on


def _redis_away(made: Run, replicas: Sequence[Replica], what: str, aim: Aim) -> Later:
    made.server.weather = "refusing" if aim.dice < 0.5 else "silent"
    return aim.seconds, partial(setattr, made.server, "weather", "fine")


def _lost_answer(made: Run, replicas: Sequence[Replica], what: str, aim: Aim) -> Later:
    made.server.lose_answer_of.add(what)
    return None


def _api(error: Callable[[str], Exception], *verbs: str) -> Harm:
    def harm(made: Run, replicas: Sequence[Replica], what: str, aim: Aim) -> Later:
        replicas[0].api_fault = lambda verb, name: error(verb) if verb in verbs else None
        return aim.seconds, partial(setattr, replicas[0], "api_fault", no_fault)

    return harm


def _busy(verb: str) -> Exception:
    return Unavailable("too many requests", status=429, retry_after=1.0, address="https://world")


def _once(made: Run, replicas: Sequence[Replica], what: str, aim: Aim) -> Later:
    """The next create or delete of this replica fails, before or after it was carried out."""

    replica = replicas[0]

    def fault(verb: str, name: str) -> Exception | None:
        if verb not in ("created", "create", "delete"):
            return None
        replica.api_fault = no_fault
        return ambiguous(verb) if verb == "created" or aim.dice < 0.5 else lost(verb)

    replica.api_fault = fault
    return None


def _watch_cut(made: Run, replicas: Sequence[Replica], what: str, aim: Aim) -> Later:
    if replicas[0].scaler is not None:
        replicas[0].scaler.kube.cut_watch()
    return None


def _late_create(made: Run, replicas: Sequence[Replica], what: str, aim: Aim) -> Later:
    made.world.late_creates.append(aim.seconds)
    return None


def _to_pod(act: Callable[[Run, str], None]) -> Harm:
    def harm(made: Run, replicas: Sequence[Replica], what: str, aim: Aim) -> Later:
        strangers = made.truth.strangers if made.truth else set[str]()
        labelled = [
            name
            for name, pod in sorted(made.world.pods.items())
            if "ottoscaler/instance" in pod["metadata"]["labels"] and name not in strangers
        ]
        if not labelled:
            return None
        name = labelled[int(aim.dice * len(labelled))]
        return 0.0, partial(_if_there, act, made, name)  # not within the step, which may be a change of this very pod

    return harm


def _if_there(act: Callable[[Run, str], None], made: Run, name: str) -> None:
    if name in made.world.pods:
        act(made, name)


def _delete(made: Run, name: str) -> None:
    made.evictions += made.is_run_again
    take_away(made, name, made.world.remove)


def _evict(made: Run, name: str) -> None:
    made.evictions += 1
    take_away(made, name, made.world.evict)


def _strip(made: Run, name: str) -> None:
    made.evictions += made.is_run_again
    made.excused.add(name)
    made.world.strip_labels(name)


def _empty(made: Run, replicas: Sequence[Replica], what: str, aim: Aim) -> Later:
    made.forgotten |= set(made.sent)
    made.redis.keep_all()
    made.world.unguarded.update(made.world.creates_to_come)
    made.server.flush()
    return None


def _crash(made: Run, replicas: Sequence[Replica], what: str, aim: Aim) -> Later:
    """What is written from now on never reaches the disk; a second later at most Redis crashes, and comes back."""
    if made.redis.is_losing:
        return None
    made.redis.lose_from_now()
    last = made.server.events.last

    def crash() -> Later:
        if not crash_redis(made, last):
            return None
        return min(aim.seconds, 4.0), partial(setattr, made.server, "weather", "fine")

    return aim.dice, crash


def _trim(made: Run, replicas: Sequence[Replica], what: str, aim: Aim) -> Later:
    group = made.server.events.groups.get(made.server.keys.group)
    if group is not None:
        made.server.events.trim(sum(id_ > group.last for id_ in made.server.events.entries))
    return None


def _forbidden(verb: str) -> Exception:
    return Refused('pods "p" is forbidden: User "otto" cannot delete resource "pods"', status=403, reason="Forbidden")


def _over_quota(verb: str) -> Exception:
    return Refused('pods "p" is forbidden: exceeded quota: pods', status=403, reason="Forbidden")


def _silent_watch(made: Run, replicas: Sequence[Replica], what: str, aim: Aim) -> Later:
    if replicas[0].scaler is not None:
        replicas[0].scaler.kube.silent_until = trio.current_time() + 3 * aim.seconds
    return None


def _late_list(made: Run, replicas: Sequence[Replica], what: str, aim: Aim) -> Later:
    """The watch is cut for good, and the list that it brings arrives when it is no longer true."""
    if (scaler := replicas[0].scaler) is None:
        return None
    scaler.kube.list_delay = aim.seconds
    replicas[0].api_fault = lambda verb, name: lost(verb) if verb == "watch" else None
    scaler.kube.cut_watch()

    def over() -> None:
        replicas[0].api_fault = no_fault
        scaler.kube.list_delay = 0.0

    return aim.seconds + 0.2, over


def _stranger(made: Run, replicas: Sequence[Replica], what: str, aim: Aim) -> Later:
    """The next create meets somebody else's pod of its name."""
    another, former = {"ottoscaler/instance": "x"}, {"ottoscaler/instance": INSTANCE, "ottoscaler/era": "before"}
    labels: tuple[dict[str, str], ...] = ({}, another, former)
    made.world.strangers.append(labels[int(aim.dice * 3)])
    return None


def _relabel(made: Run, name: str) -> None:
    """Somebody writes another label: whose pod it is must not be believed of it."""
    dice = random.Random(name)
    made.evictions += made.is_run_again
    label, value = dice.choice(
        [("event-id", "1-1"), ("index", "7"), ("attempt", "2"), ("index", "x"), ("era", "another"), ("instance", "x")]
    )
    made.excused.add(name)
    if label == "instance":
        made.world.strip_labels(name, instance=value)
        return
    made.world.change(name, lambda pod: pod["metadata"]["labels"].update({f"ottoscaler/{label}": value}))


def _clock(sign: float) -> Harm:
    def harm(made: Run, replicas: Sequence[Replica], what: str, aim: Aim) -> Later:
        replicas[0].set_skew(sign * (3600.0 if aim.dice < 0.3 else 10 * aim.seconds))
        return None

    return harm


def _link(how: str) -> Harm:
    def harm(made: Run, replicas: Sequence[Replica], what: str, aim: Aim) -> Later:
        replicas[0].link = how
        return aim.seconds, partial(setattr, replicas[0], "link", "fine")

    return harm


def _double(made: Run, replicas: Sequence[Replica], what: str, aim: Aim) -> Later:
    """The owner is killed, and whoever takes over soon after."""
    replicas[0].kill()

    def kill_others() -> None:
        _kill_all(made, replicas[1:], what, aim)

    return 3.0 + aim.dice, kill_others


AIMED: dict[str, Harm] = {
    "kill -9": _kill,
    "kill -9 of all": _kill_all,
    "SIGTERM": _drain,
    "SIGSTOP": _freeze,
    "Redis away": _redis_away,
    "lost answer": _lost_answer,
    "API takes no create": _api(lost, "create"),
    "API answers no create": _api(ambiguous, "created"),
    "API takes no write": _api(lost, "create", "delete"),
    "API lists nothing": _api(lost, "list", "watch"),
    "API busy": _api(_busy, "create", "delete", "list"),
    "one write fails": _once,
    "watch cut": _watch_cut,
    "late create": _late_create,
    "pod deleted by hand": _to_pod(_delete),
    "labels stripped": _to_pod(_strip),
    "evicted": _to_pod(_evict),
    "API answers no question": _api(lost, "get"),
    "API reads nothing": _api(lost, "get", "list", "watch"),
    "API refuses deletes": _api(_forbidden, "delete"),
    "API refuses creates for now": _api(_over_quota, "create"),
    "watch silent": _silent_watch,
    "list late": _late_list,
    "stranger": _stranger,
    "label changed": _to_pod(_relabel),
    "clock ahead": _clock(1.0),
    "clock behind": _clock(-1.0),
    "one refused by Redis": _link("refusing"),
    "one not answered by Redis": _link("deaf"),
    "one cut off from Redis": _link("silent"),
    "one answered late by Redis": _link("slow"),
    "double takeover": _double,
    "Redis crashes": _crash,
    "Redis emptied": _empty,
    "stream trimmed": _trim,
}
OPENING = ("late create", "API answers no create", "kill -9", "clock ahead", "clock behind", "watch silent")
"""Harm that makes other harm worse, and so comes first more often."""
