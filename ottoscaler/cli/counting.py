"""How far a long command is: a bar on a terminal, else one line for every thousand, both on stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

EACH = 1000
Count = Callable[[int], None]


@contextmanager
def counting(verb: str, total: int, to: TextIO | None = None) -> Iterator[Count]:
    """A function that is told how many more are done; `verb` as in `replayed`."""
    out = to or sys.stderr
    if total < EACH:
        yield lambda _: None
    elif out.isatty():
        with _bar(verb, total, out) as count:
            yield count
    else:
        yield _lines(verb, total, out)


def _lines(verb: str, total: int, out: TextIO) -> Count:
    done = 0

    def count(more: int) -> None:
        nonlocal done
        for reached in range(done // EACH + 1, (done + more) // EACH + 1):
            print(f"{verb} {reached * EACH} of {total}", file=out, flush=True)
        done += more

    return count


@contextmanager
def _bar(verb: str, total: int, out: TextIO) -> Iterator[Count]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=out), transient=True) as progress:
        task = progress.add_task(verb, total=total)
        yield lambda more: progress.advance(task, more)
