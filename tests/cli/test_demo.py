"""`demo`: what is shown of it, and the whole of it as a user runs it."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ottoscaler.cli.demo_view import LiveView, PlainView, Trails
from ottoscaler.pods import PodRecord

LONG_DEMO = """
import json
from ottoscaler.cli import demo, main
demo.SETTINGS.update(WORKER_ARGS=json.dumps(["sleep 60"]), DRAIN_SECONDS="60")
raise SystemExit(main(["demo"]))
"""


def record(**facts: object) -> PodRecord:
    """A worker's record with some facts."""
    return PodRecord(name="otto-agent-1-5-0", uid="u1", task_id="tests", **facts)  # type: ignore[arg-type]  # facts fit


LIFE = (
    record(phase="Pending"),
    record(phase="Pending", node="n"),
    record(phase="Running"),
    record(phase="Failed", term_reason="Error", exit_code=3),
    record(phase="Failed", term_reason="Error", exit_code=3, gone=True),
)


def test_a_pod_s_trail_has_each_state_once() -> None:
    """What changes without a new state is no news."""
    trails = Trails()
    assert [trails.note(each) for each in LIFE] == [True, False, True, True, True]
    assert trails.states == {"otto-agent-1-5-0": ["Pending", "Running", "Error", "Deleted"]}


def test_plain_lines_tell_each_new_state(capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is no terminal each step and each state is one line with its time."""
    view = PlainView()
    view.say("begin")
    for each in LIFE:
        view.pod(each)
    shown = re.sub(r"\d+\.\d s", "T", capsys.readouterr().out)
    assert [line.strip() for line in shown.splitlines()] == [
        "T  begin",
        "T    tests    otto-agent-1-5-0  Pending",
        "T    tests    otto-agent-1-5-0  Running",
        "T    tests    otto-agent-1-5-0  Error (exit code 3)",
        "T    tests    otto-agent-1-5-0  Deleted",
    ]


def test_the_table_has_one_row_per_pod() -> None:
    """On a terminal a pod is one row with its exit code and its trail, of whose passing states only the last shows."""
    view = LiveView()
    view.pod(LIFE[0])
    assert list(view.table().columns[2].cells) == ["Pending"]
    for each in LIFE:
        view.pod(each)
    table = view.table()
    assert [list(column.cells) for column in table.columns] == [
        ["tests"],
        ["otto-agent-1-5-0"],
        ["[cyan]Running[/] → [red]Error[/] → [dim]Deleted[/]"],
        ["3"],
    ]


@pytest.mark.slow_clock
@pytest.mark.process
def test_the_demo_shows_three_events_and_leaves_nothing(tmp_path: Path) -> None:
    """The demo succeeds, tells the results of its three events, and leaves no file."""
    done = subprocess.run(
        [sys.executable, "-m", "ottoscaler", "demo"],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path), "REDIS_URL": "redis://production.invalid"},
        timeout=170,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for words in (
        "partial: 1 succeeded, 2 terminated of 3",
        "partial: 4 succeeded, 1 failed of 5",
        "succeeded: 2 terminated of 2",
        "ExitCode",
        "the scaler ended with exit code 0",
        "nothing is left: no pod, no process, no file",
    ):
        assert words in done.stdout
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow_clock
@pytest.mark.process
def test_ctrl_c_ends_the_demo_at_once(tmp_path: Path) -> None:
    """While workers run Ctrl-C waits for none of them: everything is gone soon, with exit code 130 and no traceback."""
    process = subprocess.Popen(
        [sys.executable, "-c", LONG_DEMO],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    next(line for line in process.stdout if "Running" in line)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)  # half of what its workers sleep, and the drain would wait
    assert "ending the scaler" in stdout
    assert (process.returncode, stderr) == (130, "")
    assert list(tmp_path.iterdir()) == []
