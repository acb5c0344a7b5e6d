"""The end of a light run: waiting until all is well, and the judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec
import trio

from ottoscaler.stream.memory import MemoryStream
from tests.chaos.asking import broken_promises
from tests.chaos.light_stage import Replica, Run
from tests.chaos.pipelines import broken_pipelines

SETTLE_SECONDS = 900.0
"""What is not well by then never becomes well."""
CALM_SECONDS = 10.0
"""Nothing may change any more once all is well: for several leases, and a round of all that is done regularly."""
LONG_CALM_SECONDS = 100.0
"""In every twentieth run; longer than any grace."""


class Broken(AssertionError):
    """A promise does not hold."""


async def settle(made: Run, replicas: Sequence[Replica]) -> None:
    """Wait until all is well and stays so, then look at what there is."""
    calm = CALM_SECONDS if made.seed % 20 else LONG_CALM_SECONDS
    well_since = trio.current_time()
    with trio.move_on_after(SETTLE_SECONDS):
        while trio.current_time() < well_since + calm:
            await trio.sleep(1.0)
            if not is_well(made, replicas):
                well_since = trio.current_time()
    await note_end(made, replicas)


async def note_end(made: Run, replicas: Sequence[Replica]) -> None:
    """Keep for the judge what there is."""
    stream = MemoryStream(made.server, "judge")
    made.results = [fields for _, fields in await stream.read_entries("results", "0", 9999, 0.0)]
    made.dead = [fields for _, fields in await stream.read_entries("dlq", "0", 9999, 0.0)]
    made.left = {
        "live": await stream.live_events(),
        "pods": _orphans(made),
        "fences": dict(made.server.fences),
        "keys": [
            name for name in made.server.as_keys() if ":progress:" in name or ":held:" in name or ":notices:" in name
        ],
        "replicas at work": [replica.number for replica in replicas if not replica.is_idle()],
    }


def is_well(made: Run, replicas: Sequence[Replica]) -> bool:
    """Whether every event has ended, nothing is left of any, and nobody is about to change that."""
    server = made.server
    if server.progress or server.fences or made.world.creates_to_come:
        return False
    if any(server.held.values()) or any(server.notices.values()) or _orphans(made):
        return False
    entries = (*server.results.entries.values(), *server.dead_letters.entries.values())
    ended = {dict(pairs)[b"event_id"].decode() for pairs in entries}
    return _awaited(made) <= ended and all(replica.is_idle() for replica in replicas)


def _awaited(made: Run) -> set[str]:
    """The events that must have one entry: not those whose dead letter became another event."""
    return made.sent.keys() - made.forgotten - {fields.get("otto.replay_of", "") for fields in made.sent.values()}


def _orphans(made: Run) -> list[str]:
    """Pods that should be gone when all is well."""
    return sorted(name for name in made.world.pods if name not in made.excused and not _is_foreign(made, name))


def _is_foreign(made: Run, name: str) -> bool:
    """A pod of an era that Redis has forgotten: reported, never killed."""
    era = made.world.pods[name]["metadata"]["labels"].get("ottoscaler/era")
    return made.server.era is None or era != made.server.era.id


def judge(made: Run) -> None:
    """Raise `Broken` where a promise does not hold."""
    ended = Counter(fields["event_id"] for fields in [*made.results, *made.dead])
    missing = _awaited(made) - ended.keys()
    _must(not missing, f"P1 nothing lost: no entry for {sorted(missing)}")
    _must(ended.keys() <= made.sent.keys(), f"P1: entries for what was never sent: {sorted(ended.keys() - made.sent)}")
    _must(max(ended.values(), default=1) == 1, f"P2 nothing twice: several entries for {ended.most_common(3)}")
    excused = made.unseen | made.world.unguarded  # windows that docs/design.md names
    if any(replica.skew for replica in made.replicas):
        excused |= made.world.came_late
    runs = Counter(run for run in made.world.runs if _name(*run) not in excused)
    most = Counter((event, index) for event, index, _ in runs).most_common(1)
    _must(not most or most[0][1] <= made.attempts + made.evictions, f"P2: more attempts than explained: {most}")
    _must(max(runs.values(), default=1) == 1, f"P2 nothing twice: ran more than once: {runs.most_common(3)}")
    _must(not any(made.left.values()), f"P3 nothing orphaned: {made.left}")
    for fields in made.dead:
        is_poison = made.sent[fields["event_id"]].get("task_id") == "poison"
        _must(fields["cause"] != "HandlingFailed" or is_poison, f"P5: a healthy event was held to be poison: {fields}")
    for fields in made.results:
        _judge_result(made, fields)
    is_known = not (made.forgotten or made.redis.restarts)  # else Redis may have forgotten what was answered
    broken = broken_promises(made.asked, made.results) if is_known else []
    known = {id_: fields for id_, fields in made.sent.items() if not (made.redis.restarts and id_ in made.forgotten)}
    broken += broken_pipelines(known, made.results, made.dead)
    _must(not broken, f"a request is one event, its answers agree, and pipelines keep their order: {broken}")


def _judge_result(made: Run, fields: dict[str, str]) -> None:
    sent, workers = made.sent[fields["event_id"]], msgspec.json.decode(fields["workers"])
    is_repeated = fields["status"] == "already_processed"
    _must(not is_repeated or made.sent[fields["original"]] == sent, f"{fields} repeats what was another request")
    if "pod_count" in sent:
        _must(fields["requested"] == sent["pod_count"], f"P2: {fields} does not answer {sent}")
    if sent["type"] != "scale_up" or is_repeated:
        return
    _must(sorted(worker["index"] for worker in workers) == list(range(1, int(sent["pod_count"]) + 1)), f"P1: {fields}")
    ran = {(event, index) for event, index, _ in made.world.runs}
    for worker in workers:
        has_run = (fields["event_id"], worker["index"]) in ran
        _must(worker["outcome"] != "succeeded" or has_run, f"a worker succeeded that never ran: {worker}")
        excused = made.forgotten or worker["name"] in made.excused
        excused = excused or worker["cause"] in ("ExitCode", "Killed", "NameTaken")
        _must(
            worker["outcome"] != "failed" or bool(excused), f"a worker failed that the harm does not explain: {worker}"
        )


def _name(event_id: str, index: int, attempt: int) -> str:
    return f"otto-agent-{index}-{event_id}" + (f"-r{attempt}" if attempt > 1 else "")


def _must(holds: bool, promise: str) -> None:
    if not holds:
        raise Broken(promise)
