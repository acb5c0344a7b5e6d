"""Worker logs in heavy chaos: workers that count their lines, an otto-handler that is killed, and who judges what came.

A worker writes down how many lines it has printed after it printed them, so that is the least that must arrive. What is
missing of it must be covered by a gap, or named in the event's result: silence is never passed off as completeness.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec

from tests.logs.lossless import Row, is_covered
from tests.stream.servers import DIE_WITH_PARENT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chaos.stage import Run

BURST = 20
PRINTING = f"""
say() {{
  n=0; while [ $n -lt {BURST} ]; do n=$((n + 1)); total=$((total + 1)); echo "line $total"; done
  echo "$total $who" >> {{printed}}
}}
rest() {{ for part in 1 2 3 4; do say; sleep $(awk "BEGIN {{ print $1 / 4 }}"); done; say; }}
total=0
"""
"""Shell functions of a worker: `rest SECONDS` takes so long and prints in between."""
NUMBER = re.compile(r"line (\d+)")
NAME = re.compile(r"otto-agent-(\d+)-(\d+-\d+)-[0-9a-f]+(?:-r(\d+))?")
ENDS = ("COMPLETED", "FAILED", "TERMINATED")
ORDER = {"CREATED": 0, "RUNNING": 1} | dict.fromkeys(ENDS, 2)

Attempt = tuple[str, int, int]  # event, index, attempt


def start_handler(port: int, folder: Path) -> subprocess.Popen[bytes]:
    """An otto-handler that keeps what it takes in `folder`/taken; one that was there before has ended."""
    command = [*DIE_WITH_PARENT, sys.executable, "-m", "tests.logs.taking", str(port), str(folder / "taken")]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def is_read(folder: Path, name: str) -> bool:
    """Whether a line of a pod has come."""
    return any(name.encode() in line and b'"line ' in line for line in (folder / "taken").read_bytes().splitlines())


def broken_logs(run: Run) -> list[str]:
    """What came wrong, in words; for a run without logs nothing.

    A process that was frozen may tell a former state when it wakes: the call was under way already.
    """
    if not run.script.has_logs:
        return []
    rows = _read(run.folder / "taken")
    stripped = {attempt_of(name) for name in run.stripped}
    excused = _given_up(run) | stripped | {attempt for attempt, count in run.unseen.items() if count}
    broken = [] if run.harm["SIGSTOP"] else [words for name, some in rows.items() if (words := _misordered(name, some))]
    by_attempt = {attempt_of(name): some for name, some in rows.items()}
    for attempt, count in _printed(run.folder / "printed").items():
        if attempt not in excused and attempt[0] not in run.exempt:
            broken += _missing(attempt, by_attempt.get(attempt, []), count)
    return broken


def attempt_of(name: str) -> Attempt:
    """Whose pod this is."""
    found = NAME.fullmatch(name)
    assert found is not None, name
    return found[2], int(found[1]), int(found[3] or 1)


def _given_up(run: Run) -> set[Attempt]:
    """Attempts of which the event's result says that not all was taken: their gap may have found no handler."""
    found = (fields.get("log_gaps") or "[]" for _, fields in run.results)
    return {attempt_of(gap["worker"]) for gaps in found for gap in msgspec.json.decode(gaps)}


def _read(path: Path) -> defaultdict[str, list[Row]]:
    by_worker: defaultdict[str, list[Row]] = defaultdict(list)
    for line in path.read_bytes().splitlines():
        row = msgspec.json.decode(line, type=Row)
        by_worker[row.worker].append(row)
    return by_worker


def _printed(path: Path) -> dict[Attempt, int]:
    """How many lines each attempt has printed at least."""
    most: dict[Attempt, int] = {}
    for line in path.read_text().splitlines():
        total, event, index, attempt = line.split()
        most[event, int(index), int(attempt)] = int(total)
    return most


def _misordered(name: str, rows: list[Row]) -> str:
    """Told again is in order; a state that was never told before an earlier one of its worker is not."""
    told = [row.message for row in rows if row.number == "state"]
    first = list(dict.fromkeys(told))
    is_ordered = [ORDER[state] for state in first] == sorted(ORDER[state] for state in first)
    ends = [state for state in first if state in ENDS]
    return "" if is_ordered and len(ends) <= 1 else f"{name} was told of as {told}"


def _missing(attempt: Attempt, rows: list[Row], count: int) -> list[str]:
    first: dict[int, Row] = {}
    for row in rows:
        if (found := NUMBER.fullmatch(row.message)) is not None:
            first.setdefault(int(found[1]), row)
    gaps = [row for row in rows if "gap" in row.facts]
    lost = [number for number in range(1, count + 1) if number not in first and not is_covered(number, first, gaps)]
    words = [f"{attempt}: {len(lost)} of {count} lines missing from {lost[0]} on, and no gap says so"] if lost else []
    return words + ([f"{attempt}: lines out of order"] if list(first) != sorted(first) else [])
