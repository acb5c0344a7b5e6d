"""A simulated day and its hours, and what is measured there: what must not grow, and the histograms of the stages."""

from __future__ import annotations

import gc
import resource
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import trio

from ottoscaler.metrics import STAGE_SECONDS, STAGES
from ottoscaler.stream.memory import MemoryServer
from tests.chaos.light_stage import Run


class Timed(NamedTuple):
    """One stage's histogram: how many gaps it was told, and their seconds together."""

    times: int = 0
    seconds: float = 0.0


Stages = Mapping[str, Timed]


class Standing(NamedTuple):
    """What a process holds while nothing is to be done."""

    tasks: int
    descriptors: int
    keys: int
    objects: int
    """All that the garbage collector looks through; what was there before the day is frozen."""
    ours: int
    """Those of them that are of Ottoscaler's own classes."""
    megabytes: float


def look_at(server: MemoryServer) -> Standing:
    """How things stand; only comparable where all work has ended."""
    gc.collect()
    found = [each for each in gc.get_objects() if not isinstance(each, type)]
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Standing(
        tasks=trio.lowlevel.current_statistics().tasks_living,
        descriptors=sum(1 for _ in Path("/proc/self/fd").iterdir()),
        keys=len(passing_keys(server)),
        objects=len(found),
        ours=sum(type(each).__module__.startswith("ottoscaler.") for each in found),
        megabytes=pages * resource.getpagesize() / 2**20,
    )


def passing_keys(server: MemoryServer) -> list[str]:
    """The keys beside those that are there for good, as long as a session, or for a day after an event's end."""
    names = server.keys
    lasting = {names.results, names.results_kept, names.dead_letters, names.era, names.sessions}
    for_a_day = {names.done(id_) for id_ in server.done} | {names.token(token) for token in server.tokens}
    for_a_day |= {names.request(id_) for id_ in server.requests} | {names.news(id_) for id_ in server.news_until}
    of_sessions = {names.tended(session) for session in server.sessions}
    return sorted(server.as_keys().keys() - lasting - for_a_day - of_sessions)


def read_stages() -> Stages:
    """The stage histograms by now. Raises `AssertionError` where one does not sum up in itself."""
    counts, sums, buckets = dict[str, int](), dict[str, float](), dict[str, list[int]]()
    for sample in (sample for family in STAGE_SECONDS.collect() for sample in family.samples):
        stage, value = sample.labels["stage"], sample.value
        match sample.name.rpartition("_")[2]:
            case "count":
                counts[stage] = int(value)
            case "sum":
                sums[stage] = value
            case "bucket":
                buckets.setdefault(stage, []).append(int(value))
    for stage, count in counts.items():
        assert buckets[stage] == sorted(buckets[stage]), f"{stage}: buckets that fall: {buckets[stage]}"
        assert buckets[stage][-1] == count, f"{stage}: {buckets[stage][-1]} in buckets, {count} counted"
    return {stage: Timed(counts[stage], sums[stage]) for stage in STAGES[1:]}


def since(now: Stages, before: Stages) -> Stages:
    """What came in between."""
    return {
        stage: Timed(timed.times - before[stage].times, timed.seconds - before[stage].seconds)
        for stage, timed in now.items()
    }


class Hour(NamedTuple):
    """One hour and how things stood at its end."""

    number: int
    kind: str
    """`plain` (no harm, events of one worker), `calm` (no harm), or `harm`."""
    event_ids: list[str]
    creates: int
    """Asked of the API."""
    workers: int
    """That ran."""
    harm: int
    rollouts: int
    standing: Standing
    stages: Stages
    """What the histograms were told in it."""
    seconds: float
    """In real time, so far."""


@dataclass
class Day:
    """A day and what came of it."""

    seed: int
    run: Run
    hours: list[Hour] = field(default_factory=list)
    rollouts: int = 0
    is_stuck: bool = False
    """Something did not end within an hour after all harm."""
    tasks: tuple[int, int] = (0, 0)
    """Before the first replica, and after the last."""
    left: list[str] = field(default_factory=list)
    """Keys, a day after the last replica went."""

    @property
    def harm(self) -> Counter[str]:
        """How often each harm was done."""
        return Counter(words.split(" ", 1)[1].rsplit(" r", 1)[0] for words in self.run.harm)
