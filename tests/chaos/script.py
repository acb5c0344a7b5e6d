"""What a heavy seed says: replicas and their settings, the events with the plans of their workers, the list of harm.

Pure: the same seed gives the same script. What the harm meets still depends on how fast real processes are.
"""

from __future__ import annotations

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


class Send(NamedTuple):
    """An entry to add: when (s after the start), its fields, and for a cancel which of the events before is meant
    (0 to 1).
    """

    at: float
    fields: dict[str, str]
    target: float = 0.0


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


def write_script(seed: int, *, seconds: float = 6.0) -> Script:
    """The script of a seed; harm and events come within `seconds`."""
    dice = random.Random(seed)
    return Script(
        seed,
        dice.choices([1, 2, 3, 4], [2, 4, 2, 1])[0],
        _settings(dice),
        tuple(_sends(dice, seconds)),
        tuple(_harms(dice, seconds)),
    )


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
    """The metadata `plan` says of each worker in turn how long it works and with which code it ends."""
    plans = [
        f"{dice.choice([0.05, 0.3, 1.0, 3.0])}:{dice.choice([0, 0, 0, 7])}:{dice.choice(['', '', '', 'deaf'])}"
        for _ in range(dice.randint(1, 6))
    ]
    fields = {"type": "scale_up", "pod_count": str(len(plans)), "plan": " ".join(plans)}
    return fields | ({"task_id": task} if (task := dice.choice(["a", "b", ""])) else {})


def _harms(dice: random.Random, seconds: float) -> list[Harm]:
    names = dice.choices(list(HARMS), list(HARMS.values()), k=dice.randint(2, 9))
    if dice.random() < 0.15:
        names.append("Redis emptied")
    times = sorted(dice.uniform(0.3, seconds) for _ in names)
    dice.shuffle(names)
    return [
        Harm(at, name, dice.choice([0.2, 0.8, 2.0, 3.5]), dice.random()) for at, name in zip(times, names, strict=True)
    ]
