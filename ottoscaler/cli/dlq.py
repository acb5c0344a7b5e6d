"""`ottoscaler dlq`: the dead letters, which are events that were refused: listed, replayed, dropped, saved."""

import argparse
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from ottoscaler.cli.columns import Columns, shown
from ottoscaler.cli.dlq_changes import (
    NotReplayed,
    drop_many,
    letters,
    not_replayed,
    persistent,
    replay_many,
    restore_many,
)
from ottoscaler.cli.dlq_files import lines_of, written
from ottoscaler.cli.flags import REDIS, add_setting_flags, settings_from
from ottoscaler.cli.letters import Found, check_cause, find_letter, read_letters, shown_entry
from ottoscaler.cli.letters_json import from_lines, to_json
from ottoscaler.errors import FixYourCall, OttoscalerError

if TYPE_CHECKING:
    from ottoscaler.stream.base import Stream

HEADER = ("ID", "EVENT", "CAUSE", "DELIVERIES", "FAILED", "REASON")
CELLS = ("event_id", "cause", "deliveries", "failed_at", "reason")


class NoSuchLetter(OttoscalerError):
    """There is no dead letter of that id."""


class NotAsked(FixYourCall):
    """Nobody can be asked whether all are meant."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", dest="action", required=True)

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        description = summary[0].upper() + summary[1:] + "."
        return actions.add_parser(name, help=summary, description=description, allow_abbrev=False)

    listing = add("list", "list the dead letters, oldest first")
    listing.add_argument("--cause", default="", metavar="CAUSE", help="only those of this cause")
    showing = add("show", "show one dead letter with its original entry")
    showing.add_argument("id", metavar="ID", help="the id of the dead letter, or of its event")
    for action in (listing, showing):
        action.add_argument("-o", "--output", choices=["json"], help="one JSON object per line, as export writes it")
    replaying = add("replay", "turn dead letters into events again")
    dropping = add("drop", "remove dead letters for good")
    for action in (replaying, dropping):
        chosen = action.add_mutually_exclusive_group(required=True)
        chosen.add_argument("id", nargs="?", metavar="ID", help="the id of the dead letter, or of its event")
        chosen.add_argument("--all", action="store_true", help="all that there are")
        if action is replaying:
            chosen.add_argument("--cause", default="", metavar="CAUSE", help="all of this cause")
        action.add_argument("--yes", action="store_true", help="do not ask whether all are meant")
    exporting = add("export", "write all dead letters as JSON, one per line")
    exporting.add_argument("file", nargs="?", default="-", metavar="FILE", help="where to (default: stdout)")
    importing = add("import", "restore exported dead letters that are not there")
    importing.add_argument("file", nargs="?", default="-", metavar="FILE", help="where from (default: stdin)")
    for action in (listing, showing, replaying, dropping, exporting, importing):
        add_setting_flags(action, REDIS)


def run(args: argparse.Namespace) -> int:
    """Do what the subcommand says."""
    import trio

    from ottoscaler.cli.reach import open_stream_of

    settings = settings_from(args)
    if getattr(args, "all", False) and not args.yes and (sys.stdin is None or not sys.stdin.isatty()):
        raise NotAsked("--all needs --yes where nobody can be asked (stdin is no terminal)")
    act = ACTIONS[args.action](args)

    async def main() -> None:
        async with open_stream_of(settings) as stream:
            await act(stream)

    trio.run(main)
    return 0


Act = Callable[["Stream"], Awaitable[None]]


def list_action(args: argparse.Namespace) -> Act:
    """`list`: a table, or a JSON object per line."""
    check_cause(args.cause)
    columns = Columns(HEADER)

    async def act(stream: "Stream") -> None:
        count = 0
        async for page in read_letters(stream, cause=args.cause):
            count += len(page)
            if args.output == "json":
                _print(*map(to_json, page))
            elif page:
                _print(*columns.lines(_row(found) for found in page))
        if not count:
            _say_none(args.cause)

    return act


def _row(found: Found) -> list[str]:
    from ottoscaler.outcomes import newer_version

    if version := newer_version(found[1]):
        return [found[0], shown(found[1].get("event_id", "")), "", "", "", f"written by a newer version ({version})"]
    return [found[0], *(shown(found[1].get(name, "")) for name in CELLS)]


def show_action(args: argparse.Namespace) -> Act:
    """`show`: every field on a line of its own, then the original entry."""

    async def act(stream: "Stream") -> None:
        found = await find_letter(stream, args.id)
        if found is None:
            raise NoSuchLetter(f"there is no dead letter {args.id}, and none of an event {args.id}")
        _print(*([to_json(found)] if args.output == "json" else described(found)))

    return act


def described(found: Found) -> list[str]:
    """A dead letter in lines for people; a newer version's field by field, as it is written."""
    from ottoscaler.outcomes import newer_version

    id_, fields = found
    if newer_version(fields):
        return [f"{name:<12}{shown(value)}" for name, value in {"id": id_, **fields}.items()]
    lines = [f"{name:<12}{shown(value)}" for name, value in {"id": id_, **fields}.items() if name not in ("v", "entry")]
    try:
        pairs = shown_entry(fields.get("entry", ""))
    except (ValueError, TypeError, KeyError):
        return [*lines, f"{'entry':<12}{shown(fields.get('entry', ''))}"]
    width = max((len(name) for name, _ in pairs), default=0)
    body = [f"  {name:<{width}}   {value}".rstrip() for name, value in pairs]
    return [*lines, "entry", *(body or ["  (trimmed from the stream before anybody read it)"])]


