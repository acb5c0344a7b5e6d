"""Lossless logs, proven on real processes: numbered lines of many workers while everything is killed, cut and rotated.

The judge reads what the handler wrote: of each worker every line, those that came twice only around a harm, and of a
log that was rotated no line missing without a gap that covers it. Workers whose logs nobody rotated have no gap.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import trio

from ottoscaler.cli.playground import find_free_port, without_settings
from tests.process.bench import Cluster, start_cluster, wait_until
from tests.stream.servers import DIE_WITH_PARENT, Server, valkey_nine

NUMBER = re.compile(r"line (\d+)")
FLIGHT_SECONDS = 6.0
"""A line that comes again was under way, or its mark was not written yet, when the harm came: that long before it."""


@dataclass
class Plan:
    """What happens. `bursts` of `burst` lines each per worker, `pause` seconds apart; harms come in this many."""

    seed: int
    workers: int = 8
    bursts: int = 15
    burst: int = 25
    pause: float = 0.2
    scaler_kills: int = 1
    scaler_drains: int = 0
    handler_kills: int = 1
    cuts: int = 2
    rotations: int = 2
    seconds: float = 150.0

    @property
    def lines(self) -> int:
        """Of one worker; the last has no newline."""
        return self.bursts * self.burst + 1

    @property
    def script(self) -> str:
        """What a worker runs."""
        burst = f'seq -f "line %.0f" $((b*{self.burst}+1)) $((b*{self.burst}+{self.burst}))'
        loop = f"b=0; while [ $b -lt {self.bursts} ]; do {burst}; b=$((b+1)); sleep {self.pause}; done"
        return f'{loop}; printf "line {self.lines}"'


@dataclass
class Verdict:
    """What came of it."""

    received: int = 0
    repeated: int = 0
    missing: int = 0
    gaps: int = 0
    skipped: int = 0
    seconds: float = 0.0
    complaints: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        facts = f"{self.received} lines in {self.seconds:.1f} s ({self.received / self.seconds:.0f}/s)"
        rest = f"{self.repeated} repeated, {self.gaps} gaps, {self.missing} missing inside them, {self.skipped} skipped"
        return f"{facts}, {rest} by rotations, {len(self.complaints)} complaints"


class Row(msgspec.Struct, array_like=True):
    """One line of the handler's file."""

    at: float
    worker: str
    number: str
    stamp: str
    message: str
    facts: dict[str, str]


class Stage:
    """The running parts."""

    def __init__(self, plan: Plan, folder: Path, valkey: Server, cluster: Cluster) -> None:
        self.plan = plan
        self.taken = folder / "taken"
        self.harms: list[float] = []
        self.rotated: set[str] = set()
        self._folder = folder
        self._valkey = valkey
        self._cluster = cluster
        self._port = find_free_port()
        self._logs = 0
        self.scaler: subprocess.Popen[bytes]
        self.handler: subprocess.Popen[bytes]
        self._environ = {
            **without_settings(os.environ),
            "REDIS_URL": f"unix://{valkey.path}",
            "KUBECONFIG": str(cluster.kubeconfig),
            "NAMESPACE": "default",
            "WORKER_COMMAND": '["sh", "-c"]',
            "WORKER_ARGS": json.dumps([plan.script]),
            "LEASE_SECONDS": "0.6",
            "LOG_GRACE_SECONDS": "3600",
            "DRAIN_SECONDS": "0.3",
            "GRPC_ENABLED": "false",
            "HTTP_PORT": "0",
            "LOG_FORMAT": "json",
            "OTTO_HANDLER_HOST": f"127.0.0.1:{self._port}",
        }

    def start_scaler(self) -> None:
        """A `serve`."""
        self._logs += 1
        with (self._folder / f"serve-{self._logs}.log").open("wb") as log:
            command = [*DIE_WITH_PARENT, sys.executable, "-m", "ottoscaler", "serve"]
            self.scaler = subprocess.Popen(command, env=self._environ, stdout=log, stderr=log)

    def start_handler(self) -> None:
        """A handler on its port."""
        command = [*DIE_WITH_PARENT, sys.executable, "-m", "tests.logs.taking", str(self._port), str(self.taken)]
        self.handler = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def end(self) -> None:
        """End both."""
        for process in (self.scaler, self.handler):
            process.kill()
            process.wait()

    def send(self) -> None:
        """The one event."""
        words = ("type", "scale_up", "pod_count", self.plan.workers)
        self._valkey.command("XADD", "otto:scale:events", "*", *words)

    def is_over(self) -> bool:
        """Whether the event has its result."""
        return bool(self._valkey.command("XLEN", "otto:scale:results"))

    async def kill_scaler(self) -> None:
        """`kill -9`, and another one."""
        self.harms.append(time.time())
        self.scaler.kill()
        self.scaler.wait()
        self.start_scaler()

    async def drain_scaler(self) -> None:
        """SIGTERM, and another one when it has ended."""
        self.harms.append(time.time())
        self.scaler.terminate()
        await wait_until(lambda: self.scaler.poll() is not None, 40)
        self.harms.append(time.time())
        self.start_scaler()

    async def kill_handler(self) -> None:
        """The same of the handler, which is away for a moment."""
        self.harms.append(time.time())
        self.handler.kill()
        self.handler.wait()
        await trio.sleep(0.3)
        self.start_handler()

    async def cut(self) -> None:
        """All followed logs end, and for half a second none can be opened."""
        await self._cluster.fault(kind="reset_before", verb="get", path="/log$", lasts=0.5)
        number = await self._cluster.fault(kind="watch_cut", path="/log$")
        await self._cluster.mend(number)

    async def rotate(self, name: str) -> None:
        """A new file for the log of a worker."""
        body = {"namespace": "default", "name": name}
        answer = await self._cluster.client.post("/faults/harm/rotate-log", json=body)
        if answer.status_code == 200:
            self.rotated.add(name)

    async def rotate_one(self) -> None:
        """Of one of the first workers; the logs of the others are never rotated."""
        names = sorted(pod["metadata"]["name"] for pod in await self._cluster.pods("default"))
        for name in names[:1]:
            await self.rotate(name)

    async def skipped(self) -> int:
        """How many lines the cluster says that followers did not get."""
        answer = await self._cluster.client.post("/faults/harm/skipped-lines", json={})
        return int(answer.json()["skipped"])


