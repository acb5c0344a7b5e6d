"""`python -m benchmarks [NAME...] [--quick]`: run them, one after the other, print their figures, and write them."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio
from rich.console import Console
from rich.status import Status

from benchmarks import (
    adoption,
    calls,
    cost,
    handover,
    holding,
    idle,
    large_event,
    latency,
    leaving,
    logs,
    loud,
    replicas,
    rollout,
    scale_up,
    takeover,
    throughput,
)
from benchmarks.figures import Result, Show
from benchmarks.report import print_result, write_result
from ottoscaler.cli.running import run_until_signal

BENCHMARKS = {
    "latency": latency,
    "throughput": throughput,
    "cost": cost,
    "idle": idle,
    "holding": holding,
    "large_event": large_event,
    "adoption": adoption,
    "leaving": leaving,
    "takeover": takeover,
    "handover": handover,
    "replicas": replicas,
    "rollout": rollout,
    "scale_up": scale_up,
    "calls": calls,
    "logs": logs,
    "loud": loud,
}
FOLDER = Path("build/bench")


def main() -> int:
    """Exit code 0 when all were measured, whether or not their aims are reached; 1 when one broke."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones: {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="smaller and shorter, for a first look")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the JSON files go (default: %(default)s)")
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in BENCHMARKS]:
        parser.error(f"{unknown[0]!r}: expected one of {', '.join(BENCHMARKS)}")
    return trio.run(run_until_signal, partial(_run_all, args))


async def _run_all(args: argparse.Namespace, _: trio.Nursery) -> int:
    console, code = Console(), 0
    for name in args.names or BENCHMARKS:
        module: Any = BENCHMARKS[name]
        parameters = module.QUICK if args.quick else module.FULL
        try:
            result = await measure(console, name, partial(module.run, parameters=parameters))
            print_result(console, name, result)
            console.print(f"  written to {write_result(args.folder, name, result)}", style="dim")
        except* Exception:  # noqa: BLE001 - the other benchmarks can still be run
            console.print(f"{name} broke:", traceback.format_exc(), markup=False)
            code = 1
    return code


async def measure(console: Console, name: str, run: Callable[[Show], Awaitable[Result]]) -> Result:
    """Run one benchmark beside a line that tells how far it is; without a terminal the line is printed now and then."""
    begun = time.monotonic()
    if not console.is_terminal:
        return await run(lambda words: console.print(f"{name}: {words}"))
    with Status(name, console=console) as status:
        return await run(lambda words: status.update(f"{name}: {words} ({time.monotonic() - begun:.0f} s)"))


if __name__ == "__main__":
    sys.exit(main())