def replay_action(args: argparse.Namespace) -> Act:
    """`replay`: one, whose event is printed, or many, which are counted."""
    check_cause(args.cause)

    async def act(stream: "Stream") -> None:
        if args.id is not None:
            await _replay_one(stream, args.id)
            return
        if (ids := await _selected(stream, args.cause)) and _is_confirmed(args, "replay", len(ids)):
            done, problems = await replay_many(stream, ids)
            _print(f"replayed {done} of {letters(len(ids))}")
            if problems:
                raise NotReplayed("\n".join(problems))

    return act


async def _replay_one(stream: "Stream", wanted: str) -> None:
    found = await find_letter(stream, wanted)
    letter_id = found[0] if found else await stream.dead_letter_of(wanted) or wanted
    [answer] = await persistent(stream.replay_dead_letters, [letter_id])
    if problem := not_replayed(wanted, answer):
        raise NotReplayed(problem)
    if answer.how == "before":
        print(f"ottoscaler: {wanted} was replayed before, as this event", file=sys.stderr)
    _print(answer.event_id)


def drop_action(args: argparse.Namespace) -> Act:
    """`drop`: one, or all that there are now."""

    async def act(stream: "Stream") -> None:
        if args.id is not None:
            found = await find_letter(stream, args.id)
            if found is None:
                raise NoSuchLetter(f"there is no dead letter {args.id}, and none of an event {args.id}")
            ids = [found[0]]
        elif not (ids := await _selected(stream, "")) or not _is_confirmed(args, "drop", len(ids)):
            return
        await drop_many(stream, ids)
        _print(f"dropped {letters(len(ids))}")

    return act


def export_action(args: argparse.Namespace) -> Act:
    """`export`: JSON lines, in a file or on stdout."""

    async def act(stream: "Stream") -> None:
        count = 0
        with written(args.file) as out:
            async for page in read_letters(stream):
                count += len(page)
                out.writelines(f"{to_json(found)}\n".encode() for found in page)
        print(f"exported {letters(count)}" if count else "there are no dead letters", file=sys.stderr)

    return act


def import_action(args: argparse.Namespace) -> Act:
    """`import`: the file is read and checked as a whole before anything is written."""
    found = from_lines(lines_of(args.file), "stdin" if args.file == "-" else args.file)

    async def act(stream: "Stream") -> None:
        counts = await restore_many(stream, found)
        others = {
            "there": "there already",
            "replayed": "replayed since",
            "ended": "of events that have results",
        }
        said = [f"restored {letters(counts.get('here', 0))}"]
        _print("; ".join(said + [f"{counts[how]} {words}" for how, words in others.items() if counts.get(how)]))

    return act


async def _selected(stream: "Stream", cause: str) -> list[str]:
    """The ids of all dead letters there are now, of one cause or of all; says so where there are none."""
    ids = [id_ async for page in read_letters(stream, cause=cause) for id_, _ in page]
    if not ids:
        _say_none(cause)
    return ids


def _is_confirmed(args: argparse.Namespace, verb: str, count: int) -> bool:
    if not args.all or args.yes:
        return True
    print(f"{verb} {letters(count)}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _say_none(cause: str) -> None:
    print("there are no dead letters" + (f" of cause {cause}" if cause else ""), file=sys.stderr)


def _print(*lines: str) -> None:
    for line in lines:
        print(line)
    sys.stdout.flush()


ACTIONS: dict[str, Callable[[argparse.Namespace], Act]] = {
    "list": list_action,
    "show": show_action,
    "replay": replay_action,
    "drop": drop_action,
    "export": export_action,
    "import": import_action,
}
