"""The benchmarks: they run, and write what they found."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import cast

import msgspec
import pytest
import trio

from benchmarks import cost, scale_up, takeover
from benchmarks.figures import Figure, median_figures, percentile
from benchmarks.forwarding import Handler
from benchmarks.meter import Usage
from benchmarks.observed_cluster import what_happened
from benchmarks.records import Records
from benchmarks.report import shown, write_result
from benchmarks.scale_up import Asked
from ottoscaler.cli.programs import Program
from ottoscaler.localcluster.store import Change, Published

ROOT = Path(__file__).parent.parent


@pytest.mark.slow_clock
@pytest.mark.process
async def test_a_benchmark_counts_what_a_pod_costs_and_writes_it_down(tmp_path: Path) -> None:
    """The file has every figure beside its aim, of a real run, and says where it was made."""
    parameters = cost.Parameters(
        rounds=1, large_events=1, large_workers=12, small_events=2, small_workers=2, worker_seconds=0.1
    )
    told: list[str] = []
    result = await cost.run(told.append, parameters)
    written = msgspec.json.decode(write_result(tmp_path, "cost", result).read_bytes())
    figures = {figure["name"]: figure for figure in written["figures"]}
    assert figures["writes per pod, events of 2"]["value"] == 2.0
    assert figures["writes per pod, events of 12"]["value"] == pytest.approx(13 / 12)
    assert figures["GETs per pod, events of 12"] | {"value": 0} == figures["GETs per pod, events of 12"]
    assert figures["GETs per pod, events of 12"]["is_met"] is True
    assert figures["CPU per pod, events of 2"]["value"] > 0
    assert written["parameters"]["large_workers"] == 12
    assert written["machine"]["cpus"] >= 1
    assert {"cpu_model", "python", "load_of_the_last_minute"} <= set(written["machine"])
    assert told == ["round 1 of 1"]


@pytest.mark.slow_clock
@pytest.mark.process
async def test_a_killed_replica_s_event_is_seen_to_change_hands() -> None:
    """The measured time is about a lease, for the lease must run out first, and no pod was created twice."""
    result = await takeover.run(lambda words: None, takeover.Parameters(kills=1, lease_seconds=1.0, workers=1))
    figures = {figure.name: figure for figure in result.figures}
    assert 0.5 < figures["kill to a new owner, p50"].value < 20
    assert figures["kill to a new owner, p99"].aim == 1.5
    assert figures["pods created again"].value == 0


async def test_the_command_refuses_a_benchmark_that_it_does_not_know() -> None:
    """A wrong name is an error that says what is expected, before anything is started."""
    command = [sys.executable, "-m", "benchmarks", "speed"]
    done = await trio.run_process(command, capture_stderr=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert b"'speed': expected one of latency, throughput" in done.stderr


def test_percentiles_are_values_that_were_measured() -> None:
    """The nearest rank: p50 of four is the second, p99 the last."""
    assert (percentile([4, 1, 3, 2], 50), percentile([4, 1, 3, 2], 99)) == (2, 4)


def test_rounds_become_medians() -> None:
    """Each figure's median over the rounds, its aim kept."""
    rounds = [[Figure("rate", value, "pods/s", 200, more_is_better=True)] for value in (100.0, 250.0, 900.0)]
    (figure,) = median_figures(rounds)
    assert (figure.value, figure.aim, figure.is_met) == (250.0, 200, True)


def test_any_of_several_scalers_may_be_the_limit() -> None:
    """One busy replica among idle ones is named as the limit."""
    usage = Usage(seconds=10, cpu={"serve": 1, "serve 2": 9.5, "cluster": 2}, machine=13, cpus=2)
    assert usage.limit() == "The scaler was at its limit."


def test_what_could_not_be_measured_is_a_dash() -> None:
    """Nothing to measure is shown as such, never as a number."""
    assert [shown(value) for value in (math.nan, 1234.5, 0.1234, 3.0)] == ["–", "1,234", "0.123", "3"]


def test_lines_a_second_are_counted_from_the_first_note_to_the_last(tmp_path: Path) -> None:
    """A note that is not whole yet is left out, and of one note alone there is no rate."""
    records = tmp_path / "lines"
    handler = Handler(program=cast("Program", None), records=records)
    records.write_text("10.0 5\n")
    assert (handler.lines(), math.isnan(handler.rate())) == (5, True)
    records.write_text("10.0 5\n12.0 205\n12.1 3")
    assert (handler.lines(), handler.rate()) == (205, 100)


def test_an_event_is_accepted_with_its_last_post(tmp_path: Path) -> None:
    """Calls and events are judged alike, by the POSTs of their own pods; what lacks one is not counted as fast."""
    records = Records(tmp_path / "records")
    records.created = {"a1": 1.01, "a2": 1.03, "b1": 2.005}
    asked = Asked(calls=[(1.0, ["a1", "a2"])], events=[(2.0, ["b1"]), (3.0, ["c1"])], answered=[40.0])
    figures = {figure.name: figure.value for figure in scale_up.figures_of(records, asked)}
    assert figures["ScaleUp to accepted, p50"] == pytest.approx(30)
    assert figures["XADD to accepted, p99"] == pytest.approx(5)
    assert figures["events without all of their POSTs"] == 1


def pod(state: str, phase: str = "Running", **metadata: str) -> Published:
    """A pod of one container."""
    status = {"phase": phase, "containerStatuses": [{"state": {state: {}}}]}
    return Published({"metadata": {"name": "a", **metadata}, "status": status})


def test_a_pod_is_killed_where_its_container_had_not_ended() -> None:
    """The end counts that the container tells, not the phase that comes a second later; and a kill counts once."""
    running, ended = pod("running"), pod("terminated")
    dying = pod("running", deletionTimestamp="now")
    steps = [
        Change("MODIFIED", running, pod("waiting", "Pending"), 1),
        Change("MODIFIED", dying, running, 2),
        Change("DELETED", pod("terminated", deletionTimestamp="now"), dying, 3),
        Change("MODIFIED", pod("terminated", deletionTimestamp="now"), ended, 4),
        Change("DELETED", running, running, 5),
        Change("MODIFIED", ended, running, 6),
    ]
    assert [what_happened(step) for step in steps] == ["running", "killed", "", "", "killed", ""]
