"""`ottoscaler results`: what became of events, as a table or as one JSON object per line."""

import argparse
import json
import sys
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ottoscaler.cli.columns import Columns
from ottoscaler.cli.flags import REDIS, add_setting_flags, settings_from

if TYPE_CHECKING:
    from ottoscaler.stream.base import Stream

Show = Callable[[str], None]
Result = tuple[str, Mapping[str, str]]
HEADER = ("EVENT", "TYPE", "TASK", "STATUS", "REQUESTED", "SUCCEEDED", "FAILED", "TERMINATED", "COMPLETED")
NUMBERS = ("requested", "succeeded", "failed", "terminated")
NESTED = ("workers", "stages", "not_created")
PAGE = 200
AWAY_SECONDS = 1.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("-w", "--watch", action="store_true", help="go on with each new result, until Ctrl-C")
    parser.add_argument("-o", "--output", choices=["json"], help="one JSON object per line, with every worker")
    parser.add_argument("--last", type=_count, default=20, metavar="COUNT", help="how many to begin with (default: 20)")
    add_setting_flags(parser, REDIS)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 0")
    return min(int(text), 2**31)  # more than any stream of results keeps


def run(args: argparse.Namespace) -> int:
    """List, and with --watch go on until a signal."""
    import trio

    from ottoscaler.cli.reach import open_stream_of

    settings = settings_from(args)

    async def main() -> None:
        async with open_stream_of(settings) as stream:
            await list_results(stream, args.last, rows_as(args.output), is_watched=args.watch)

    trio.run(main)
    return 0


def rows_as(output: str | None, show: Show = lambda line: print(line, flush=True)) -> Callable[[list[Result]], None]:
    """A function that shows some results, in the form asked for."""
    columns = Columns(HEADER)

    def as_table(results: list[Result]) -> None:
        for line in columns.lines([row(fields) for _, fields in results]):
            show(line)

    def as_json(results: list[Result]) -> None:
        for _, fields in results:
            show(json.dumps(decoded(fields), ensure_ascii=False))

    return as_json if output == "json" else as_table


async def list_results(
    stream: "Stream", last: int, show_rows: Callable[[list[Result]], None], *, is_watched: bool
) -> None:
    """Show the last results, and with `is_watched` each new one as it comes, for ever, over outages of Redis, too."""
    import trio

    from ottoscaler.errors import Unavailable

    newest: deque[Result] = deque(maxlen=max(last, 0))
    after = "0"
    while page := await stream.read_entries("results", after, PAGE, 0):
        after = page[-1][0]
        newest.extend(page)
    show_rows(list(newest))
    is_away = False
    while is_watched:
        try:
            page = await stream.read_entries("results", after, PAGE, 1)
        except Unavailable as error:  # it comes back, or somebody presses Ctrl-C
            if not is_away:
                print(f"ottoscaler: {error}", file=sys.stderr, flush=True)
            is_away = True
            await trio.sleep(AWAY_SECONDS)
            continue
        is_away = False
        if page:
            after = page[-1][0]
            show_rows(list(page))


def row(fields: Mapping[str, str]) -> list[str]:
    """One result as the cells of the table; of a newer version's only what names it."""
    from ottoscaler.outcomes import newer_version

    if version := newer_version(fields):
        named = [fields.get(name, "") for name in ("event_id", "type", "task_id")]
        return [*named, f"written by a newer version ({version})", *[""] * (len(NUMBERS) + 1)]
    names = ("event_id", "type", "task_id", "status", *NUMBERS, "completed_at")
    return [fields.get(name, "") for name in names]


def decoded(fields: Mapping[str, str]) -> dict[str, Any]:
    """One result with its numbers as numbers, and its workers, stages and the like as lists; a newer version's as it is
    written.
    """
    from ottoscaler.outcomes import newer_version

    if newer_version(fields):
        return dict(fields)
    found: dict[str, Any] = dict(fields)
    found |= {name: int(fields[name]) for name in NUMBERS if fields.get(name, "").isdecimal()}
    found |= {name: json.loads(fields[name]) for name in NESTED if fields.get(name)}
    return {"workers": [], **found}


def summary(result: Mapping[str, Any]) -> str:
    """A decoded result in half a line: `partial: 4 succeeded, 1 failed of 5`."""
    counts = ", ".join(f"{result[name]} {name}" for name in NUMBERS[1:] if result[name])
    return f"{result['status']}: {counts or 'none'} of {result['requested']}"
