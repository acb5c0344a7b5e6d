"""Rolling restarts under load, as a Deployment makes them: what the benchmark measures, in short."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import rollout
from tests.process.bench import Bench
from tests.process.together import together

SHORT = rollout.Parameters(
    seconds=2.5, worker_seconds=1.6, drain_seconds=0.8, pause_seconds=0.2, least_restarts=3, workers_per_event=1
)
NOISE_SECONDS = 2.0
"""Tests that run beside this one take the processors away."""

PROMISES = (
    "events without exactly one result",
    "events that did not succeed",
    "dead letters",
    "workers that did not run exactly once",
    "pods deleted before their end",
    "replicas that did not exit with 0",
)


@together
@pytest.mark.parametrize("replicas", [2, 1])
async def test_rolling_restarts_harm_nothing(bench: Bench, replicas: int) -> None:
    """Under load, with one replica as with two: every event ends once and well, each worker runs once, no pod is
    deleted before its end, every replica exits with 0, and events wait hardly longer.
    """
    result = await rollout.run(lambda words: None, replace(SHORT, replicas=(replicas,)))
    figures = {figure.name.partition(": ")[2]: figure for figure in result.figures}
    assert figures["restarts"].value >= 3
    assert figures["events beside them"].value >= 12
    assert {name: figure.value for name, figure in figures.items() if figure.aim == 0} == dict.fromkeys(PROMISES, 0)
    assert figures["p99 longer by restarts"].value < rollout.AIM_SECONDS + NOISE_SECONDS
