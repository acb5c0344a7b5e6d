"""What a heavy seed says: replicas and their settings, the events with the plans of their workers, the list of harm.

Pure: the same seed gives the same script. What the harm meets still depends on how fast real processes are.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import NamedTuple

TEMPLATES = {"simulated-good": 0, "simulated-bad": 3, "simulated-late": 0}
"""Templates of pods without a process, and the exit code of their workers."""

BAD_ENTRIES: tuple[dict[str, str], ...] = (
    {"type": "explode"},
    {"type": "scale_up", "pod_count": "0"},
    {"type": "scale_up", "pod_count": "2", "template": "missing"},
    {"type": "scale_up", "pod_count": "1", "otto.unheard": "of"},
    {"type": "cancel", "event_id": "no id"},
    {"x": "y"},
)

HARMS = {
    "kill -9": 3,
    "kill -9 in writes": 4,
    "SIGSTOP": 3,
    "rollout": 3,
    "Redis kill -9": 2,
    "Redis freeze": 2,
    "API latency": 1,
    "API 429": 1,
    "API 5xx": 2,
    "reset before": 2,
    "reset after": 2,
    "watch cut": 1,
    "watch silent": 1,
    "watch expired": 1,
    "late create": 2,
    "labels stripped": 1,
    "stream trimmed": 1,
    "eviction": 2,
    "pod deleted": 2,
    "pod killed": 1,
}
"""Each kind of harm and how often it comes, beside an emptied Redis, which comes at most once in a script."""


FORGETTING = frozenset(("Redis emptied", "stream trimmed"))
"""Harm that takes events out of Redis: what was added by replicas could not be told from what was lost."""
CALLS_SHARE = 0.5
"""Of the scripts without that harm so many have calls and pipelines."""


LOG_HARMS = {
    "handler kill -9": 3,
    "handler SIGSTOP": 1,
    "logs cut": 2,
    "log rotated": 2,
}
"""Harm to those who read and take lines; it comes beside the other in scripts with logs."""
LOGS_SHARE = 0.4
"""Of all scripts so many have an otto-handler that takes every line."""


class Send(NamedTuple):
    """An entry to add: when (s after the start), its fields, and for a cancel which of the events before is meant
    (0 to 1).
    """

    at: float
    fields: dict[str, str]
    target: float = 0.0


class Ask(NamedTuple):
    """A client with a request of its own: when it asks first, the plan of the workers that it asks for, how long it
    waits for an answer each time that it asks (s), and a number from 0 to 1 that chooses whom it asks first.
    """

    at: float
    request_id: str
    plan: str
    patience: tuple[float, ...]
    whom: float


class Harm(NamedTuple):
    """What goes wrong: when (s after the start), for how long, and a number from 0 to 1 that chooses whom it meets."""

    at: float
    name: str
    seconds: float
    whom: float


@dataclass(frozen=True, slots=True)
class Script:
    """One seed in full."""

    seed: int
    replicas: int
    settings: dict[str, str]
    sends: tuple[Send, ...]
    harms: tuple[Harm, ...]
    asks: tuple[Ask, ...] = ()
    has_logs: bool = False


def write_script(seed: int, *, seconds: float = 6.0) -> Script:
    """The script of a seed; harm and events come within `seconds`."""
    dice = random.Random(seed)
    replicas, settings = dice.choices([1, 2, 3, 4], [2, 4, 2, 1])[0], _settings(dice)
    sends, harms = _sends(dice, seconds), _harms(dice, seconds)
    asks: list[Ask] = []
    more = random.Random(f"calls and pipelines of {seed}")  # apart, as they do not come with every harm
    if more.random() < CALLS_SHARE and not FORGETTING.intersection(harm.name for harm in harms):
        asks = _asks(more, seconds)
        sends = sorted([*sends, *_pipelines(more, seconds)], key=lambda send: send.at)
        settings["GRPC_ENABLED"] = "true"
    lines = random.Random(f"logs of {seed}")
    if has_logs := lines.random() < LOGS_SHARE:
        harms = sorted([*harms, *_log_harms(lines, seconds)], key=lambda harm: harm.at)
        settings["LOG_GRACE_SECONDS"] = lines.choice(["1", "10", "10"])
    return Script(seed, replicas, settings, tuple(sends), tuple(harms), tuple(asks), has_logs)


def _settings(dice: random.Random) -> dict[str, str]:
    return {
        "WORKER_MAX_ATTEMPTS": dice.choice(["1", "1", "2"]),
        "PLATFORM_RETRY_STARTED": dice.choice(["false", "true"]),
        "MAX_WORKERS": dice.choice(["1000", "1000", "3"]),
        "MAX_WORKERS_TOTAL": dice.choice(["0", "0", "5"]),
        "MAX_EVENTS": dice.choice(["1000", "2"]),
    }


def _sends(dice: random.Random, seconds: float) -> list[Send]:
    sends = []
    for at in sorted(dice.uniform(0.0, seconds) for _ in range(dice.randint(4, 12))):
        match dice.choices(["up", "simulated", "down", "cancel", "bad"], [7, 2, 2, 2, 1])[0]:
            case "up":
                sends.append(Send(at, _scale_up(dice)))
            case "simulated":
                fields = {"type": "scale_up", "pod_count": str(dice.randint(1, 12)), "task_id": dice.choice("ab")}
                sends.append(Send(at, fields | {"template": dice.choice(sorted(TEMPLATES))}))
            case "down":
                count = str(dice.randint(1, 4))
                sends.append(Send(at, {"type": "scale_down", "pod_count": count, "task_id": dice.choice("ab")}))
            case "cancel":
                sends.append(Send(at, {"type": "cancel"}, dice.random()))
            case _:
                sends.append(Send(at, dict(dice.choice(BAD_ENTRIES))))
    return sends


def _scale_up(dice: random.Random) -> dict[str, str]:
    plan = _plan(dice, 6)
    fields = {"type": "scale_up", "pod_count": str(len(plan.split())), "plan": plan}
    return fields | ({"task_id": task} if (task := dice.choice(["a", "b", ""])) else {})


def _plan(dice: random.Random, most: int) -> str:
    """Of each worker in turn how long it works, with which code it ends, and whether it is deaf to SIGTERM."""
    return " ".join(
        f"{dice.choice([0.05, 0.3, 1.0, 3.0])}:{dice.choice([0, 0, 0, 7])}:{dice.choice(['', '', '', 'deaf'])}"
        for _ in range(dice.randint(1, most))
    )


def _asks(dice: random.Random, seconds: float) -> list[Ask]:
    return [
        Ask(
            dice.uniform(0.0, seconds),
            f"call-{number}",
            _plan(dice, 4),
            tuple(dice.choice([0.05, 0.5, 3.0]) for _ in range(dice.randint(1, 4))),
            dice.random(),
        )
        for number in range(dice.randint(1, 4))
    ]


def _pipelines(dice: random.Random, seconds: float) -> list[Send]:
    """Pipelines of a few stages, each of which may need some of those before it."""
    sends = []
    for number in range(dice.randint(0, 2)):
        names, stages = "abc"[: dice.randint(1, 3)], []
        for at, name in enumerate(names):
            plan, needs = _plan(dice, 2), dice.sample(names[:at], dice.randint(0, at))
            asked = {"stage_id": name, "worker_count": len(plan.split()), "depends_on": needs, "config": {"plan": plan}}
            stages.append(asked)
        text = json.dumps({"pipeline_id": f"pipeline-{number}", "stages": stages})
        sends.append(Send(dice.uniform(0.0, seconds), {"type": "pipeline", "otto.pipeline": text}))
    return sends


def _log_harms(dice: random.Random, seconds: float) -> list[Harm]:
    names = dice.choices(list(LOG_HARMS), list(LOG_HARMS.values()), k=dice.randint(1, 4))
    return [Harm(dice.uniform(0.3, seconds), name, dice.choice([0.2, 0.8, 2.0]), dice.random()) for name in names]


def _harms(dice: random.Random, seconds: float) -> list[Harm]:
    names = dice.choices(list(HARMS), list(HARMS.values()), k=dice.randint(2, 9))
    if dice.random() < 0.15:
        names.append("Redis emptied")
    times = sorted(dice.uniform(0.3, seconds) for _ in names)
    dice.shuffle(names)
    return [
        Harm(at, name, dice.choice([0.2, 0.8, 2.0, 3.5]), dice.random()) for at, name in zip(times, names, strict=True)
    ]
