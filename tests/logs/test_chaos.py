"""Logs under random harm: a handler that goes, comes, stalls and refuses, streams that break, and scalers that die."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.logs.keeping import MARK_SECONDS, LogKeeper
from ottoscaler.rpc.v1.worker_logs_pb2 import WorkerLogEntry
from ottoscaler.spine.site import Site
from ottoscaler.stream.memory import MemoryServer
from tests.logs.house import FakeHandler, LoggedWorld
from tests.logs.receiver import FakeAnswer, FakeReceiver
from tests.logs.test_away import keeper_of
from tests.spine.scaler import Scaler
from tests.spine.world import Plan

LINES = 40


@dataclass
class Run:
    """What one seed plays with, and what became of it."""

    world: LoggedWorld
    server: MemoryServer
    handler: FakeHandler
    grace: float
    kills: list[float] = field(default_factory=list)
    given_up: dict[str, float] = field(default_factory=dict)
    """When the gap of a worker was left behind."""
    life: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def live(self) -> None:
        """One scaler after the other."""
        number = 0
        while True:
            number += 1
            scaler = Scaler(self.world, self.server, f"s{number}", lease_seconds="2")
            scaler.open_keeper = self._open_keeper
            with trio.CancelScope() as self.life:
                await scaler.run()
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
        receiver = self.handler.receiver
        async with trio.open_nursery() as nursery:
            for _ in range(dice.randint(2, 8)):
                await trio.sleep(dice.expovariate(0.2))
                seconds = dice.choice([0.3, 3.0, 30.0])
                match dice.choice(["kill", "kill", "away", "away", "cut", "stall", "api", "refuse"]):
                    case "kill":
                        self.kills.append(trio.current_time())
                        self.life.cancel(reason="kill -9")
                    case "cut":
                        receiver.cut()
                    case "away":
                        receiver.is_away = True
                        receiver.cut()
                        nursery.start_soon(self._mend, seconds)
                    case "stall":
                        receiver.is_stalled = True
                        nursery.start_soon(self._mend, seconds)
                    case "api":
                        self.world.is_away = True
                        for kubelet in self.world.logs.values():
                            kubelet.cut()
                        nursery.start_soon(self._mend, seconds)
                    case "refuse":
                        chance, of = dice.random(), random.Random(dice.random())
                        receiver.judge = partial(_refuse, chance, of)
                        nursery.start_soon(self._mend, seconds)

    async def _mend(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self.handler.receiver.is_away = self.handler.receiver.is_stalled = self.world.is_away = False
        self.handler.receiver.judge = lambda entry: FakeAnswer()


def _refuse(chance: float, dice: random.Random, entry: bytes) -> FakeAnswer:
    return FakeAnswer("RETRY", dice.choice([0.0, 0.0, 0.5])) if dice.random() < chance else FakeAnswer()


def judge(run: Run) -> None:
    """Every line came or a gap says that it did not; it came again only where its answer could not be known."""
    got: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
    gaps: defaultdict[str, set[str]] = defaultdict(set)
    for at, raw in run.handler.receiver.got:
        entry = WorkerLogEntry.FromString(raw)
        if entry.metadata["gap"]:
            gaps[entry.worker_id].add(entry.metadata["gap"])
        else:
            assert entry.message == f"line {entry.metadata['line']}"
            got[entry.worker_id].append((at, int(entry.metadata["line"])))
    acknowledged = _acknowledged(run)
    assert run.world.logs
    for worker in run.world.logs:
        missing = set(range(1, LINES + 1)) - {number for _, number in got[worker]}
        firsts = list(dict.fromkeys(number for _, number in got[worker]))
        assert firsts == sorted(firsts), f"{worker}: lines came out of order"
        told = gaps[worker] or any(kill >= run.given_up.get(worker, 1e9) for kill in run.kills)
        assert not missing or told, f"{worker}: {sorted(missing)} are missing, and nothing says so"
        assert gaps[worker] <= {"GraceOver"}, f"{worker}: nothing happened that explains {gaps[worker]}"
        assert gaps[worker] == set() or worker in run.given_up
        for at, number in got[worker]:
            known = acknowledged[worker].get(number, 1e9)
            assert at <= known or _was_forgotten(run, acknowledged[worker], number, known, at), (
                f"{worker}: line {number} came again at {at}, acknowledged at {known}, kills at {run.kills}"
            )


def _acknowledged(run: Run) -> defaultdict[str, dict[int, float]]:
    """When the answer to each line arrived first that was no RETRY."""
    found: defaultdict[str, dict[int, float]] = defaultdict(dict)
    for at, raw, status in run.handler.receiver.taken:
        entry = WorkerLogEntry.FromString(raw)
        if status != "RETRY" and entry.metadata["line"]:
            found[entry.worker_id].setdefault(int(entry.metadata["line"]), at)
    return found


def _was_forgotten(run: Run, answers: dict[int, float], number: int, known: float, again: float) -> bool:
    """Whether a scaler died in between before it had written a mark at or behind this line."""
    for kill in run.kills:
        mark = 0
        while answers.get(mark + 1, 1e9) <= kill - MARK_SECONDS - 0.1:
            mark += 1
        if known <= kill <= again and number > mark:
            return True
    return False


async def play(seed: int, folder: Path) -> Run:
    """Play a seed."""
    dice = random.Random(seed)
    random.seed(seed)
    durations = [1.0, 10.0, 30.0]
    world = LoggedWorld(
        folder, lambda labels: Plan(duration=durations[int(labels["ottoscaler/index"]) % 3]), lines=LINES
    )
    server = MemoryServer(started_at=1_760_000_000.0)
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
        world.close()
        nursery.cancel_scope.cancel(reason="the run is over")
    return run


@pytest.mark.parametrize("seed", range(12))
async def test_every_line_comes_or_is_explained(seed: int, tmp_path: Path, autojump_clock: MockClock) -> None:
    """Whatever comes and goes: no line is missing without a gap, none comes again whose answer was kept."""
    judge(await play(seed, tmp_path))
