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
    deleted before its end, and every replica exits with 0.

    How much longer events wait is for the benchmark to say.
    """
    result = await rollout.run(lambda words: None, replace(SHORT, replicas=(replicas,)))
    figures = {figure.name.partition(": ")[2]: figure for figure in result.figures}
    assert figures["restarts"].value >= 3
    assert figures["events beside them"].value >= 12
    assert {name: figure.value for name, figure in figures.items() if figure.aim == 0} == dict.fromkeys(PROMISES, 0)
