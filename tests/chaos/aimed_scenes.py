"""The scenes of aimed chaos: each one small piece of work, and the settings of the replicas that do it."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from ottoscaler.errors import Unavailable
from ottoscaler.rpc.door import ScaleUpCall
from ottoscaler.stream.memory import MemoryStream
from tests.chaos.asking import ask
from tests.chaos.light import send
from tests.chaos.light_stage import Replica, Run
from tests.chaos.pipelines import pipeline_entry

UP = {"type": "scale_up", "pod_count": "1", "task_id": "a"}
TWO = UP | {"pod_count": "2"}
THREE = UP | {"pod_count": "3"}
DOWN = {"type": "scale_down", "pod_count": "1", "task_id": "a"}
REMAIN = {"type": "scale_down", "otto.remain": "1", "task_id": "a"}
POISON = UP | {"task_id": "poison"}
"""The handling of its event breaks, until it is cured."""
RETRY = {"max_attempts": 3, "retry_delay_seconds": 1}
Work = Callable[[Run, Sequence[Replica], random.Random], Awaitable[None]]


@dataclass(frozen=True)
class Scene:
    """A piece of work. `settings`: of every replica; `attempts`: WORKER_MAX_ATTEMPTS, 0 = by chance; `stops`: whether
    workers of it may be stopped.
    """

    work: Work
    settings: Mapping[str, str] = field(default_factory=dict)
    attempts: int = 0
    stops: bool = False


async def _send(made: Run, fields: Mapping[str, str], token: str) -> None:
    """Add it, however often that takes. Redis may be emptied between the adding and the answer."""
    stream, log, is_sent = MemoryStream(made.server, "producer"), made.server.events, False
    while not is_sent:
        with suppress(Unavailable):
            await send(made, stream, dict(fields), token)
            is_sent = True
    if made.server.events is not log:
        made.forgotten |= set(made.sent)


def _sends(*entries: Mapping[str, str], pauses: Sequence[float] = (0.0, 0.2, 0.6)) -> Work:
    """One after the other; an empty `event_id` means the first event."""

    async def work(made: Run, replicas: Sequence[Replica], dice: random.Random) -> None:
        for number, fields in enumerate(entries):
            if number:
                await trio.sleep(dice.choice(pauses))
            target = {"event_id": min(made.sent)} if "event_id" in fields else {}
            await _send(made, {**fields, **target}, str(number))

    return work


CANCEL = {"type": "cancel", "event_id": ""}
LATE = (0.0, 0.6, 2.5, 4.0)
"""While attempts wait for their time, too."""


async def _pipeline(made: Run, replicas: Sequence[Replica], dice: random.Random) -> None:
    await _send(made, pipeline_entry(dice), "1")


async def _pipeline_again(made: Run, replicas: Sequence[Replica], dice: random.Random) -> None:
    stages = [
        {"stage_id": "a", "worker_count": 2, "retry_policy": RETRY},
        {"stage_id": "b", "worker_count": 1, "depends_on": ["a"], "retry_policy": RETRY},
    ]
    text = json.dumps({"pipeline_id": f"{dice.getrandbits(40):x}", "stages": stages})
    await _send(made, {"type": "pipeline", "otto.pipeline": text}, "1")
    if dice.random() < 0.3:
        await trio.sleep(dice.choice(LATE))
        await _send(made, {"type": "cancel", "event_id": min(made.sent)}, "2")


async def _request(made: Run, replicas: Sequence[Replica], dice: random.Random) -> None:
    made.asked.calls["r0"] = call = ScaleUpCall(worker_count=1, task_id="a", request_id="r0")
    async with trio.open_nursery() as nursery:
        for replica in replicas[:2]:
            nursery.start_soon(_ask, made, call, replica, dice.choice([0.05, 2.0]))


async def _ask(made: Run, call: ScaleUpCall, replica: Replica, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await ask(made.asked, call, replica)


async def _replay(made: Run, replicas: Sequence[Replica], dice: random.Random) -> None:
    """A poison event becomes a dead letter, is cured, and is replayed by two at once."""
    await _sends(POISON, UP)(made, replicas, dice)
    stream = MemoryStream(made.server, "somebody")
    letters: list[str] = []
    with trio.move_on_after(30.0):
        while not letters:
            await trio.sleep(0.2)
            with suppress(Unavailable):
                letters = [id_ for id_, _ in await stream.read_entries("dlq", "0", 99, 0.0)]
    made.is_cured = True
    async with trio.open_nursery() as nursery:
        for letter in letters * 2:
            nursery.start_soon(_replay_one, made, letter)


async def _replay_one(made: Run, letter: str) -> None:
    stream = MemoryStream(made.server, "somebody")
    while True:
        with suppress(Unavailable):
            made.replays += await stream.replay_dead_letters([letter])
            return
        await trio.sleep(0.3)


RETRIES = {"platform_retry_started": "true"}
SCENES: dict[str, Scene] = {
    "one": Scene(_sends(UP)),
    "two": Scene(_sends(TWO)),
    "down": Scene(_sends(TWO, DOWN), stops=True),
    "cancel": Scene(_sends(TWO, CANCEL), stops=True),
    "cancel of retries": Scene(_sends(TWO, CANCEL, pauses=LATE), attempts=3, stops=True),
    "down of retries": Scene(_sends(TWO, DOWN, pauses=LATE), attempts=3, stops=True),
    "remain": Scene(_sends(UP, TWO, REMAIN, REMAIN), stops=True),
    "cancel twice": Scene(_sends(TWO, CANCEL, DOWN, CANCEL), stops=True),
    "pipeline": Scene(_pipeline),
    "pipeline again": Scene(_pipeline_again, attempts=3, stops=True),
    "request": Scene(_request),
    "poison": Scene(_sends(UP, POISON, TWO)),
    "replay": Scene(_replay),
    "slots": Scene(_sends(THREE, DOWN, UP), {"max_workers": "1"}, stops=True),
    "slots of all": Scene(_sends(THREE, UP), {"max_workers_total": "2"}),
    "no drain": Scene(_sends(TWO), {"drain_seconds": "0"}),
    "again by the platform": Scene(_sends(TWO), RETRIES),
    "again, and stopped": Scene(_sends(TWO, DOWN, pauses=LATE), RETRIES, attempts=3, stops=True),
}
