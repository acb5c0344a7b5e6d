"""`ottoscaler explain`: what a cause means, how it looks, what happens, and what to do."""

import argparse
import difflib
from collections.abc import Callable

from ottoscaler.causes import CAUSES, CLASSES, Cause
from ottoscaler.cli.columns import Columns
from ottoscaler.errors import FixYourCall
from ottoscaler.refusals import REFUSALS

HEADER = ("CAUSE", "CLASS", "MEANING")
NAMES = (*CAUSES, *REFUSALS)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the argument."""
    # no choices: a wrong cause is answered with a suggestion
    parser.add_argument("cause", nargs="?", metavar="CAUSE", help="one cause, such as OutOfMemory; without it, all")


def run(args: argparse.Namespace, show: Callable[[str], None] = print) -> int:
    """Print one cause, or the table of all."""
    for line in explain(args.cause) if args.cause else list_causes():
        show(line)
    return 0


def list_causes() -> list[str]:
    """All causes in columns, with their class."""
    return Columns(HEADER).lines((cause.name, cause.kind, cause.meaning) for cause in CAUSES.values())


def explain(given: str) -> list[str]:
    """One cause in lines; `given` in any case. Raises `FixYourCall`, which names all and suggests one."""
    cause = next((known for known in CAUSES.values() if known.name.lower() == given.lower()), None)
    if cause is None:
        if (refusal := next((name for name in REFUSALS if name.lower() == given.lower()), None)) is not None:
            return [
                f"{refusal} (dead letter): why an event was refused; the reason: ottoscaler dlq list --cause {refusal}"
            ]
        raise FixYourCall(f"CAUSE is {given!r}, expected one of {', '.join(NAMES)}{_suggest(given)}")
    return [f"{cause.name} ({cause.kind})", *(f"  {title:13}{words}" for title, words in _parts(cause))]


def _suggest(given: str) -> str:
    folded = {name.lower(): name for name in NAMES}
    close = difflib.get_close_matches(given.lower(), folded, n=1)
    return f"; did you mean {folded[close[0]]}?" if close else ""


def _parts(cause: Cause) -> tuple[tuple[str, str], ...]:
    return (
        ("meaning", cause.meaning),
        ("looks", cause.looks),
        ("what happens", CLASSES[cause.kind]),
        ("what to do", cause.advice),
    )