async def prove(plan: Plan, folder: Path, say: Callable[[str], None] = lambda words: None) -> Verdict:
    """Run it and judge."""
    async with _open_stage(plan, folder) as stage:
        begun = time.monotonic()
        stage.send()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_harm, stage, say)
            await wait_until(stage.is_over, plan.seconds)
            nursery.cancel_scope.cancel(reason="the event has ended")
        verdict = judge(plan, stage.taken, stage.harms, stage.rotated)
        verdict.seconds = time.monotonic() - begun
        verdict.skipped = await stage.skipped()
        return verdict


@asynccontextmanager
async def _open_stage(plan: Plan, folder: Path) -> AsyncIterator[Stage]:
    binary = valkey_nine()
    assert binary is not None
    valkey = Server(binary, folder)
    try:
        async with trio.open_nursery() as nursery:
            async with start_cluster(nursery, folder) as cluster:
                stage = Stage(plan, folder, valkey, cluster)
                stage.start_handler()
                stage.start_scaler()
                try:
                    yield stage
                finally:
                    stage.end()
            nursery.cancel_scope.cancel(reason="the proof is over")
    finally:
        valkey.kill()


async def _harm(stage: Stage, say: Callable[[str], None]) -> None:
    """Each harm at a time of the seed's choice while workers write."""
    plan = stage.plan
    dice = random.Random(plan.seed)
    kinds: dict[Callable[[], Awaitable[Any]], int] = {
        stage.kill_scaler: plan.scaler_kills,
        stage.drain_scaler: plan.scaler_drains,
        stage.kill_handler: plan.handler_kills,
        stage.cut: plan.cuts,
        stage.rotate_one: plan.rotations,
    }
    life = plan.bursts * plan.pause
    times = [(dice.uniform(0.2, 0.9) * life, at, kind) for kind, many in kinds.items() for at in range(many)]
    await wait_until(lambda: stage.taken.exists() and stage.taken.stat().st_size > 0, 60)
    begun = trio.current_time()
    for at, _, kind in sorted(times, key=lambda one: one[0]):
        await trio.sleep_until(begun + at)
        say(f"{at:5.1f} s  {kind.__name__}")
        await kind()


def judge(plan: Plan, taken: Path, harms: list[float], rotated: set[str]) -> Verdict:
    """Read what the handler wrote."""
    decoder = msgspec.json.Decoder(Row)
    by_worker: defaultdict[str, list[Row]] = defaultdict(list)
    with taken.open("rb") as lines:
        for line in lines:
            if (row := decoder.decode(line)).number != "state":
                by_worker[row.worker].append(row)
    verdict = Verdict()
    if len(by_worker) != plan.workers:
        verdict.complaints.append(f"lines of {len(by_worker)} workers, expected {plan.workers}")
    for worker, rows in by_worker.items():
        _judge_worker(plan, worker, rows, harms, worker in rotated, verdict)
    return verdict


def _judge_worker(
    plan: Plan, worker: str, rows: list[Row], harms: list[float], is_rotated: bool, verdict: Verdict
) -> None:
    first: dict[int, Row] = {}
    gaps = [row for row in rows if "gap" in row.facts]
    for row in rows:
        if (found := NUMBER.fullmatch(row.message)) is None:
            continue
        number = int(found[1])
        if number not in first:
            first[number] = row
            continue
        verdict.repeated += 1
        if not any(
            first[number].at - 0.1 <= harm <= row.at and harm - first[number].at < FLIGHT_SECONDS for harm in harms
        ):
            verdict.complaints.append(f"{worker}: line {number} came twice without a reason")
    verdict.received += len(first)
    verdict.gaps += len(gaps)
    if gaps and not is_rotated:
        verdict.complaints.append(f"{worker}: a gap in a log that was not rotated: {gaps[0].facts}")
    for number in range(1, plan.lines + 1):
        if number not in first:
            verdict.missing += 1
            if not is_covered(number, first, gaps):
                verdict.complaints.append(f"{worker}: line {number} is missing, and no gap says so")
    if list(first) != sorted(first):
        verdict.complaints.append(f"{worker}: lines out of order")


def is_covered(number: int, first: dict[int, Row], gaps: list[Row]) -> bool:
    """Whether a gap tells of a line that did not come; `first` holds those that did, by number."""
    before = max((other for other in first if other < number), default=0)
    after = min((other for other in first if other > number), default=0)
    begin = first[before].stamp if before else ""
    end = first[after].stamp if after else "9"
    return any(gap.facts["from"] <= (end or "9") and (gap.facts["to"] or "9") >= begin for gap in gaps)
