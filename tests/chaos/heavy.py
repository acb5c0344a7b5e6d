"""Heavy chaos: real Valkey, a real local cluster and one to four `serve` processes, in real time.

`run(seed, folder)` plays the script of a seed (`script.py`) on a `Stage` and gives back a `Run`; `judge(run)` in
`verdict.py` raises `Broken` naming the promise that does not hold. A run takes 10 to 40 seconds.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tests.chaos.callers import ask_all, ask_last, note_added
from tests.chaos.harms import do_harm
from tests.chaos.script import write_script
from tests.chaos.stage import BOUND, NAMESPACE, PREFIX, START_DELAY, Run, Stage
from tests.process.bench import start_cluster
from tests.stream.servers import Server, valkey_nine


async def run(seed: int, folder: Path, *, seconds: float = 6.0) -> Run:
    """Play a seed below `folder`, which must exist and stays as it is, logs and all."""
    made = Run(write_script(seed, seconds=seconds), folder)
    begun = time.monotonic()
    async with _stage(made) as stage:
        for place in range(made.script.replicas):
            stage.start(place)
        await stage.wait_ready()
        await _play(stage)
        await ask_last(stage)
        await _settle(stage)
        await _end(stage)
    made.seconds = time.monotonic() - begun
    return made


@asynccontextmanager
async def _stage(made: Run) -> AsyncIterator[Stage]:
    binary = valkey_nine()
    assert binary is not None
    for name in ("valkey", "pods"):
        (made.folder / name).mkdir()
    async with trio.open_nursery() as nursery:
        valkey = Server(binary, made.folder / "valkey", "--appendonly", "yes", "--appendfsync", "always")
        try:
            async with start_cluster(nursery, made.folder / "pods", start_delay=START_DELAY) as cluster:
                body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
                assert (await cluster.client.post("/api/v1/namespaces", json=body)).status_code == 201
                stage = Stage(made, nursery, valkey, cluster)
                try:
                    yield stage
                finally:
                    stage.end()
        finally:
            valkey.kill()
        nursery.cancel_scope.cancel(reason="the run is over")


async def _play(stage: Stage) -> None:
    """Events and harm, each at its time; then all harm ends."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send_all, stage)
        nursery.start_soon(ask_all, stage)
        for harm in stage.run.script.harms:
            nursery.start_soon(do_harm, stage, harm)
    await stage.cluster.client.delete("/faults")
    stage.run.harm_ended = time.time()


async def _send_all(stage: Stage) -> None:
    begun = trio.current_time()
    dice = random.Random(stage.run.script.seed)
    for at, fields, target in stage.run.script.sends:
        await trio.sleep_until(begun + at)
        if fields == {"type": "cancel"}:
            before = sorted(stage.run.sent) or ["1-0"]
            fields = fields | {"event_id": "1-0" if dice.random() < 0.1 else before[int(target * len(before))]}
        async with stage.redis:
            words = [part for pair in fields.items() for part in pair]
            event_id = stage.command("XADD", f"{PREFIX}:events", "*", *words).decode()
        stage.run.sent[event_id], stage.run.sent_at[event_id] = fields, time.time()


# -- the end


async def _settle(stage: Stage) -> None:
    """Wait until nothing is left to do, at most for the bound."""
    with trio.move_on_at(trio.current_time() + BOUND):
        while await _unsettled(stage) or time.time() < stage.run.late_until:  # noqa: ASYNC110 - Redis and the API are asked
            await trio.sleep(0.1)
    stage.run.left |= await _unsettled(stage)


async def _unsettled(stage: Stage) -> dict[str, Any]:
    """What is still to be done, by kind; empty when all is well."""
    _read(stage)
    run = stage.run
    ended = {fields["event_id"] for _, fields in (*run.results, *run.dead)}
    pods = [pod["metadata"] for pod in await stage.pods() if pod["metadata"]["name"] not in run.stripped]
    present = [pod["name"] for pod in pods if pod.get("labels", {}).get("ottoscaler/era") not in run.eras]
    keys = {name.decode().removeprefix(f"{PREFIX}:") for name in stage.command("KEYS", f"{PREFIX}:*")}
    words = ("progress", "live", "offered", "notices", "fences", "held")
    alive = {life.name for life in stage.lives.values() if not life.is_over}
    sessions = [name.decode() for name in stage.command("ZRANGE", f"{PREFIX}:sessions", 0, -1)]
    left = {
        "events without an entry": sorted(set(run.sent) - ended - run.exempt),
        "pods": present,
        "keys": sorted(key for key in keys if key.split(":")[0] in words),
        "sessions of the dead": [name for name in sessions if not any(name.startswith(one) for one in alive)],
        "pending entries": _pending(stage),
    }
    return {kind: what for kind, what in left.items() if what}


