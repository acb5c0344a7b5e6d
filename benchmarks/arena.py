"""The running programs of a benchmark: Valkey, the observed local cluster, and `serve` where it is wanted.

All of them end with the block; nothing is left behind, pods neither, for they are only simulated.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import trio

from benchmarks.figures import Show
from benchmarks.meter import Meter
from benchmarks.records import Records
from ottoscaler.cli import playground
from ottoscaler.cli.programs import Program, open_program
from ottoscaler.parsing import parse_redis_url
from ottoscaler.stream.keys import Keys
from ottoscaler.stream.link import Link

OBSERVED_CLUSTER = (sys.executable, "-m", "benchmarks.observed_cluster")
KEYS = Keys("otto:scale:events", "ottoscaler")
ROOT = Path(__file__).parent.parent
REDIS_TIMEOUT = 10.0
FILL_SECONDS = 400.0
BLOCK_MS = 1000


@dataclass(slots=True)
class Arena:
    """The programs, and the ways in: `redis` for single commands, `waiting` for those that block."""

    nursery: trio.Nursery
    environ: dict[str, str]
    kubeconfig: Path
    valkey: Program
    cluster: Program
    records: Records
    redis: Link
    waiting: Link
    _read_up_to: str = "0-0"

    @asynccontextmanager
    async def open_serve(self, **settings: str) -> AsyncIterator[Program]:
        """`ottoscaler serve` with further settings (by variable), entered when it is ready. Its log is read, as a
        container runtime would, and dropped; where the block fails, the last lines are told with the error.
        """
        async with playground.open_serve(self.nursery, self.environ | settings) as serve:
            try:
                yield serve
            except Exception as error:
                error.add_note("\n".join(("the scaler said last:", *serve.tail)))
                raise

    def meter(self, *serves: Program, **others: Program) -> Meter:
        """Measure CPU from now on, of all programs and of this one; several scalers are `serve`, `serve 2`, ..."""
        names = ["serve", *(f"serve {number}" for number in range(2, len(serves) + 1))]
        programs = dict(zip(names, serves, strict=False)) | {"cluster": self.cluster, "valkey": self.valkey}
        programs |= others
        return Meter({name: program.process.pid for name, program in programs.items()} | {"benchmark": os.getpid()})

    async def send(self, pods: int, task_id: str = "benchmark") -> tuple[str, float]:
        """XADD one scale_up; its id, and when (CLOCK_MONOTONIC, s) the call was begun."""
        begun = time.monotonic()
        pairs = ("type", "scale_up", "pod_count", pods, "task_id", task_id)
        event_id: bytes = await self.redis.command("XADD", KEYS.stream, "*", *pairs)
        return event_id.decode(), begun

    async def fill(self, show: Show, events: int, workers_per_event: int) -> list[str]:
        """Send so many events to an empty cluster, and wait until all their workers run and are recorded as accepted;
        the events' ids. Raises trio.TooSlowError.
        """
        event_ids = [(await self.send(workers_per_event))[0] for _ in range(events)]
        with trio.fail_after(FILL_SECONDS):
            while (running := len(self.records.running)) < events * workers_per_event:
                show(f"{running} of {events * workers_per_event} pods run")
                await trio.sleep(2)
                self.records.read()
        await trio.sleep(0.5)  # accepted is recorded in batches
        return event_ids

    async def wait_results(self, count: int, limit_seconds: float) -> list[dict[str, str]]:
        """The next `count` results, whole; raises trio.TooSlowError."""
        results: list[dict[str, str]] = []
        with trio.fail_after(limit_seconds):
            while len(results) < count:
                read = ("XREAD", "COUNT", count - len(results), "BLOCK", BLOCK_MS, "STREAMS", KEYS.results)
                answer = await self.waiting.command(*read, self._read_up_to)
                for entry_id, fields in answer[0][1] if answer else ():
                    self._read_up_to = entry_id.decode()
                    pairs = [each.decode() for each in fields]
                    results.append(dict(zip(pairs[::2], pairs[1::2], strict=True)))
        return results


def simulated(*, seconds: float) -> dict[str, str]:
    """Annotations of a pod without a process that runs for so long and succeeds."""
    return {"ottoscaler.local/simulate": "true", "ottoscaler.local/duration": str(seconds)}


def template(annotations: Mapping[str, str]) -> dict[str, Any]:
    """A PodTemplate of one worker with these annotations."""
    container = {"name": "worker", "image": "busybox:latest"}
    pod = {"metadata": {"annotations": dict(annotations)}, "spec": {"containers": [container]}}
    return {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "simulated"}, "template": pod}


@asynccontextmanager
async def open_arena(
    annotations: Mapping[str, str],
    *,
    latency: float = 0.0,
    max_log_bytes: int | None = None,
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[Arena]:
    """Valkey (each write on disk before its answer) and the cluster, whose answers take `latency` seconds more, and
    which begins a new file for a log after `max_log_bytes`.

    `settings` (by variable) are for a `serve` that is opened in it; its workers carry `annotations`.
    """
    with tempfile.TemporaryDirectory(prefix="ottoscaler-bench-", ignore_cleanup_errors=True) as name:
        folder, port = Path(name), playground.find_free_port()
        kubeconfig, records, chosen = folder / "kubeconfig", folder / "records", folder / "simulated.json"
        records.touch()
        chosen.write_bytes(msgspec.json.encode(template(annotations)))
        url = f"redis://127.0.0.1:{port}/0"
        ours = {"REDIS_URL": url, "KUBECONFIG": str(kubeconfig), "WORKER_TEMPLATE": str(chosen), "DRAIN_SECONDS": "0"}
        environ = {**playground.without_settings(os.environ), **(settings or {}), **ours}
        address = parse_redis_url(url)
        redis, waiting = Link(address, timeout=REDIS_TIMEOUT), Link(address, timeout=REDIS_TIMEOUT)
        async with (
            trio.open_nursery() as nursery,
            playground.open_valkey(nursery, folder / "valkey", port) as valkey,
            _open_cluster(nursery, folder / "cluster", kubeconfig, records, latency, max_log_bytes) as cluster,
        ):
            try:
                yield Arena(nursery, environ, kubeconfig, valkey, cluster, Records(records), redis, waiting)
            finally:
                redis.disconnect()
                waiting.disconnect()


def _open_cluster(
    nursery: trio.Nursery, data: Path, kubeconfig: Path, records: Path, latency: float, max_log_bytes: int | None
) -> AbstractAsyncContextManager[Program]:
    paths = {"--data": data, "--kubeconfig": kubeconfig, "--records": records}
    options = [str(word) for pair in paths.items() for word in pair]
    command = [*OBSERVED_CLUSTER, *options, "--latency", str(latency)]
    if max_log_bytes is not None:
        command += ["--max-log-bytes", str(max_log_bytes)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return open_program(nursery, "cluster", command, ready=playground.CLUSTER_READY, environ=environ, grace_seconds=20)
