"""`python -m tests.skew`: write down what this version writes, as `tests/skew/<version>/`, before it is released.

A scaler over a real Valkey meets events of every kind and is killed in the middle of them.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import trio

from ottoscaler import __version__
from ottoscaler.logs.mark import Mark
from ottoscaler.stream.base import Claim
from ottoscaler.stream.marks import Marking
from tests.pipelines.theatre import stage, text_of
from tests.skew.replica import Replica, living_world
from tests.skew.state import dump
from tests.spine.world import World
from tests.stream.backends import RedisBackend
from tests.stream.servers import Server, valkey_nine
from tests.stream.steps import PAIRS, registration

HERE = Path(__file__).parent
MARK = Mark("2026-01-01T00:00:01.5Z", "00c0ffee00c0ffee", 1, 7, "2026-01-01T00:00:01Z", told=2)
"""How far the log of one worker was done with; nothing follows logs here."""


async def write(server: Server, world: World) -> dict[str, str]:
    """Let a scaler live through it; the events by what they show."""
    made: dict[str, str] = {}
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        replica = Replica(server, world, "replica-1")
        await nursery.start(replica.run)

        async def send(name: str, seconds: float, **fields: str | int) -> None:
            pairs = [(key.replace("__", "."), str(value)) for key, value in fields.items()]
            made[name] = replica.backend.add(*pairs)
            await trio.sleep(seconds)

        world.late_creates.append(0.3)
        await send("fenced", 3.0, type="scale_up", pod_count=1, task_id="t-1")
        await send("refused", 0.5, type="scale_up", pod_count="many")
        lives = {"worker_2": "stays", "worker_3": "fails", "worker_4": "waits"}
        asked = {"task_id": "t-2", "otto__request_id": "request-1", "note": "größer"}
        await send("working", 3.0, type="scale_up", pod_count=4, **lives, **asked)
        await send("stopped", 1.0, type="scale_up", pod_count=1, worker_1="stays on", task_id="t-3")
        await send("stopping", 1.0, type="scale_down", pod_count=1, task_id="t-3")
        await send("cancelled", 1.0, type="scale_up", pod_count=1, worker_1="stays on", task_id="t-4")
        await send("cancelling", 1.0, type="cancel", event_id=made["cancelled"])
        stages = text_of(stage("first", config={"worker_1": "stays"}), stage("second", "first"))
        await send("pipeline", 2.0, type="pipeline", otto__pipeline=stages)
        place = msgspec.json.encode(MARK).decode()
        claim = Claim(made["working"], "replica-1", 1)
        assert await replica.stream.write_marks([Marking(claim, ((2, 1, place),))]) == [True]
        nursery.cancel_scope.cancel(reason="kill -9")
    await offer(replica.backend, made)
    made["unread"] = replica.backend.add(("type", "scale_up"), ("pod_count", "1"), ("task_id", "t-5"))
    replica.backend.disconnect()
    return made


async def offer(backend: RedisBackend, made: dict[str, str]) -> None:
    """An event that another replica read and had no room for."""
    stream = backend.open("replica-2")
    await stream.renew(0.1, "")
    made["offered"] = backend.add(*PAIRS)
    await stream.read(1, 1.0)
    await stream.register([registration(made["offered"], offer=True)])


def main() -> int:
    """Write the three files; the exit code."""
    folder = HERE / __version__
    with tempfile.TemporaryDirectory() as scratch:
        binary = valkey_nine()
        assert binary is not None
        server, world = Server(binary, Path(scratch), "--appendonly", "no"), living_world()
        made = trio.run(write, server, world)
        written: dict[str, Any] = {"events": made, "keys": dump(server), "pods": list(world.pods.values())}
        server.kill()
    folder.mkdir(exist_ok=True)
    for name, content in written.items():
        text = json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True)
        (folder / f"{name}.json").write_text(f"{text}\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