def _pending(stage: Stage) -> int:
    is_there = stage.command("EXISTS", f"{PREFIX}:events")  # an emptied Redis has no stream for a while
    groups = stage.command("XINFO", "GROUPS", f"{PREFIX}:events") if is_there else []
    return sum(int(flat[flat.index(b"pending") + 1]) for flat in groups)


def _read(stage: Stage) -> None:
    for where, kept in (("results", stage.run.results), ("dlq", stage.run.dead)):
        entries = stage.command("XRANGE", f"{PREFIX}:{where}", "-", "+")
        kept[:] = [(int(entry_id.split(b"-")[0]) / 1000, _as_dict(flat)) for entry_id, flat in entries]


def _as_dict(flat: list[bytes]) -> dict[str, str]:
    words = [word.decode() for word in flat]
    return dict(zip(words[::2], words[1::2], strict=True))


async def _end(stage: Stage) -> None:
    """Sweep the eras that are over, end every process in order, and look at what there is."""
    run = stage.run
    for era in run.eras:
        command = [sys.executable, "-m", "ottoscaler", "sweep", "--era", era]
        done = await trio.run_process(command, env=stage.environ, capture_stdout=True, capture_stderr=True, check=False)
        if done.returncode != 0:
            run.exits.append(f"sweep --era {era}: exit code {done.returncode}: {done.stderr.decode()[-300:]}")
    with trio.move_on_after(10):
        while await _pods_left(stage):  # noqa: ASYNC110 - the API is asked
            await trio.sleep(0.1)
    stage.is_over = True
    async with trio.open_nursery() as nursery:
        for life in stage.lives.values():
            nursery.start_soon(life.terminate)
    while not all(life.is_over for life in stage.lives.values()):  # noqa: ASYNC110 - processes tell nobody
        await trio.sleep(0.02)
    await trio.sleep(0.1)
    _read(stage)
    note_added(run)
    _take_stock(stage, await _pods_left(stage))


async def _pods_left(stage: Stage) -> list[str]:
    names = [pod["metadata"]["name"] for pod in await stage.pods()]
    return [name for name in names if name not in stage.run.stripped]


STAYS = (
    "events",
    "results",
    "dlq",
    "done",
    "era",
    "marker",
    "slots",
    "token",
    "sessions",
    "tended",
    "notices",
    "request",
    "news",
)
"""Keys that may be there when every process has ended.

A session whose leaving was cut off by a busy machine expires by itself, and the next replica forgets it with all
that is its own; what it held would show as `held`.
"""


def _take_stock(stage: Stage, pods: list[str]) -> None:
    run = stage.run
    keys = [name.decode().removeprefix(f"{PREFIX}:") for name in stage.command("KEYS", f"{PREFIX}:*")]
    run.left |= {
        kind: what
        for kind, what in {
            "pods at the end": pods,
            "keys at the end": sorted(key for key in keys if key.split(":")[0] not in STAYS),
            "processes": [] if run.stripped else _processes(str(run.folder / "journal").encode()),
        }.items()
        if what
    }
    for line in (run.folder / "journal").read_text().splitlines():
        at, what, event, index, attempt = line.split()
        run.journal.append((float(at), what, event, int(index), int(attempt)))
    waits = [
        at - max(run.sent_at.get(entry["event_id"], at), run.harm_ended) for at, entry in (*run.results, *run.dead)
    ]
    run.longest_wait = max([0.0, *waits])
    for path in sorted(run.folder.glob("r*-*.log")):
        for line in path.read_text(errors="replace").splitlines():
            if '"level":"error"' in line.replace(" ", "") and '"era lost"' not in line:
                run.complaints.append(f"{path.stem}: {line}")


def _processes(mark: bytes) -> list[int]:
    return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if mark in _read_file(path)]


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile
        return b""
