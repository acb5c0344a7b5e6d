"""Short heavy chaos in the suite; `tests/chaos/heavy.py` says what is done, `verdict.py` what is judged."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.chaos.heavy import run
from tests.chaos.script import write_script
from tests.chaos.stage import Run
from tests.chaos.verdict import judge

SEEDS = (7, 8)
"""The first has calls and a pipeline, both have logs."""


@pytest.mark.process
@pytest.mark.slow_clock
@pytest.mark.timeout(300)
async def test_every_promise_holds_under_harm_to_real_processes(tmp_path: Path) -> None:
    """Real replicas, Valkey and API under seeded harm: every event ends once, no worker runs twice, nothing is left."""
    runs: list[Run] = []

    async def play(seed: int) -> None:
        folder = tmp_path / str(seed)
        folder.mkdir()
        runs.append(await run(seed, folder, seconds=2.0))

    async with trio.open_nursery() as nursery:
        for seed in SEEDS:
            nursery.start_soon(play, seed)
    for made in runs:
        try:
            judge(made)
        except AssertionError as broken:
            broken.add_note(f"seed {made.script.seed}, harm {made.script.harms}")
            raise


def test_a_seed_gives_the_same_script_again() -> None:
    """Events, harm and settings are a function of the seed."""
    assert write_script(7) == write_script(7)
    assert write_script(7) != write_script(8)
