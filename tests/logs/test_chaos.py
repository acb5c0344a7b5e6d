"""Logs under random harm: a handler that goes, comes, stalls, refuses and drops, streams that break, logs that are
rotated, a Redis that is away, and scalers that die or are asked to leave.
"""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.logs.keeping import MARK_SECONDS, LogKeeper
from ottoscaler.rpc.v1.worker_logs_pb2 import WorkerLogEntry
from ottoscaler.spine.site import Site
from ottoscaler.startup import StartupStopped
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from tests.logs.house import FakeHandler, LoggedWorld
from tests.logs.receiver import FakeAnswer, FakeReceiver
from tests.logs.test_away import keeper_of
from tests.spine.scaler import Scaler
from tests.spine.world import Plan

LINES = 40
HARMS = (
    *("kill", "kill", "drain", "drain", "away", "away", "cut", "leave", "stall", "api", "answer", "redis"),
    *("rotate", "rotate"),
)


@dataclass
class Run:
    """What one seed plays with, and what became of it."""

    world: LoggedWorld
    server: MemoryServer
    handler: FakeHandler
    grace: float
    kills: list[float] = field(default_factory=list)
    drains: list[tuple[float, float]] = field(default_factory=list)
    """From when to when a scaler was leaving."""
    outages: list[tuple[float, float]] = field(default_factory=list)
    """From when to when Redis was away."""
    rotated: set[str] = field(default_factory=set)
    named: set[str] = field(default_factory=set)
    """The workers that results name as those whose logs were given up."""
    scaler: Scaler | None = None
    given_up: dict[str, float] = field(default_factory=dict)
    """When the gap of a worker was left behind."""
    life: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def live(self) -> None:
        """One scaler after the other."""
        number = 0
        while True:
            number += 1
            self.scaler = scaler = Scaler(self.world, self.server, f"s{number}", lease_seconds="2", drain_seconds="5")
            scaler.open_keeper = self._open_keeper
            with trio.CancelScope() as self.life, suppress(StartupStopped):
                await scaler.run()
            if self.drains and self.drains[-1][1] == math.inf:
                self.drains[-1] = (self.drains[-1][0], trio.current_time())
            await trio.sleep(0.5)

    def _open_keeper(self, site: Site) -> LogKeeper:
        keeper = keeper_of(self.world, self.handler, site, self.grace)
        leave, receiver = keeper.receiver.leave_behind, keeper.receiver

        def note(entry: bytes) -> None:
            self.given_up[WorkerLogEntry.FromString(entry).worker_id] = trio.current_time()
            leave(entry)

        receiver.leave_behind = note  # type: ignore[method-assign]  # looked at, not replaced
        return keeper

    async def harm(self, dice: random.Random) -> None:
        """Some harms, one after the other or at the same time."""
        async with trio.open_nursery() as nursery:
            for _ in range(dice.randint(2, 10)):
                await trio.sleep(dice.expovariate(0.2))
                seconds, harm = dice.choice([0.3, 3.0, 30.0]), dice.choice(HARMS)
                nursery.start_soon(getattr(self, f"_{harm}"), seconds, dice)

    async def _kill(self, seconds: float, dice: random.Random) -> None:
        self.kills.append(trio.current_time())
        self.life.cancel(reason="kill -9")

    async def _drain(self, seconds: float, dice: random.Random) -> None:
        drain = getattr(self.scaler, "drain", None)
        if drain is not None and not drain.requested.is_set():
            self.drains.append((trio.current_time(), math.inf))
            drain.request("SIGTERM")

    async def _cut(self, seconds: float, dice: random.Random) -> None:
        self.handler.receiver.cut()

    async def _leave(self, seconds: float, dice: random.Random) -> None:
        self.handler.receiver.leave()

    async def _away(self, seconds: float, dice: random.Random) -> None:
        self.handler.receiver.is_away = True
        self.handler.receiver.cut()
        await self._mend(seconds)

    async def _stall(self, seconds: float, dice: random.Random) -> None:
        self.handler.receiver.is_stalled = True
        await self._mend(seconds)

    async def _api(self, seconds: float, dice: random.Random) -> None:
        self.world.is_away = True
        for kubelet in self.world.logs.values():
            kubelet.cut()
        await self._mend(seconds)

    async def _rotate(self, seconds: float, dice: random.Random) -> None:
        # a file put away in the first two seconds of a log is the window that docs/logs.md names
        logs, now = self.world.logs.items(), trio.current_time()
        if running := [name for name, one in logs if not one.log.closed and now - one.began > 3]:
            name = dice.choice(running)
            self.rotated.add(name)
            self.world.logs[name].log.rotate()

    async def _answer(self, seconds: float, dice: random.Random) -> None:
        judge, chance = dice.choice([_refuse, _drop]), dice.random()
        self.handler.receiver.judge = partial(judge, chance, random.Random(dice.random()))
        await self._mend(seconds)

    async def _redis(self, seconds: float, dice: random.Random) -> None:
        if self.server.weather == "fine":
            self.server.weather = dice.choice(["refusing", "silent"])
            await self._mend_redis(seconds)

    async def _mend_redis(self, seconds: float) -> None:
        begun = trio.current_time()
        await trio.sleep(seconds)
        self.server.weather = "fine"
        self.outages.append((begun, trio.current_time()))

    async def _mend(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self.handler.receiver.is_away = self.handler.receiver.is_stalled = self.world.is_away = False
        self.handler.receiver.judge = lambda entry: FakeAnswer()


def _refuse(chance: float, dice: random.Random, entry: bytes) -> FakeAnswer:
    return FakeAnswer("RETRY", dice.choice([0.0, 0.0, 0.5])) if dice.random() < chance else FakeAnswer()


def _drop(chance: float, dice: random.Random, entry: bytes) -> FakeAnswer:
    return FakeAnswer("DROP" if dice.random() < chance else "ACK")


def judge(run: Run) -> None:
    """Every line came or a gap says that it did not; it came again only where its answer could not be known."""
    got: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
    gaps: defaultdict[str, set[str]] = defaultdict(set)
    for at, raw in run.handler.receiver.got:
        entry = WorkerLogEntry.FromString(raw)
        if entry.metadata["gap"]:
            gaps[entry.worker_id].add(entry.metadata["gap"])
        else:
            assert entry.worker_id in run.rotated or entry.message == f"line {entry.metadata['line']}"
            got[entry.worker_id].append((at, _number(entry)))
    acknowledged = _acknowledged(run)
    assert run.world.logs
    for worker in run.world.logs:
        missing = set(range(1, LINES + 1)) - {number for _, number in got[worker]}
        firsts = list(dict.fromkeys(number for _, number in got[worker]))
        assert firsts == sorted(firsts), f"{worker}: lines came out of order"
        told = gaps[worker] or worker in run.named
        assert not missing or told, f"{worker}: {sorted(missing)} are missing, and nothing says so"
        explained = {"GraceOver"} | ({"LogRotated", "OpenedLate"} if worker in run.rotated else set())
        if worker in run.given_up and run.outages:  # given up, and its pod gone, before Redis knew that
            explained |= {"PodGone", "EndNotRead"}
        assert gaps[worker] <= explained, f"{worker}: nothing happened that explains {gaps[worker]}"
        assert "GraceOver" not in gaps[worker] or worker in run.given_up
        for at, number in got[worker]:
            known = acknowledged[worker].get(number, 1e9)
            assert at <= known or _was_forgotten(run, acknowledged[worker], number, known, at), (
                f"{worker}: line {number} came again at {at}, acknowledged at {known}, {run.kills} {run.drains} "
                f"{run.outages}"
            )


def _number(entry: WorkerLogEntry) -> int:
    """The line's number as the worker counts."""
    return int(entry.message.removeprefix("line "))


def _acknowledged(run: Run) -> defaultdict[str, dict[int, float]]:
    """When the answer to each line arrived first that was no RETRY."""
    found: defaultdict[str, dict[int, float]] = defaultdict(dict)
    for at, raw, status in run.handler.receiver.taken:
        entry = WorkerLogEntry.FromString(raw)
        if status != "RETRY" and not entry.metadata["gap"]:
            found[entry.worker_id].setdefault(_number(entry), at)
    return found


def _was_forgotten(run: Run, answers: dict[int, float], number: int, known: float, again: float) -> bool:
    """Whether a scaler ended in between before it had written a mark at or behind this line."""
    if any(begun - MARK_SECONDS - 0.1 <= known <= end <= again for begun, end in run.drains):
        return True  # what is answered when the marks were handed over already
    for kill in (*run.kills, *(end for _, end in run.drains)):
        mark = 0
        while _written_at(run, answers.get(mark + 1, 1e9)) <= kill:
            mark += 1
        if known <= kill <= again and number > mark:
            return True
    return False


def _written_at(run: Run, known: float) -> float:
    """When the mark at a line is in Redis at the latest that was answered at `known`."""
    written = known + MARK_SECONDS + 0.1
    for begun, end in sorted(run.outages):
        if begun <= written <= end + 2:
            written = end + 2
    return written


async def play(seed: int, folder: Path) -> Run:
    """Play a seed."""
    dice = random.Random(seed)
    random.seed(seed)
    durations = [1.0, 10.0, 30.0]
    world = LoggedWorld(
        folder, lambda labels: Plan(duration=durations[int(labels["ottoscaler/index"]) % 3]), lines=LINES
    )
    server = MemoryServer(started_at=1_760_000_000.0)
    world.clock = lambda: server.now() / 1000
    run = Run(world, server, FakeHandler(FakeReceiver(), []), dice.choice([10.0, 600.0]))
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        nursery.start_soon(run.live)
        nursery.start_soon(run.harm, random.Random(dice.random()))
        sent = dice.randint(2, 5)
        for _ in range(sent):
            await trio.sleep(dice.expovariate(0.3))
            server.add_entry([("type", "scale_up"), ("pod_count", str(dice.randint(1, 4)))])
        with trio.fail_after(2000):
            while len(server.results) < sent or server.progress:  # noqa: ASYNC110 - the twin of Redis tells nobody
                await trio.sleep(1)
        await trio.sleep(100)
        for _, fields in await MemoryStream(server, "judge").read_entries("results", "0", 99, 0.0):
            run.named |= {gap["worker"] for gap in json.loads(fields.get("log_gaps", "[]"))}
        world.close()
        nursery.cancel_scope.cancel(reason="the run is over")
    return run


@pytest.mark.parametrize("seed", range(12))
async def test_every_line_comes_or_is_explained(seed: int, tmp_path: Path, autojump_clock: MockClock) -> None:
    """Whatever comes and goes: no line is missing without a gap, none comes again whose answer was kept."""
    judge(await play(seed, tmp_path))
