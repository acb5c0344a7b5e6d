"""Light chaos: several scalers over twins in one process, under virtual time; thousands of runs a minute.

A seed gives the events and the harm. `run(seed)` plays it and returns a `Run`; `judge(run)` raises `Broken` naming
the promise that does not hold. The same seed plays the same run again.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import trio
from trio.testing import MockClock

from ottoscaler.calls.door import Calls
from ottoscaler.events import Limits
from ottoscaler.startup import StartupFailed, StartupStopped
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from tests.chaos.asking import Asked, ask_last, ask_many, broken_promises, repeated_entry, watch_entries
from tests.chaos.pipelines import broken_pipelines, pipeline_entry
from tests.spine.determinism import schedule_from
from tests.spine.scaler import Scaler
from tests.spine.world import Plan, World, ambiguous, lost

HARM_SECONDS = 60.0
"""Harm ends after this time; then all must become well again."""
SETTLE_SECONDS = 900.0


class Broken(AssertionError):
    """A promise does not hold."""


@dataclass
class Run:
    """One run and what came of it."""

    seed: int
    world: World
    server: MemoryServer
    sent: dict[str, dict[str, str]] = field(default_factory=dict)
    harm: list[str] = field(default_factory=list)
    excused: set[str] = field(default_factory=set)
    """Pods that the harm itself took away or made unreachable: their workers may fail."""
    attempts: int = 1
    """WORKER_MAX_ATTEMPTS of this run."""
    evictions: int = 0
    forgotten: set[str] = field(default_factory=set)
    """Events that Redis had when it was emptied: nobody can know what became of them."""
    results: list[dict[str, str]] = field(default_factory=list)
    dead: list[dict[str, str]] = field(default_factory=list)
    left: dict[str, Any] = field(default_factory=dict)
    asked: Asked = field(default_factory=Asked)


class Replica:
    """A scaler that can be killed, drained, frozen and started again, each time as a new session."""

    def __init__(self, run: Run, number: int) -> None:
        self.run = run
        self.number = number
        self.starts = 0
        self.scaler: Scaler | None = None
        self.calls: Calls | None = None
        self.api_fault: Callable[[str, str], Exception | None] = lambda verb, name: None
        self._life: trio.CancelScope | None = None
        self._frozen = trio.Event()
        self._frozen.set()
        self._frozen_until = 0.0

    async def live(self) -> None:
        """Start, and start again whenever it has ended, until cancelled."""
        while True:
            self.starts += 1
            name = f"r{self.number}-{self.starts}"
            self.scaler = Scaler(
                self.run.world,
                self.run.server,
                name,
                drain_seconds="2",
                worker_max_attempts=str(self.run.attempts),
            )
            self.scaler.kube.fail = lambda verb, name: self.api_fault(verb, name)
            self._freeze_calls(self.scaler)
            with trio.CancelScope() as self._life:
                with suppress_ends():
                    async with trio.open_nursery() as nursery:
                        await self.scaler.run(partial(self._open_calls, nursery))
                        nursery.cancel_scope.cancel(reason="drained")
            self.calls = None
            await trio.sleep(0.5)

    def _open_calls(self, nursery: trio.Nursery, scaler: Scaler) -> None:
        self.calls = Calls(scaler.rings._site, Limits())
        nursery.start_soon(self.calls.run)

    def kill(self) -> None:
        """`kill -9`."""
        if self._life is not None:
            self._life.cancel(reason="kill -9")

    def drain(self) -> None:
        """SIGTERM."""
        if self.scaler is not None and hasattr(self.scaler, "drain"):
            self.scaler.drain.request("SIGTERM")

    async def freeze(self, seconds: float) -> None:
        """SIGSTOP and SIGCONT, as far as others can see it: it says nothing for a while."""
        self._frozen_until = max(self._frozen_until, trio.current_time() + seconds)
        if self._frozen.is_set():  # else whoever waits there would never hear of the end
            self._frozen = trio.Event()
        await trio.sleep(seconds)
        if trio.current_time() >= self._frozen_until:
            self._frozen.set()

    def _freeze_calls(self, scaler: Scaler) -> None:
        for target, names in (
            (scaler.stream, ("read", "renew", "register", "tend", "record", "close", "offer", "mark_victims")),
            (scaler.stream, ("request", "look", "read_request", "read_ending", "start_stage", "read_progress")),
            (scaler.kube, ("create_pod", "delete_pod", "delete_finished_pods")),
        ):
            for name in names:
                setattr(target, name, self._gated(getattr(target, name)))

    def _gated(self, method: Callable[..., Any]) -> Callable[..., Any]:
        async def gated(*args: Any, **kwargs: Any) -> Any:
            await self._frozen.wait()
            answer = await method(*args, **kwargs)
            await self._frozen.wait()
            return answer

        return gated


class suppress_ends(suppress):  # noqa: N801 - used as a function
    """Ends in order at the start, which a process would answer with an exit code."""

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if not isinstance(error, BaseExceptionGroup):
            return isinstance(error, StartupStopped | StartupFailed)
        _, rest = error.split((StartupStopped, StartupFailed))
        return rest is None


def run(seed: int) -> Run:
    """Play a seed."""
    dice = random.Random(seed)
    world = World(plan=lambda labels: plan_of(seed, labels))
    made = Run(seed, world, MemoryServer(started_at=1_760_000_000.0), attempts=dice.choice([1, 1, 3]))
    random.seed(seed)
    schedule_from(seed)
    trio.run(_play, made, dice, clock=MockClock(autojump_threshold=0))
    return made


def plan_of(seed: int, labels: Mapping[str, str]) -> Plan:
    """How a worker lives: a function of seed and identity."""
    dice = random.Random(f"{seed} {labels['ottoscaler/event-id']} {labels['ottoscaler/index']}")
    return Plan(
        start_delay=dice.choice([0.05, 0.3, 2.0]),
        duration=dice.choice([0.1, 1.0, 3.0, 20.0]),
        exit_code=dice.choice([0, 0, 0, 1]),
        ignores_term=dice.random() < 0.1,
    )


async def _play(made: Run, dice: random.Random) -> None:
    watch_entries(made.server, made.asked, made.sent)
    async with trio.open_nursery() as nursery:
        await nursery.start(made.world.run)
        replicas = [Replica(made, number) for number in range(dice.randint(1, 3))]
        for replica in replicas:
            nursery.start_soon(replica.live)
        async with trio.open_nursery() as trouble:
            trouble.start_soon(_send, made, random.Random(dice.random()))
            trouble.start_soon(_harm, made, replicas, random.Random(dice.random()))
            trouble.start_soon(ask_many, made.asked, replicas, random.Random(dice.random()))
        await ask_last(made.asked, replicas, dice)
        await _settle(made)
        nursery.cancel_scope.cancel(reason="the run is over")


async def _send(made: Run, dice: random.Random) -> None:
    stream = MemoryStream(made.server, "producer")
    for number in range(dice.randint(2, 8)):
        await trio.sleep(dice.expovariate(0.3))
        fields = _event(dice, sorted(made.sent))
        made.server.weather, weather = "fine", made.server.weather  # a producer waits for its own Redis to answer
        event_id = await stream.add_event(list(fields.items()), f"{made.seed}-{number}")
        made.server.weather = weather
        made.sent[event_id] = fields


def _event(dice: random.Random, before: list[str]) -> dict[str, str]:
    task = dice.choice(["a", "b"])
    match dice.choices(["up", "down", "cancel", "bad", "repeat", "pipeline"], [5, 2, 1, 1, 1, 2])[0]:
        case "pipeline":
            return pipeline_entry(dice)
        case "repeat":
            return repeated_entry(dice)
        case "cancel":
            return {"type": "cancel", "event_id": dice.choice([*before, "1-1"])}
        case "up":
            return {"type": "scale_up", "pod_count": str(dice.randint(1, 12)), "task_id": task}
        case "down":
            return {"type": "scale_down", "pod_count": str(dice.randint(1, 5)), "task_id": task}
        case _:
            return dice.choice([{"type": "explode"}, {"type": "scale_up", "pod_count": "0"}, {"x": "y"}])


async def _harm(made: Run, replicas: list[Replica], dice: random.Random) -> None:
    with trio.move_on_after(HARM_SECONDS):
        async with trio.open_nursery() as nursery:
            for _ in range(dice.randint(0, 8)):
                await trio.sleep(dice.expovariate(0.2))
                replica, seconds = dice.choice(replicas), dice.choice([0.2, 2.0, 5.0, 12.0])
                name, act = dice.choice(HARMS)
                made.harm.append(f"{trio.current_time():.1f} {name} r{replica.number} {seconds}")
                nursery.start_soon(act, made, replica, seconds, dice)
    made.server.weather = "fine"
    for replica in replicas:
        replica.api_fault = lambda verb, name: None
        replica._frozen.set()


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


async def _lost_answer(made: Run, replica: Replica, seconds: float, dice: random.Random) -> None:
    names = ["record", "close", "register", "tend", "offer", "mark_victims", "renew", "request", "look", "start_stage"]
    made.server.lose_answer_of.add(dice.choice(names))


async def _api_away(made: Run, replica: Replica, seconds: float, dice: random.Random) -> None:
    chance = dice.choice([0.3, 1.0])
    of = dice.choice([{"create"}, {"created"}, {"delete", "create"}, {"list", "watch"}])
    error = ambiguous if of == {"created"} else lost
    replica.api_fault = lambda verb, name: error(verb) if verb in of and dice.random() < chance else None
    await trio.sleep(seconds)
    replica.api_fault = lambda verb, name: None


async def _late_create(made: Run, replica: Replica, seconds: float, dice: random.Random) -> None:
    """The next create gets no answer now, and is carried out later."""
    made.world.late_creates.append(seconds)


async def _delete_by_hand(made: Run, replica: Replica, seconds: float, dice: random.Random) -> None:
    if made.world.pods:
        name = dice.choice(sorted(made.world.pods))
        made.excused.add(name)
        made.world.remove(name)


async def _evict(made: Run, replica: Replica, seconds: float, dice: random.Random) -> None:
    if made.world.pods:
        name = dice.choice(sorted(made.world.pods))
        made.excused.add(name)
        made.evictions += 1
        made.world.evict(name)


async def _empty_redis(made: Run, replica: Replica, seconds: float, dice: random.Random) -> None:
    """Redis comes back with nothing: what it had is forgotten, and no running worker may pay for it."""
    if dice.random() < 0.3:
        made.forgotten |= set(made.sent)
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
    ("lost answer", _lost_answer),
    ("API away", _api_away),
    ("late create", _late_create),
    ("pod deleted by hand", _delete_by_hand),
    ("labels stripped", _strip_label),
    ("evicted", _evict),
    ("Redis emptied", _empty_redis),
    ("stream trimmed", _trim),
]


async def _settle(made: Run) -> None:
    """Wait until nothing is left to do, then look at what there is."""
    stream = MemoryStream(made.server, "judge")
    with trio.move_on_after(SETTLE_SECONDS):
        while (  # noqa: ASYNC110 - the clock is virtual, and there is nothing to be told by
            made.sent.keys() - made.forgotten - await _ended(stream) or await stream.live_events() or made.server.fences
        ):
            await trio.sleep(1.0)
    await trio.sleep(100.0)
    made.results = [fields for _, fields in await stream.read_entries("results", "0", 9999, 0.0)]
    made.dead = [fields for _, fields in await stream.read_entries("dlq", "0", 9999, 0.0)]
    made.left = {
        "live": await stream.live_events(),
        "pods": sorted(name for name in made.world.pods if name not in made.excused and not _is_foreign(made, name)),
        "fences": dict(made.server.fences),
        "keys": [
            name for name in made.server.as_keys() if ":progress:" in name or ":held:" in name or ":notices:" in name
        ],
    }


async def _ended(stream: MemoryStream) -> set[str]:
    entries = [*await stream.read_entries("results", "0", 9999, 0.0), *await stream.read_entries("dlq", "0", 9999, 0.0)]
    return {fields["event_id"] for _, fields in entries}


def _is_foreign(made: Run, name: str) -> bool:
    """A pod of an era that Redis has forgotten: reported, never killed."""
    era = made.world.pods[name]["metadata"]["labels"].get("ottoscaler/era")
    return made.server.era is None or era != made.server.era.id


def judge(made: Run) -> None:
    """Raise `Broken` where a promise does not hold."""
    ended = Counter(fields["event_id"] for fields in [*made.results, *made.dead])
    missing = made.sent.keys() - made.forgotten - ended.keys()
    _must(not missing, f"P1 nothing lost: no entry for {sorted(missing)}")
    _must(ended.keys() <= made.sent.keys(), f"P1: entries for what was never sent: {sorted(ended.keys() - made.sent)}")
    _must(max(ended.values(), default=1) == 1, f"P2 nothing twice: several entries for {ended.most_common(3)}")
    runs = Counter(run for run in made.world.runs if _name(*run) not in made.excused)
    most = Counter((event, index) for event, index, _ in runs).most_common(1)
    _must(not most or most[0][1] <= made.attempts + made.evictions, f"P2: more attempts than explained: {most}")
    _must(max(runs.values(), default=1) == 1, f"P2 nothing twice: ran more than once: {runs.most_common(3)}")
    _must(not any(made.left.values()), f"P3 nothing orphaned: {made.left}")
    for fields in made.dead:
        _must(fields["cause"] != "HandlingFailed", f"P5: a healthy event was held to be poison: {fields}")
    for fields in made.results:
        _judge_result(made, fields)
    broken = broken_promises(made.asked, made.results) if not made.forgotten else []
    broken += broken_pipelines(made.sent, made.results, made.dead)
    _must(not broken, f"a request is one event, its answers agree, and pipelines keep their order: {broken}")


def _judge_result(made: Run, fields: dict[str, str]) -> None:
    sent, workers = made.sent[fields["event_id"]], msgspec.json.decode(fields["workers"])
    is_repeated = fields["status"] == "already_processed"
    _must(not is_repeated or made.sent[fields["original"]] == sent, f"{fields} repeats what was another request")
    if "pod_count" in sent:
        _must(fields["requested"] == sent["pod_count"], f"P2: {fields} does not answer {sent}")
    if sent["type"] != "scale_up" or is_repeated:
        return
    _must(sorted(worker["index"] for worker in workers) == list(range(1, int(sent["pod_count"]) + 1)), f"P1: {fields}")
    ran = {(event, index) for event, index, _ in made.world.runs}
    for worker in workers:
        has_run = (fields["event_id"], worker["index"]) in ran
        _must(worker["outcome"] != "succeeded" or has_run, f"a worker succeeded that never ran: {worker}")
        excused = made.forgotten or worker["name"] in made.excused or worker["cause"] in ("ExitCode", "Killed")
        _must(
            worker["outcome"] != "failed" or bool(excused), f"a worker failed that the harm does not explain: {worker}"
        )


def _name(event_id: str, index: int, attempt: int) -> str:
    return f"otto-agent-{index}-{event_id}" + (f"-r{attempt}" if attempt > 1 else "")


def _must(holds: bool, promise: str) -> None:
    if not holds:
        raise Broken(promise)
