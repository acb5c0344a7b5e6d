"""The judge of heavy chaos: by what the workers wrote and by what stands in the streams."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

import msgspec

from tests.chaos.callers import broken_promises
from tests.chaos.light_verdict import Broken
from tests.chaos.lines import broken_logs
from tests.chaos.script import BAD_ENTRIES, TEMPLATES
from tests.chaos.stage import BOUND, Run

LATE_START = 0.5
"""Seconds: a worker that was stopped while its pod started may still begin, and is ended at once."""
EXPLAINED = {"Evicted", "DeletedByOther", "Killed", "NameTaken", "ExitCode", "LabelsLost"}
"""Causes by which a worker may fail whose pod was harmed."""


def judge(run: Run) -> None:
    """Raise `Broken` where a promise does not hold."""
    _judge_entries(run)
    _judge_journal(run)
    for at, fields in run.results:
        if fields["type"] != "pipeline":
            _judge_result(run, at, fields)
    broken = broken_promises(run)
    _must(not broken, f"a request is one event, its answers agree, and pipelines keep their order: {broken}")
    lines = broken_logs(run)
    _must(not lines, f"every line arrives, or a gap says that it did not: {lines[:5]}")
    _must(not run.exits, f"P4 a drain always ends: {run.exits}")
    _must(not run.left, f"P3 nothing orphaned, or not within {BOUND:.0f} s: {run.left}")
    _must(not run.complaints, "P5 a bug showed itself: " + "\n".join(run.complaints[:3]))


def _must(holds: bool, promise: str) -> None:
    if not holds:
        raise Broken(promise)


def _judge_entries(run: Run) -> None:
    """Every event has exactly one entry, of the right kind."""
    entries = [fields["event_id"] for _, fields in (*run.results, *run.dead)]
    lost = set(run.sent) - set(entries) - run.exempt
    _must(not lost, f"P1 nothing lost: after {BOUND:.0f} s no entry for {sorted(lost)}, {run.left}")
    _must(set(entries) <= set(run.sent), f"P2: entries for events that nobody sent: {set(entries) - set(run.sent)}")
    _must(max(Counter(entries).values(), default=1) == 1, f"P2 nothing twice: {Counter(entries).most_common(3)}")
    for _, fields in run.dead:
        sent = run.sent[fields["event_id"]]
        is_bad = _is_bad(sent) or (fields["cause"] == "Trimmed" and run.harm["stream trimmed"] > 0)
        unknown = sent["type"] == "cancel" and fields["cause"] == "UnknownEvent" if "type" in sent else False
        _must(bool(is_bad or unknown), f"P1: a good event is a dead letter: {fields}, sent {sent}")
    for _, fields in run.results:
        _must(not _is_bad(run.sent[fields["event_id"]]), f"P7: a bad entry has a result: {fields}")


def _is_bad(sent: dict[str, str]) -> bool:
    return sent in BAD_ENTRIES


def _judge_journal(run: Run) -> None:
    """No attempt was started twice or after a later one, and none that the harm does not explain."""
    attempts: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for _, what, event, index, attempt in run.journal:
        if what == "start":
            attempts[event, index].append(attempt)
    for (event, index), started in attempts.items():
        _must(event in run.sent, f"P2: worker {event} {index} of an event that nobody sent")
        again = [after for before, after in pairwise(started) if after <= before]
        unknown = all(run.unseen[event, index, attempt] for attempt in again)
        _must(unknown, f"P2 nothing twice: worker {index} of {event} started as attempts {started}")
        own = int(run.script.settings["WORKER_MAX_ATTEMPTS"]) if _code(run, event, index) else 1
        most = own + run.harmed[event, index]
        _must(max(started) <= most, f"P2: worker {index} of {event} had attempt {max(started)}, explained are {most}")


def _code(run: Run, event: str, index: int) -> int:
    """The exit code that a worker is meant to end with."""
    sent = run.sent[event]
    if "plan" in sent:
        return int(sent["plan"].split()[index - 1].split(":")[1])
    return TEMPLATES[sent["template"]]


def _judge_result(run: Run, at: float, fields: dict[str, str]) -> None:
    """A result says what the workers did."""
    sent, workers = run.sent[fields["event_id"]], msgspec.json.decode(fields["workers"])
    counts = Counter(worker["outcome"] for worker in workers)
    for word in ("succeeded", "failed", "terminated"):
        _must(int(fields[word]) == counts[word], f"P2: the figures of {fields} are not those of its workers")
    _must(sent["type"] == "cancel" or fields["requested"] == sent["pod_count"], f"P2: {fields} does not answer {sent}")
    if sent["type"] != "scale_up":
        return
    indices = sorted(worker["index"] for worker in workers)
    _must(indices == list(range(1, int(sent["pod_count"]) + 1)), f"P1: a worker is missing or doubled: {fields}")
    for worker in workers:
        _judge_worker(run, fields["event_id"], at, worker)


def _judge_worker(run: Run, event: str, closed: float, worker: dict[str, Any]) -> None:
    index, attempt, is_harmed = worker["index"], worker["attempt"], run.harmed[event, worker["index"]] > 0
    lines = [(at, what) for at, what, *who in run.journal if who == [event, index, attempt]]
    later = [at for at, what, *who in run.journal if who[:2] == [event, index] and at > closed + LATE_START]
    starts_later = [
        at for at, what, *who in run.journal if who[:2] == [event, index] and what == "start" and at in later
    ]
    _must(not starts_later, f"P2: worker {index} of {event} started {starts_later} after its event had ended {closed}")
    code, is_real = _code(run, event, index), "plan" in run.sent[event]
    match worker["outcome"]:
        case "succeeded":
            _must(code == 0, f"P2: a worker succeeded that ends with {code}: {worker}")
            _must(
                not is_real or any(what == "end" for _, what in lines),
                f"P2: succeeded, and did not end: {worker} {lines}",
            )
        case "failed":
            own = worker["cause"] == "ExitCode" and worker["exit_code"] == code != 0
            _must(own or (is_harmed and worker["cause"] in EXPLAINED), f"P2: the harm does not explain {worker}")
        case "terminated":
            _must(_is_stopped(run, event), f"P2: terminated, and nobody asked for it: {worker}")


def _is_stopped(run: Run, event: str) -> bool:
    """Whether a scale_down or a cancel may have meant this event."""
    task, parent = run.sent[event].get("task_id", ""), run.sent[event].get("otto.parent", event)
    for sent in run.sent.values():
        if sent.get("type") == "scale_down" and sent.get("task_id", "") == task:
            return True
        if sent.get("type") == "cancel" and sent.get("event_id") in (event, parent):
            return True
    return False
