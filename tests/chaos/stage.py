"""Where heavy chaos plays: the replicas as processes, their settings and templates, and the `Run` that is written.

Workers write their identity into one file, the journal, when they start and when they end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
import yaml

from ottoscaler.cli.playground import find_free_port, without_settings
from tests.chaos.lines import PRINTING, start_handler
from tests.chaos.script import Script
from tests.process.bench import Cluster, wait_until
from tests.stream.servers import DIE_WITH_PARENT, Server

LEASE = 1.0
DRAIN = 2.0
FENCE = 4.0
"""Seconds; a late create comes at most 2 s after its client has left."""
START_DELAY = 0.2
"""Seconds that the node takes to start a container; a real one 0.7. A late create is deleted before."""
NOISE = 10.0
"""Seconds by which a machine with several runs at once may be late."""
IMPORTING = 10.0
"""Seconds that an interpreter may take there to load what it needs; it hears of a signal, and acts on it then."""
BOUND = 90.0
"""Seconds within which all is well once the harm has ended, twice what a quiet machine needs. What takes longest: an
orphan is seen twice by a sweep that comes every 12 s at most, and deleted a little later; a create without an answer is
given up after 15 s, its fence is over 4 s later and worked off within 10 s.
"""
PREFIX = "otto:chaos"
NAMESPACE = "chaos"

Identity = tuple[str, int]  # event and index


@dataclass
class Run:
    """One run and what came of it. Times are Unix seconds."""

    script: Script
    folder: Path
    sent: dict[str, dict[str, str]] = field(default_factory=dict)
    sent_at: dict[str, float] = field(default_factory=dict)
    exempt: set[str] = field(default_factory=set)
    """Events that the harm took out of Redis: they may have no entry."""
    harmed: Counter[Identity] = field(default_factory=Counter)
    """How often the harm touched a pod of a worker."""
    unseen: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    """Pods that the harm may have taken away before any replica had written down that they were there: nobody can know
    of those, so the attempt may run again.
    """
    stripped: set[str] = field(default_factory=set)
    eras: list[str] = field(default_factory=list)
    """Eras that an emptied Redis ended."""
    harm: Counter[str] = field(default_factory=Counter)
    harm_ended: float = 0.0
    late_until: float = 0.0
    results: list[tuple[float, dict[str, str]]] = field(default_factory=list)
    dead: list[tuple[float, dict[str, str]]] = field(default_factory=list)
    journal: list[tuple[float, str, str, int, int]] = field(default_factory=list)
    """What the workers wrote: time, start or end, event, index, attempt."""
    answers: defaultdict[str, list[tuple[int, tuple[str, ...]]]] = field(default_factory=lambda: defaultdict(list))
    """What clients were told, by request id: status and names."""
    exits: list[str] = field(default_factory=list)
    """Ends of processes that are not as promised."""
    left: dict[str, Any] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    """Log lines that tell of a bug."""
    longest_wait: float = 0.0
    seconds: float = 0.0


class Life:
    """One `serve` process from its start to its end."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.name = name
        self.port = find_free_port() if stage.has_doors else 0
        self.asked_at = 0.0
        self.is_killed = False
        self.is_asked_early = False
        self.lock = trio.Lock()
        self._stage = stage
        self._log = stage.run.folder / f"{name}.log"
        with self._log.open("wb") as log:
            command = [*DIE_WITH_PARENT, sys.executable, "-m", "ottoscaler", "serve"]
            with _blocked_signals():
                self.process = subprocess.Popen(
                    command,
                    env=stage.environ | {"REDIS_CONSUMER": name} | ({"GRPC_PORT": str(self.port)} if self.port else {}),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )

    @property
    def is_over(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None

    def is_ready(self) -> bool:
        """Whether it has said so."""
        return '"ready"' in self._log.read_text(errors="replace")

    def kill(self) -> None:
        """`kill -9`."""
        self.is_killed = True
        self.process.kill()

    async def terminate(self) -> None:
        """SIGTERM, in whatever state it is."""
        async with self.lock:  # a frozen process hears no signal
            if not self.is_over and not self.asked_at:
                self.asked_at, self.is_asked_early = time.monotonic(), not self._log.stat().st_size
                self.process.terminate()

    async def see_through(self) -> None:
        """Wait for the end, and note one that is not as promised."""
        while not self.is_over:
            await trio.sleep(0.02)
            if self.asked_at and time.monotonic() - self.asked_at > DRAIN + 40:
                self._stage.run.exits.append(f"{self.name} does not end after SIGTERM")
                self.process.kill()
        took, code = time.monotonic() - self.asked_at, self.process.returncode
        if self.is_killed:
            return
        if code != 0 or not self.asked_at:
            why = f"SIGTERM {took:.1f} s before" if self.asked_at else "no signal"
            self._stage.run.exits.append(f"{self.name} ended with exit code {code}, {why}")
        elif took > DRAIN + 1 + NOISE + (IMPORTING if self.is_asked_early else 0.0):
            self._stage.run.exits.append(f"{self.name} took {took:.1f} s to end after SIGTERM")


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """What is started in the block inherits it; `serve` unblocks when its handler stands, so no SIGTERM is too early.

    Not by `preexec_fn`: code that runs between fork and exec hangs where another thread held a lock at the fork.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Stage:
    """The running parts of one run. `redis` is held while Redis is away, for nothing could be asked of it then."""

    def __init__(self, run: Run, nursery: trio.Nursery, valkey: Server, cluster: Cluster) -> None:
        self.run = run
        self.valkey = valkey
        self.cluster = cluster
        self.redis = trio.Lock()
        self.lives: dict[int, Life] = {}
        self.is_over = False
        self.handler: subprocess.Popen[bytes] | None = None
        self.handler_lock = trio.Lock()
        self.handler_port = find_free_port()
        self.environ = _environ(run, valkey, cluster)
        self.has_doors = self.environ["GRPC_ENABLED"] == "true"
        self._nursery = nursery
        self._numbers: Counter[int] = Counter()
        if run.script.has_logs:
            self.environ["OTTO_HANDLER_HOST"] = f"127.0.0.1:{self.handler_port}"
            self.handler = start_handler(self.handler_port, run.folder)

    def end(self) -> None:
        """Kill what still runs."""
        self.is_over = True
        for life in self.lives.values():
            life.kill()
        if self.handler is not None:
            self.handler.kill()
            self.handler.wait()

    def start(self, place: int) -> Life:
        """Start a process in a replica's place, which takes over from the one that was there."""
        self._numbers[place] += 1
        life = self.lives[place] = Life(self, f"r{place}-{self._numbers[place]}")
        self._nursery.start_soon(self._keep, place, life)
        return life

    async def wait_ready(self) -> None:
        """Return when every process takes events, so that the harm meets work."""
        await wait_until(lambda: all(life.is_ready() for life in self.lives.values()), 30)

    async def _keep(self, place: int, life: Life) -> None:
        """What ends unasked is started again, as a Deployment would."""
        await life.see_through()
        await trio.sleep(0.3)
        if self.lives[place] is life and not self.is_over:
            self.start(place)

    def command(self, *words: Any) -> Any:
        """One command to Redis, which must be there."""
        return self.valkey.command(*words)

    async def pods(self) -> list[dict[str, Any]]:
        """All pods; by a path that no fault meets."""
        answer = await self.cluster.client.get("/api/v1/pods")
        return [pod for pod in answer.json()["items"] if pod["metadata"]["namespace"] == NAMESPACE]


def _environ(run: Run, valkey: Server, cluster: Cluster) -> dict[str, str]:
    return {
        **without_settings(os.environ),
        "REDIS_URL": f"unix://{valkey.path}",
        "REDIS_STREAM": f"{PREFIX}:events",
        "KUBECONFIG": str(cluster.kubeconfig),
        "NAMESPACE": NAMESPACE,
        "WORKER_TEMPLATE": str(_write_templates(run.folder, has_logs=run.script.has_logs)),
        "LEASE_SECONDS": str(LEASE),
        "DRAIN_SECONDS": str(DRAIN),
        "CREATE_FENCE_SECONDS": str(FENCE),
        "ORPHAN_GRACE_SECONDS": "1",
        "LOG_FORMAT": "json",
        "HTTP_PORT": "0",
        "GRPC_ENABLED": "false",
        **run.script.settings,
    }


WORKER = """
{printing}
who="$OTTO_EVENT_ID $OTTO_WORKER_INDEX $OTTO_ATTEMPT"
set -- $OTTO_META_PLAN; shift $((OTTO_WORKER_INDEX - 1)); IFS=:; set -- $1
echo "$(date +%s.%3N) start $who" >> {journal}
if [ "$3" ]; then trap '' TERM; fi
rest $1
echo "$(date +%s.%3N) end $who" >> {journal}
exit $2
"""
"""A worker of the event's metadata `plan`: for each index seconds, exit code, and whether it is deaf to SIGTERM."""


def _write_templates(folder: Path, *, has_logs: bool) -> Path:
    """The workers that write down that they ran, and some without a process. Every pod has a grace of 2 s."""
    journal, place = folder / "journal", folder / "templates"
    printed = folder / "printed"
    journal.touch()
    printed.touch()
    place.mkdir()
    simulate = {"simulated-good": {"duration": "0.5"}, "simulated-bad": {"duration": "0.2", "exit-code": "3"}}
    simulate["simulated-late"] = {"start-delay": "1.5", "duration": "1"}
    printing = PRINTING.replace("{printed}", str(printed)) if has_logs else "rest() { sleep $1; }"
    words = ["sh", "-c", WORKER.replace("{printing}", printing).replace("{journal}", str(journal))]
    _write_template(place / "default.yaml", {"name": "worker", "command": words}, {})
    for name, words_of in simulate.items():
        marks = {f"ottoscaler.local/{key}": value for key, value in ({"simulate": "true"} | words_of).items()}
        _write_template(place / f"{name}.yaml", {"name": "worker"}, marks)
    return place


def _write_template(path: Path, container: dict[str, Any], annotations: dict[str, str]) -> None:
    spec = {"terminationGracePeriodSeconds": 2, "containers": [container]}
    template = {"metadata": {"annotations": annotations}, "spec": spec}
    whole = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": path.stem}, "template": template}
    path.write_text(yaml.safe_dump(whole))
