"""Who judges the lines must be able to say no."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.chaos.lines import broken_logs
from tests.chaos.script import Script
from tests.chaos.stage import Run

POD = "otto-agent-1-7-0-c2f9e6"
TOLD = {"event_id": "7-0", "index": "1", "attempt": "1"}
CREATED, RUNNING, COMPLETED = ((0.0, POD, "state", "", word, TOLD) for word in ("CREATED", "RUNNING", "COMPLETED"))


def line(number: int) -> Any:
    """As the handler keeps it; stamps follow the numbers."""
    return (0.0, POD, str(number), f"2026-01-01T00:00:{number:02}Z", f"line {number}", {})


def gap(begin: int, end: int) -> Any:
    """What tells of lines that did not come, between the stamps of two numbers."""
    stamps = {"from": f"2026-01-01T00:00:{begin:02}Z", "to": f"2026-01-01T00:00:{end:02}Z"}
    return (0.0, POD, "", "", "lines are missing", {"gap": "LogRotated", **stamps})


def run_with(folder: Path, *rows: Any, printed: int = 4) -> Run:
    """A run of one worker that printed so many lines."""
    (folder / "taken").write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    (folder / "printed").write_text(f"2 7-0 1 1\n{printed} 7-0 1 1\n")
    return Run(Script(0, 1, {}, (), (), has_logs=True), folder)


def test_a_log_that_its_event_s_result_names_needs_no_gap(tmp_path: Path) -> None:
    """The gap may have found no handler before its scaler ended."""
    run = run_with(tmp_path, CREATED)
    assert broken_logs(run) != []
    run.results.append((0.0, {"log_gaps": f'[{{"worker": "{POD}", "from": "", "why": "GraceOver"}}]'}))
    assert broken_logs(run) == []


LINES = [line(number) for number in range(1, 5)]


@pytest.mark.parametrize(
    "rows",
    [
        [CREATED, RUNNING, *LINES, COMPLETED],
        [CREATED, *LINES[:2], CREATED, RUNNING, *LINES[1:], COMPLETED, COMPLETED],
        [CREATED, LINES[0], LINES[3], gap(1, 4), COMPLETED],
        [CREATED, RUNNING, COMPLETED, gap(0, 9)],
    ],
)
def test_what_is_promised_is_let_through(tmp_path: Path, rows: list[Any]) -> None:
    """Every line, some of them twice; or a gap where they are missing."""
    assert broken_logs(run_with(tmp_path, *rows)) == []


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([CREATED, *LINES[:3], COMPLETED], "1 of 4 lines missing from 4 on"),
        ([CREATED, LINES[0], *LINES[2:], COMPLETED], "1 of 4 lines missing from 2 on"),
        ([CREATED, *LINES[:2], gap(0, 1), LINES[3], gap(5, 9)], "1 of 4 lines missing from 3 on"),
        ([CREATED, LINES[1], LINES[0], *LINES[2:]], "out of order"),
        ([RUNNING, CREATED, *LINES], "was told of as"),
        ([], "4 of 4 lines missing"),
    ],
)
def test_what_is_broken_is_found(tmp_path: Path, rows: list[Any], words: str) -> None:
    """A line that is missing without a gap, lines or states out of order, a worker that nobody heard of."""
    (complaint,) = broken_logs(run_with(tmp_path, *rows))
    assert words in complaint
