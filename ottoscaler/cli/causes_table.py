"""`python -m ottoscaler.cli.causes_table`: write the table of causes, docs/failures.md."""

from itertools import groupby
from pathlib import Path

from ottoscaler.causes import CAUSES, CLASSES, Cause

ROOT = Path(__file__).parents[2]
INTRODUCTION = """# Failures

Every worker that did not succeed has one of these causes, the same word in log, result and command line
(`ottoscaler explain CAUSE` prints its lines). The class of a cause decides what happens. `RETRY_POLICY`, a JSON object
such as `{"OutOfMemory": "final", "ExitCode": "platform"}`, moves causes of failure to the classes own, platform or
final; one that may pass and is moved to final ends the worker at once. LivenessFailed and MountFailed are told by
the warnings of pods, for which the Role allows list and watch of events; without it the one is Killed and the other
waits until its time is over. This page is made by `python -m ottoscaler.cli.causes_table`.
"""
TITLES = {
    "own": "Own fault (own)",
    "platform": "The platform's fault (platform)",
    "passing": "May pass (passing)",
    "refused": "Refused for now (refused)",
    "final": "Final (final)",
    "none": "No failure (none)",
    "report": "Reports (report)",
}
HEADER = "| cause | what it means | how it looks | what to do |\n|---|---|---|---|\n"


def causes_table() -> str:
    """The whole of docs/failures.md."""
    parts = [INTRODUCTION]
    for kind, causes in groupby(CAUSES.values(), key=lambda cause: cause.kind):
        parts.append(f"\n## {TITLES[kind]}\n\n{CLASSES[kind]}\n\n{HEADER}" + "".join(map(_row, causes)))
    return "".join(parts)


def _row(cause: Cause) -> str:
    cells = (f"`{cause.name}`", cause.meaning, cause.looks, cause.advice)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    (ROOT / "docs" / "failures.md").write_text(causes_table())
