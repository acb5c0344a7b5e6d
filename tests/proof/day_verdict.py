"""The judge of a simulated day: what light chaos promises, nothing grows, and the stage histograms sum up."""

from __future__ import annotations

from ottoscaler.stream.entry_id import parse_id
from tests.chaos import light_verdict
from tests.chaos.light_stage import Run
from tests.chaos.light_verdict import Broken
from tests.proof.day_figures import Day, Hour

OURS, OBJECTS = 50, 3000
"""By how many objects (of our classes, of all) may differ between two silences; of deadlines that nobody waits for any
more Trio forgets a thousand only later."""
MEGABYTES = 30.0
"""By how much memory may grow: the twin keeps all results of the day, and so does the judge."""


def judge(day: Day) -> None:
    """Raise `Broken` where something does not hold."""
    light_verdict.judge(day.run)
    _must(not day.is_stuck, f"an hour after all harm was over not all was well: {day.run.left}")
    _judge_leaks(day)
    _judge_seconds(day.hours[0], day.run)
    for hour in day.hours:
        _judge_counts(hour, day.run)


def _judge_leaks(day: Day) -> None:
    """Nothing grows from silence to silence, and nothing is left."""
    first = day.hours[0].standing
    for hour in day.hours:
        now, where = hour.standing, f"hour {hour.number}: {hour.standing}, before {first}"
        _must((now.tasks, now.descriptors) == (first.tasks, first.descriptors), f"tasks or descriptors leak, {where}")
        _must(now.keys == 0, f"keys are left, {where}")
        _must(now.objects <= first.objects + OBJECTS, f"objects leak, {where}")
        _must(now.ours <= first.ours + OURS, f"objects of ours leak, {where}")
        _must(now.megabytes <= first.megabytes + MEGABYTES, f"memory leaks, {where}")
    names = day.run.server.keys
    left = set(day.left) - {names.results, names.results_kept, names.dead_letters, names.era}
    _must(not left, f"left a day later: {left}")
    _must(day.tasks[0] == day.tasks[1], f"tasks before the first replica and after the last: {day.tasks}")


def _judge_seconds(plain: Hour, made: Run) -> None:
    """All stages together last as long as all events did, by the clock of the stream."""
    ended = {dict(pairs)[b"event_id"].decode(): id_[0] for id_, pairs in made.server.results.entries.items()}
    lasted = sum(ended[event_id] - parse_id(event_id)[0] for event_id in plain.event_ids) / 1000
    told = sum(timed.seconds for timed in plain.stages.values())
    _must(abs(told - lasted) <= 0.002 * len(plain.event_ids), f"events lasted {lasted:.3f} s, all stages {told:.3f} s")


def _judge_counts(hour: Hour, made: Run) -> None:
    """Each stage was told what went through it: exactly without harm, and with harm nothing twice."""
    ours = set(hour.event_ids)
    results = [each for each in made.results if each["event_id"] in ours and each["status"] != "already_processed"]
    scale_ups = sum(each["type"] == "scale_up" for each in results)
    read = len(results) + sum(each["event_id"] in ours and each["cause"] == "UnknownEvent" for each in made.dead)
    told, where = {stage: timed.times for stage, timed in hour.stages.items()}, f"hour {hour.number}"
    events = (told["read"], told["started"], told["closed"])
    if hour.kind == "harm":
        is_within = all(told <= most for told, most in zip(events, (read, scale_ups, scale_ups), strict=True))
        _must(is_within, f"{where}: {events} of {read}, {scale_ups}, {scale_ups}")
        return
    _must(events == (read, scale_ups, scale_ups), f"{where}: {events} of {read}, {scale_ups}, {scale_ups}")
    _must(told["accepted"] == hour.creates, f"{where}: {told['accepted']} accepted of {hour.creates} created")
    _must(told["scheduled"] == told["running"] == hour.workers, f"{where}: {hour.workers} ran, told {told}")
    _must(told["accepted"] <= told["ended"] == told["recorded"], f"{where}: not all ends were recorded: {told}")
    _must(told["deleted"] <= told["accepted"], f"{where}: more deleted than accepted: {told}")


def _must(holds: bool, promise: str) -> None:
    if not holds:
        raise Broken(promise)
