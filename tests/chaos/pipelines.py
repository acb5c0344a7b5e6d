"""Pipelines in the light chaos: entries that ask for one, and what must be true of their ends."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

Fields = Mapping[str, str]


def pipeline_entry(dice: random.Random) -> dict[str, str]:
    """A pipeline of a few stages, each of which may need some of those before it."""
    names = "abcd"[: dice.randint(1, 4)]
    stages = [
        {
            "stage_id": name,
            "worker_count": dice.randint(1, 3),
            "depends_on": dice.sample(names[:at], dice.randint(0, min(at, 2))),
        }
        for at, name in enumerate(names)
    ]
    pipeline_id = f"{dice.getrandbits(40):x}"
    return {"type": "pipeline", "otto.pipeline": json.dumps({"pipeline_id": pipeline_id, "stages": stages})}


def broken_pipelines(sent: Mapping[str, Fields], results: Iterable[Fields], dead: Iterable[Fields]) -> list[str]:
    """What does not hold: each stage is started at most once, in order, and ends as its event did."""
    ends = {fields["event_id"]: fields for fields in (*dead, *results)}
    started = Counter((each["otto.parent"], each["stage_id"]) for each in sent.values() if "otto.parent" in each)
    broken = [f"started {times} times: {stage}" for stage, times in started.items() if times > 1]
    for fields in ends.values():
        if fields.get("type") == "pipeline":
            broken += _broken(sent[fields["event_id"]], fields, ends)
    return broken


def _broken(asked: Fields, result: Fields, ends: Mapping[str, Fields]) -> Iterator[str]:
    stages = {stage["stage_id"]: stage for stage in json.loads(asked["otto.pipeline"])["stages"]}
    ended = {stage["stage_id"]: stage for stage in json.loads(result["stages"])}
    if list(stages) != list(ended):
        yield f"stages {list(stages)} ended as {list(ended)}"
        return
    for stage_id, stage in ended.items():
        met = [ended[needed]["status"] == "completed" for needed in stages[stage_id].get("depends_on", [])]
        end = ends.get(stage["event_id"], {})
        if stage["event_id"] and not all(met):
            yield f"{stage_id} was started without what it needs: {result}"
        if stage["status"] == "skipped" and (all(met) or stage["event_id"]):
            yield f"{stage_id} was skipped without need: {result}"
        if (stage["status"] == "completed") != (end.get("status") == "succeeded"):
            yield f"{stage_id} ended as {stage['status']}, and its event so: {end}"
