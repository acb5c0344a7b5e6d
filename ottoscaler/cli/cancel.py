"""`ottoscaler cancel`: end an event that waits or runs; its workers end as terminated."""

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ottoscaler.cli.columns import shown
from ottoscaler.cli.flags import REDIS, add_setting_flags, settings_from
from ottoscaler.cli.letters import is_id
from ottoscaler.errors import FixYourCall

if TYPE_CHECKING:
    from ottoscaler.stream.base import Stream

Show = Callable[[str], None]


class BadEventId(FixYourCall):
    """What was given cannot be the id of an event."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("event_id", metavar="EVENT_ID", help="the event to cancel, as `send` printed its id")
    parser.add_argument("--wait", action="store_true", help="wait for its result; exit code 1 when it was refused")
    add_setting_flags(parser, REDIS)


def run(args: argparse.Namespace) -> int:
    """Send the cancel; print its own id, or with --wait what became of it."""
    import trio

    from ottoscaler.cli.reach import open_stream_of
    from ottoscaler.cli.send import add_event

    if not is_id(args.event_id):
        raise BadEventId(f"EVENT_ID is {args.event_id!r}, expected the id of an event, such as 1756659802903-0")
    settings = settings_from(args)

    async def main() -> int:
        async with open_stream_of(settings) as stream:
            cancel_id = await add_event(stream, cancel_pairs(args.event_id))
            if not args.wait:
                _show(cancel_id)
                return 0
            _show(f"cancel {cancel_id} sent")
            return await wait_cancelled(stream, cancel_id, _show)

    return trio.run(main)


def cancel_pairs(event_id: str) -> list[tuple[str, str]]:
    """The entry for the stream."""
    return [("type", "cancel"), ("event_id", event_id)]


async def wait_cancelled(stream: "Stream", cancel_id: str, show: Show) -> int:
    """Show what happens until the cancel itself has ended: 0 when it succeeded, 1 when not or when it was refused."""
    from ottoscaler.cli.send import Shown, wait_ending

    return end_of(*await wait_ending(stream, cancel_id, Shown(show)), show)


def end_of(where: str, fields: Mapping[str, str], show: Show) -> int:
    """Show how a cancel ended; the exit code."""
    if where == "dlq":
        show(f"refused: {shown(fields.get('reason', ''))}")
        return 1
    show(": ".join(shown(fields[name]) for name in ("status", "note") if fields.get(name)))
    return 0 if fields.get("status") == "succeeded" else 1


def _show(line: str) -> None:
    print(line, flush=True)
