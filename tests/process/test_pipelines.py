"""Pipelines by real processes over a real server: what a `kill -9` costs them."""

from __future__ import annotations

import json
import signal

import trio

from tests.process.bench import Bench
from tests.process.together import together

LEASE = 1.5
STAGES = (
    {"stage_id": "build", "worker_count": 2},
    {"stage_id": "test", "worker_count": 1, "depends_on": ["build"]},
    {"stage_id": "deploy", "worker_count": 1, "depends_on": ["test"]},
)


@together
async def test_a_killed_replicas_pipeline_is_continued(bench: Bench) -> None:
    """Another goes on with it: every worker runs once, every stage in its turn, and what was told has no gap."""
    text = json.dumps({"pipeline_id": "p", "stages": STAGES})
    async with bench.place() as place, place.serve() as one:
        pipeline = place.send("pipeline", pods=1, **{"otto.pipeline": text})
        await place.wait_started(2)
        async with place.serve() as other:
            await trio.sleep(LEASE)  # a start takes nothing over for one lease
            one.send(signal.SIGKILL)
            await other.hear("pipeline adopted")
            place.open_gate()
            results = {result["event_id"]: result for result in await place.wait_results(4)}
            stages = json.loads(results[pipeline]["stages"])
            assert [(stage["stage_id"], stage["status"]) for stage in stages] == [
                ("build", "completed"),
                ("test", "completed"),
                ("deploy", "completed"),
            ]
            place.events |= {stage["event_id"]: stage["succeeded"] for stage in stages}
            await place.judge()
        entries = place.command("XRANGE", f"{place.prefix}:news:{pipeline}", "-", "+")
        assert [number.decode() for number, _ in entries] == [f"{at}-0" for at in range(1, len(entries) + 1)]
        told = [json.loads(fields[1]) for _, fields in entries]
        for stage in STAGES:
            states = [each["status"] for each in told if each["stage_id"] == stage["stage_id"]]
            assert list(dict.fromkeys(states)) == ["pending", "running", "completed"]
            assert states.count("completed") == 1
