"""`make logs-proof`: a million lines while everything is killed, cut and rotated, and what came of it."""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

import trio

from tests.logs.lossless import Plan, prove


def main() -> int:
    """Run the proof; 1 where it does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000, help="of all workers together")
    parser.add_argument("--workers", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bursts", type=int, default=100)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between the bursts of a worker")
    parser.add_argument(
        "--harms", type=int, default=4, help="kills and drains of the scaler, kills of the handler, cuts, rotations"
    )
    parser.add_argument("--folder", type=Path, help="where everything is kept; else a folder that is removed")
    args = parser.parse_args()
    plan = Plan(
        args.seed,
        workers=args.workers,
        bursts=args.bursts,
        burst=max(1, args.lines // args.workers // args.bursts),
        pause=args.pause,
        scaler_kills=args.harms,
        scaler_drains=args.harms,
        handler_kills=args.harms,
        cuts=args.harms,
        rotations=args.harms,
        seconds=1800,
    )
    with tempfile.TemporaryDirectory(prefix="logs-") as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        verdict = trio.run(partial(prove, plan, folder, print))
    print(verdict)
    for complaint in verdict.complaints[:20]:
        print(complaint)
    return bool(verdict.complaints)


if __name__ == "__main__":
    sys.exit(main())
