"""Chaos for whoever wants to see it: seeded harm, how far it is, a table of what came of it.

    python -m tests.chaos --kind heavy --seed 1 --runs 20
    make chaos KIND=light SEED=0 RUNS=10000
    make chaos KIND=aimed SEED=0 RUNS=10000 HARM='Redis crashes'

Seeds count up from the one given. The exit code is 1 where a promise broke; what broke and how to play that seed again
is printed. A light or aimed seed plays exactly the same run again; a heavy one the same events and harm, at the pace of
real processes.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import trio
from rich.console import Console

from tests.chaos import aimed, aimed_verdict, heavy, light, light_verdict, verdict
from tests.chaos.aimed_harms import AIMED
from tests.chaos.light_stage import Run
from tests.chaos.reports import Report, heavy_table, light_table

LIGHT_RUNS = 2000
JUDGES: dict[str, Callable[[Run], None]] = {"light": light_verdict.judge, "aimed": aimed_verdict.judge_aimed}
Play = Callable[[int], Run]
HEAVY_RUNS = 10
BATCH = 20
AT_ONCE = 2
console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def main(arguments: list[str] | None = None) -> int:
    """Play what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Harm whole scalers, and judge.")
    parser.add_argument("--kind", choices=["light", "aimed", "heavy", "all"], default="all")
    parser.add_argument("--seed", type=int, default=None, help="the first seed; a random one if not said")
    parser.add_argument("--runs", type=int, help=f"how many seeds (light and aimed {LIGHT_RUNS}, heavy {HEAVY_RUNS})")
    parser.add_argument(
        "--harm", choices=sorted(AIMED), metavar="NAME", help="do this in each aimed seed, beside others"
    )
    parser.add_argument("--keep", action="store_true", help="keep the folders of heavy runs that went well, too")
    asked = parser.parse_args(arguments)
    seed = random.randrange(10**6) if asked.seed is None else asked.seed
    broken: list[Report] = []
    for kind in JUDGES:
        if asked.kind in (kind, "all"):
            play = partial(aimed.run, harm=asked.harm or "") if kind == "aimed" else light.run
            broken += _light(kind, play, range(seed, seed + (asked.runs or LIGHT_RUNS)))
    if asked.kind in ("heavy", "all"):
        broken += _heavy(range(seed, seed + (asked.runs or HEAVY_RUNS)), keep=asked.keep)
    for report in broken:
        console.print(f"\nseed {report.seed} broke a promise:\n{report.broken}", style="red", markup=False)
        harm = f" HARM='{asked.harm}'" if asked.harm and report.kind == "aimed" else ""
        console.print(f"again: make chaos KIND={report.kind} SEED={report.seed} RUNS=1{harm}", markup=False)
        if report.folder:
            console.print(f"logs and journal: {report.folder}")
    return 1 if broken else 0


# -- light and aimed


def _light(kind: str, play: Play, seeds: range) -> list[Report]:
    """All light or aimed seeds, on every core."""
    console.print(f"{kind}: seeds {seeds.start} to {seeds.stop - 1}")
    begun, reports = time.monotonic(), list[Report]()
    with ProcessPoolExecutor(os.cpu_count(), initializer=_prepare) as pool:
        parts = [pool.submit(_play_light, kind, play, seeds[at : at + BATCH]) for at in range(0, len(seeds), BATCH)]
        for part in as_completed(parts):
            before = len(reports)
            reports += part.result()
            if len(reports) * 20 // len(seeds) > before * 20 // len(seeds):
                broken = sum(1 for report in reports if report.broken)
                console.print(f"  {len(reports):>6,} runs, {time.monotonic() - begun:5.0f} s, {broken} broke a promise")
    console.print(light_table(kind, reports, time.monotonic() - begun))
    return sorted((report for report in reports if report.broken), key=lambda report: report.seed)


def _prepare() -> None:
    """In each process that plays light seeds: nothing is logged, and no garbage is sought in what is loaded."""
    logging.disable(logging.CRITICAL)
    gc.collect()
    gc.freeze()


def _play_light(kind: str, play: Play, seeds: range) -> list[Report]:
    return [_play_one_light(kind, play, seed) for seed in seeds]


def _play_one_light(kind: str, play: Play, seed: int) -> Report:
    begun = time.monotonic()
    try:
        made = play(seed)
    except Exception:  # noqa: BLE001 - a run that cannot even be judged is a finding, too
        return Report(kind, seed, broken=_last_words())
    harm = Counter(_kind_of(words) for words in made.harm)
    report = Report(kind, seed, harm=harm, events=len(made.sent), workers=len(made.world.runs))
    report.seconds = time.monotonic() - begun
    try:
        JUDGES[kind](made)
    except AssertionError as error:
        report.broken = f"{error}\nharm: {made.harm}"
    return report


def _kind_of(harm: str) -> str:
    """`3.1 kill -9 r0 2.0` and `3.1 kill -9 for 2 s at step 7, renew r0` are of the same kind."""
    return harm.split(" ", 1)[1].partition(" for ")[0].rsplit(" r", 1)[0]


def _last_words() -> str:
    """The end of the traceback at hand."""
    return "\n".join(traceback.format_exc().splitlines()[-8:])


# -- heavy


def _heavy(seeds: range, *, keep: bool) -> list[Report]:
    """All heavy seeds, two at a time."""
    console.print(f"heavy: seeds {seeds.start} to {seeds.stop - 1}")
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    reports: list[Report] = []
    trio.run(_play_heavy, iter(seeds), folder, reports, keep)
    reports.sort(key=lambda report: report.seed)
    console.print(heavy_table(reports))
    if not any(folder.iterdir()):
        folder.rmdir()
    return [report for report in reports if report.broken]


async def _play_heavy(seeds: Iterator[int], folder: Path, reports: list[Report], keep: bool) -> None:
    async def play_some() -> None:
        for seed in seeds:
            report = await _play_one_heavy(seed, folder / str(seed))
            reports.append(report)
            console.print(f"  {report.in_words()}", markup=False, soft_wrap=True)
            if report.broken:
                console.print(f"         {report.broken[:300]}", style="red", markup=False, soft_wrap=True)
            if not report.broken and not keep:
                shutil.rmtree(folder / str(seed), ignore_errors=True)

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(play_some)


async def _play_one_heavy(seed: int, folder: Path) -> Report:
    folder.mkdir()
    try:
        made = await heavy.run(seed, folder)
    except Exception:  # noqa: BLE001 - a run that cannot even be judged is a finding, too
        return Report("heavy", seed, broken=_last_words(), folder=str(folder))
    started = sum(1 for _, what, *_ in made.journal if what == "start")
    report = Report("heavy", seed, harm=made.harm, events=len(made.sent), workers=started)
    report.replicas, report.seconds, report.longest_wait = made.script.replicas, made.seconds, made.longest_wait
    try:
        verdict.judge(made)
    except AssertionError as error:
        report.broken, report.folder = str(error), str(folder)
    return report


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets are walked in the same order, so that a seed plays the same
        os.execve(
            sys.executable, [sys.executable, "-m", "tests.chaos", *sys.argv[1:]], os.environ | {"PYTHONHASHSEED": "0"}
        )
    sys.exit(main())
