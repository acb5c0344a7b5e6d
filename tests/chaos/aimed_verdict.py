"""The judge of aimed chaos: what light chaos promises, and that every result says what the world has seen."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from tests.chaos.aimed_scenes import SCENES
from tests.chaos.aimed_truth import Life, Truth
from tests.chaos.light_stage import Run
from tests.chaos.light_verdict import Broken, judge

OWN = ("ExitCode", "Killed")
BLIND = ("kill -9", "SIGTERM", "SIGSTOP", "watch", "list", "reads", "Redis", "labels", "label", "takeover")
"""Harm after which an end may have been missed by who owned the worker."""

LONGEST_WAIT = 150.0
"""Of an event after all harm (s): fences of 60 s are no part of it; three workers in a row may have three attempts,
each of which may wait 10 s for its pod's last word.
"""


def judge_aimed(made: Run) -> None:
    """Raise `Broken` where a promise does not hold."""
    judge(made)
    assert made.truth is not None
    _must(made.waited <= LONGEST_WAIT, f"an event waited {made.waited:.0f} s after all harm had ended")
    stopped = Counter[str]()
    for fields in made.results:
        if fields["event_id"] in made.forgotten or fields["type"] == "pipeline":
            continue
        workers = msgspec.json.decode(fields["workers"])
        if not any(replica.skew for replica in made.replicas):
            _must(fields["started_at"] <= fields["completed_at"], f"it ended before it began: {fields}")
        _judge_counts(fields, workers)
        if fields["type"] == "scale_up" and "original" not in fields:
            stopped["ups"] += sum(worker["cause"] == "Stopped" for worker in workers)
            for worker in workers:
                _judge_worker(made, made.truth, fields["event_id"], worker)
        elif fields["type"] == "scale_down":
            stopped["downs"] += len(workers)
    if not (made.forgotten or made.redis.restarts):
        _must(stopped["ups"] == stopped["downs"], f"as many are stopped as scale_downs say: {stopped}")
    if made.scene == "remain" and not made.redis.restarts:
        _must(stopped["ups"] <= 2, f"two who want one to remain leave one: {stopped}")
    for name in made.truth.strangers:
        _must(name in made.world.pods, f"somebody else's pod was deleted: {name}")


def _judge_counts(fields: dict[str, str], workers: list[dict[str, Any]]) -> None:
    counts = Counter(worker["outcome"] for worker in workers)
    told = {word: int(fields[word]) for word in ("succeeded", "failed", "terminated")}
    _must(all(counts[word] == told[word] for word in told), f"the numbers of {fields}")
    words = {word for word, number in counts.items() if number}
    if fields["type"] == "scale_up" and fields["status"] != "already_processed":
        status = words.copy().pop() if len(words) == 1 else ("partial" if "succeeded" in words else "failed")
        _must(fields["status"] == status, f"status of {fields}")


def _judge_worker(made: Run, truth: Truth, event_id: str, worker: dict[str, Any]) -> None:
    index, last = worker["index"], worker["attempt"]
    names = {attempt: _name(event_id, index, attempt) for attempt in range(1, 12)}
    _must(worker["name"] == names[last], f"the name of {worker}")
    later = [name for attempt, name in names.items() if attempt > last and truth.ours(name)]
    is_known = not made.redis.restarts  # else Redis may have forgotten a later attempt
    _must(not (later and is_known), f"attempts after the last one that the result names ({worker}): {later}")
    for attempt in range(1, last):
        _judge_earlier(made, truth, names[attempt], worker)
    lives, harmed = truth.ours(names[last]), names[last] in made.excused
    codes = {life.code for life in lives if life.ended is not None}
    match worker["outcome"]:
        case "succeeded":
            _must(0 in codes, f"a worker succeeded whose pod did not: {worker}, {lives}")
        case "terminated":
            _must(SCENES[made.scene].stops, f"nobody asked for this end: {worker}")
        case "failed":
            _judge_failed(made, truth, worker, lives, harmed=harmed)


def _judge_failed(made: Run, truth: Truth, worker: dict[str, Any], lives: list[Life], *, harmed: bool) -> None:
    cause, codes = worker["cause"], {life.code for life in lives if life.ended is not None}
    if cause == "NameTaken":
        _must(worker["name"] in truth.strangers or harmed, f"no stranger took the name: {worker}")
        return
    if cause in OWN:
        _must(bool(codes - {0}) and worker["exit_code"] in codes, f"it did not end so: {worker}, {lives}")
        _must(worker["attempt"] >= made.attempts or harmed, f"there were attempts left: {worker}, {made.attempts}")
    else:
        _must(harmed or bool(made.forgotten), f"no harm explains this cause: {worker}, {lives}")
    seen = [life for life in lives if life.code == 0 and life.ended is not None]
    is_blind = any(word in harm for harm in made.harm for word in BLIND)
    _must(not seen or is_blind, f"a worker that succeeded in sight of its owner has failed: {worker}, {lives}")


def _judge_earlier(made: Run, truth: Truth, name: str, worker: dict[str, Any]) -> None:
    """There was another attempt after this one: why?"""
    lives = truth.ours(name)
    has_failed = any(life.code for life in lives)
    ran = any(life.started is not None for life in lives)
    _must(has_failed or name in made.excused, f"nothing explains another attempt after {name}: {worker}, {lives}")
    _must(has_failed or not ran or made.is_run_again, f"{name} had started and was run again: {worker}, {lives}")


def _name(event_id: str, index: int, attempt: int) -> str:
    return f"otto-agent-{index}-{event_id}" + (f"-r{attempt}" if attempt > 1 else "")


def _must(holds: bool, promise: str) -> None:
    if not holds:
        raise Broken(promise)
