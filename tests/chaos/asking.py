"""Calls in light chaos: clients that ask under request ids, are cut off, and ask again, of whichever replica.

What they are promised: each request id is one event, whatever happened in between, and all who ask are told the same
names.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import trio

from ottoscaler.calls.door import Calls
from ottoscaler.errors import TryAgain
from ottoscaler.rpc.door import ScaleAnswer, ScaleDownCall, ScaleUpCall
from ottoscaler.stream.memory import MemoryServer

PATIENCE_SECONDS = 800.0
"""Of the last asking, when all harm is over."""
Call = ScaleUpCall | ScaleDownCall


@dataclass
class Asked:
    """All that was asked for under request ids, and what came of it."""

    calls: dict[str, Call] = field(default_factory=dict)
    events: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    answers: defaultdict[str, list[ScaleAnswer]] = field(default_factory=lambda: defaultdict(list))


class Answering(Protocol):
    """A replica, with the calls of its present life."""

    calls: Calls | None


def watch_entries(server: MemoryServer, asked: Asked, sent: dict[str, dict[str, str]]) -> None:
    """Note every entry with a request id, every stage of a pipeline, and every replay, whoever adds it."""
    add = server.add_entry

    def noted(pairs: Sequence[tuple[str | bytes, str | bytes]]) -> str:
        event_id = add(pairs)
        fields = {_text(name): _text(value) for name, value in pairs}
        if "otto.parent" in fields or "otto.replay_of" in fields:
            sent[event_id] = fields
        if request_id := fields.get("otto.request_id"):
            sent[event_id] = fields
            asked.events[request_id].append(event_id)
        return event_id

    server.add_entry = noted  # type: ignore[method-assign,assignment]  # the one way in for calls and producers


async def ask_many(asked: Asked, replicas: Sequence[Answering], dice: random.Random) -> None:
    """A few clients, each with a request of its own, that ask until they are content."""
    async with trio.open_nursery() as nursery:
        for number in range(dice.randint(0, 4)):
            await trio.sleep(dice.expovariate(0.4))
            asked.calls[f"r{number}"] = call = _call(f"r{number}", dice)
            for _ in range(dice.randint(1, 2)):
                nursery.start_soon(_ask_again, asked, call, replicas, random.Random(dice.random()))


def _call(request_id: str, dice: random.Random) -> Call:
    waits, task = dice.random() < 0.3, dice.choice(["a", "b"])
    if dice.random() < 0.3:
        return ScaleDownCall(target=dice.randint(0, 3), task_id=task, request_id=request_id)
    return ScaleUpCall(worker_count=dice.randint(1, 6), task_id=task, request_id=request_id, wait_completed=waits)


async def _ask_again(asked: Asked, call: Call, replicas: Sequence[Answering], dice: random.Random) -> None:
    for _ in range(dice.randint(1, 4)):
        with trio.move_on_after(dice.choice([0.05, 0.3, 2.0, 20.0])):
            await ask(asked, call, dice.choice(replicas))
        await trio.sleep(dice.choice([0.0, 0.2, 3.0]))


async def ask(asked: Asked, call: Call, replica: Answering) -> bool:
    """Ask once; whether there was an answer."""
    calls = replica.calls
    if calls is None:
        return False
    with suppress(TryAgain):
        answer = await (calls.scale_up(call) if isinstance(call, ScaleUpCall) else calls.scale_down(call))
        asked.answers[call.request_id].append(answer)
        return True
    return False


async def ask_last(asked: Asked, replicas: Sequence[Answering], dice: random.Random) -> None:
    """When all is well again each request is asked once more, until it is answered."""
    with trio.move_on_after(PATIENCE_SECONDS):
        for call in asked.calls.values():
            has_answer = False
            while not has_answer:
                await trio.sleep(0.5)
                with trio.move_on_after(60):
                    has_answer = await ask(asked, call, dice.choice(replicas))


def repeated_entry(dice: random.Random) -> dict[str, str]:
    """What a producer adds that repeats itself, and now and then asks for something else under the same id."""
    known = {"type": "scale_up", "pod_count": "2", "task_id": "a", "otto.request_id": "a producer's"}
    return known if dice.random() < 0.8 else known | {"pod_count": "3"}


def broken_promises(asked: Asked, entries: Sequence[dict[str, str]]) -> list[str]:
    """What does not hold of requests, given all results."""
    results, broken = {fields["event_id"]: fields for fields in entries}, []
    for request_id, call in asked.calls.items():
        repeats = {id_ for id_ in asked.events[request_id] if "original" in results.get(id_, {})}
        first = [id_ for id_ in asked.events[request_id] if id_ not in repeats]
        if len(first) != 1:
            broken.append(f"request {request_id} is {len(first)} events: {first}")
        broken += [f"{id_} does not name {first}" for id_ in repeats if [results[id_]["original"]] != first]
        answers = asked.answers[request_id]
        if not answers:
            broken.append(f"request {request_id} was never answered: {call}")
        if len({answer.worker_pod_names for answer in answers}) > 1:
            broken.append(f"request {request_id} was answered with different names: {answers}")
        firsts = [answer for answer in answers if answer.status != "already_processed"]
        if len(firsts) > 1:
            broken.append(f"request {request_id} was new several times: {firsts}")
    return broken


def _text(part: str | bytes) -> str:
    return part if isinstance(part, str) else part.decode()
