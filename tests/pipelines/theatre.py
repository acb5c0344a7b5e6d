"""A stage for tests of whole pipelines: scalers over the twins, and what became of a pipeline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import trio

from ottoscaler.stages import request_id_of
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from tests.spine.world import Plan, World

FINE = Plan(start_delay=0.2, duration=1.0)
FAILING = Plan(start_delay=0.2, duration=1.0, exit_code=1)
LONG = Plan(start_delay=0.2, duration=500.0)


def stage(stage_id: str, *needs: str, workers: int = 1, **more: Any) -> dict[str, Any]:
    """A stage, and what it needs."""
    return {"stage_id": stage_id, "worker_count": workers, "depends_on": list(needs), **more}


def text_of(*stages: dict[str, Any], pipeline_id: str = "p") -> str:
    """The text of `otto.pipeline`."""
    return json.dumps({"pipeline_id": pipeline_id, "stages": stages})


class Theatre:
    """A world whose workers live by the plan of their stage, and the stream."""

    def __init__(self, **plans: Plan) -> None:
        self.plans = plans
        self.server = MemoryServer(started_at=1_760_000_000.0)
        self.world = World(self._plan)
        self.producer = MemoryStream(self.server, "producer")
        self._stages: dict[str, str] = {}

    def _plan(self, labels: Mapping[str, str]) -> Plan:
        return self.plans.get(self.stage_of(labels["ottoscaler/event-id"]), FINE)

    def stage_of(self, event_id: str) -> str:
        """Which stage an event is; known for as long as somebody asked while it lived."""
        if event_id not in self._stages:
            entry = json.loads(self.server.progress.get(event_id, {}).get("entry", "[]"))
            self._stages[event_id] = dict(entry).get("stage_id", "")
        return self._stages[event_id]

    async def send(self, *stages: dict[str, Any], pipeline_id: str = "p", **more: str) -> str:
        """Ask for a pipeline; its event."""
        text = text_of(*stages, pipeline_id=pipeline_id)
        pairs = [("type", "pipeline"), ("otto.pipeline", text), *more.items()]
        requested = await self.producer.request(pairs, request_id_of(pipeline_id), "c", "t")
        return requested.event_id

    async def wait_result(self, event_id: str) -> dict[str, Any]:
        """The result once it is there, its stages decoded by id."""
        with trio.fail_after(2000):
            while (ending := await self.producer.read_ending(event_id)) is None:  # noqa: ASYNC110 - virtual time
                await trio.sleep(0.5)
        where, fields = ending
        assert where == "results", fields
        return fields | {"stages": {each["stage_id"]: each for each in msgspec.json.decode(fields["stages"])}}

    async def news(self, event_id: str) -> list[dict[str, Any]]:
        """All that was told."""
        told: list[str] = []
        while page := (await self.producer.read_news({event_id: len(told)}))[event_id].texts:
            told += page
        return [json.loads(text) for text in told]


def states(result: Mapping[str, Any]) -> dict[str, str]:
    """How each stage ended."""
    return {stage_id: each["status"] for stage_id, each in result["stages"].items()}


def changes(news: list[dict[str, Any]], stage_id: str) -> list[str]:
    """The states of one stage in the order in which they were told, each once."""
    told = [each["status"] for each in news if each["stage_id"] == stage_id]
    return [state for at, state in enumerate(told) if not at or told[at - 1] != state]
