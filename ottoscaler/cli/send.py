"""`ottoscaler send`: add an event to the stream and, with --wait, show how it goes until it has its result."""

import argparse
import json
import secrets
import shlex
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ottoscaler.cli.columns import shown
from ottoscaler.cli.flags import REDIS, add_setting_flags, settings_from
from ottoscaler.errors import FixYourCall

if TYPE_CHECKING:
    from ottoscaler.events import Limits
    from ottoscaler.stream.base import Pairs, Stream
    from ottoscaler.stream.progress import Progress

Show = Callable[[str], None]
LOOK_SECONDS = 0.25
MOST_UNANSWERED = 150  # looks in a row, then Redis counts as gone
ATTEMPTS = 5


class BadEvent(FixYourCall):
    """The event would be refused; the message is the sentence that its dead letter would have."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("type", choices=["scale_up", "scale_down"], help="start workers, or stop running ones")
    parser.add_argument("--pods", required=True, metavar="COUNT", help="how many workers to start or to stop")
    parser.add_argument("--task-id", default="", metavar="TEXT", help="the task they belong to; stops only its workers")
    parser.add_argument("--template", default="", metavar="NAME", help="the worker template to use")
    parser.add_argument(
        "--meta", action="append", default=[], metavar="NAME=VALUE", help="metadata for the workers; may be repeated"
    )
    parser.add_argument(
        "--request-id", default="", metavar="TEXT", help="what you call it: the same twice is one event"
    )
    _add_spec_arguments(parser)
    parser.add_argument("--wait", action="store_true", help="wait for the result; exit code 1 when a worker failed")
    add_setting_flags(parser, REDIS)


def _add_spec_arguments(parser: argparse.ArgumentParser) -> None:
    """What a scale_up asks for its own workers, as far as the policy allows it."""
    spec = parser.add_argument_group("of a scale_up, for its workers alone (docs/policy.md)")
    spec.add_argument("--image", metavar="NAME", help="the image that they run")
    spec.add_argument("--command", metavar="WORDS", help='their command, split as a shell does: --command "make test"')
    spec.add_argument("--args", metavar="WORDS", help="its arguments, split likewise")
    spec.add_argument("--timeout", type=int, metavar="SECONDS", help="how long each attempt may take")
    spec.add_argument("--max-attempts", type=int, metavar="COUNT", help="how often each worker is tried")
    spec.add_argument("--retry-delay", type=float, metavar="SECONDS", help="between attempts, always the same")
    spec.add_argument("--retry-on", action="append", metavar="CAUSE", help="retry this alone; may be repeated")


def run(args: argparse.Namespace) -> int:
    """Send; print the event's id, or with --wait its progress and result."""
    import trio

    from ottoscaler.cli.reach import open_stream_of

    pairs = event_pairs(args)
    settings = settings_from(args)

    async def main() -> int:
        async with open_stream_of(settings) as stream:
            event_id = await add_event(stream, pairs)
            if not args.wait:
                _show(event_id)
                return 0
            _show(f"event {event_id} sent")
            return await wait_result(stream, event_id, _show)

    return trio.run(main)


def event_pairs(args: argparse.Namespace) -> "Pairs":
    """The entry for the stream; BadEvent where the scaler would refuse it."""
    from ottoscaler.events import BadEntry, parse_entry

    pairs = [("type", args.type), ("pod_count", args.pods)]
    given = (("task_id", args.task_id), ("template", args.template), ("otto.request_id", args.request_id))
    pairs += [(name, value) for name, value in given if value]
    pairs += [("otto.spec", json.dumps(spec))] if (spec := _spec(args)) else []
    for item in args.meta:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise BadEvent(f"--meta is {item!r}, expected NAME=VALUE")
        pairs.append((name, value))
    entry = tuple(
        (name.encode(errors="surrogateescape"), value.encode(errors="surrogateescape")) for name, value in pairs
    )
    parsed = parse_entry("0-0", entry, _no_limits())
    if isinstance(parsed, BadEntry):
        raise BadEvent(parsed.reason)
    return pairs


def _spec(args: argparse.Namespace) -> dict[str, Any]:
    """What was given of `otto.spec`; its reader judges the values."""
    retry = {
        "max_attempts": args.max_attempts,
        "retry_delay_seconds": args.retry_delay,
        "retryable_failures": args.retry_on,
    }
    asked = {
        "image": args.image,
        "command": _words("--command", args.command),
        "args": _words("--args", args.args),
        "timeout_seconds": args.timeout,
        "retry": {name: value for name, value in retry.items() if value is not None} or None,
    }
    return {name: value for name, value in asked.items() if value is not None}


def _words(flag: str, text: str | None) -> list[str] | None:
    try:
        return None if text is None else shlex.split(text)
    except ValueError as error:
        raise BadEvent(f"{flag} is {text!r}, expected words as a shell has them ({error})") from error


def _no_limits() -> "Limits":
    """Only the scaler knows its limits and templates; what passes here may still be refused there."""
    from ottoscaler.events import Limits

    return Limits(max_pods=1_000_000, max_metadata_bytes=131_000)


async def add_event(stream: "Stream", pairs: "Pairs") -> str:
    """Append the event and return its id; a call without an answer is repeated, and adds nothing twice."""
    import trio

    from ottoscaler.errors import Unavailable

    token = secrets.token_hex(16)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await stream.add_event(pairs, token)
        except Unavailable:
            if attempt == ATTEMPTS:
                raise
            await trio.sleep(0.2 * 2**attempt)
    raise AssertionError("unreachable")


async def wait_result(stream: "Stream", event_id: str, show: Show) -> int:
    """Show each step until the event has ended: 0, or 1 when a worker failed or the event was refused.

    One whose request id means an earlier event is waited for as that one.
    """
    shown = Shown(show)
    where, fields = await wait_ending(stream, event_id, shown)
    if where == "results" and (original := fields.get("original")):
        show(f"the same was asked for before, as event {original}")
        shown = Shown(show)
        where, fields = await wait_ending(stream, original, shown)
    return shown.end(where, fields)


async def wait_ending(stream: "Stream", event_id: str, shown: "Shown") -> tuple[str, Mapping[str, str]]:
    """Show each step until the event has ended; where its entry stands and its fields, as `Stream.read_ending`."""
    import trio

    from ottoscaler.errors import Unavailable

    unanswered = 0
    while True:
        try:
            progress = await stream.read_progress(event_id)
            if progress is None and (ending := await stream.read_ending(event_id)) is not None:
                return ending
            shown.step(progress)
            unanswered = 0
        except Unavailable:  # the event is safe; a restart of Redis must not end the wait for it
            unanswered += 1
            if unanswered == MOST_UNANSWERED:
                raise
        await trio.sleep(LOOK_SECONDS)


class Shown:
    """What was already shown of one event's progress; shows only what is new."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._created = 0
        self._ended: set[object] = set()
        self._looks = 0

    def step(self, progress: "Progress | None") -> None:
        """Show what is new; after a while without any progress say that nobody took the event yet."""
        self._looks += 1
        if progress is None:
            if self._looks == round(3 / LOOK_SECONDS):
                self._show("no scaler has taken the event yet")
            return
        created = len({index for index, _ in progress.accepted})
        if created > self._created:
            self._show(f"{created} of {progress.planned} pods created")
            self._created = created
        for outcome in (*progress.outcomes.values(), *progress.victim_outcomes.values()):
            self._worker(outcome)

    def end(self, where: str, fields: Mapping[str, str]) -> int:
        """Show what is still missing and the result; return the exit code."""
        from ottoscaler.outcomes import newer_version

        if not fields:
            self._show("ended; how was trimmed from the results since (RESULTS_KEEP, RESULTS_MAX_BYTES)")
            return 1
        if version := newer_version(fields):
            word = "refused" if where == "dlq" else "ended"
            self._show(f"{word}; how was written by a newer version ({version}), which this one cannot read")
            return 1
        if where == "dlq":
            self._show(f"refused: {shown(fields.get('reason', ''))}")
            return 1
        from ottoscaler.cli.results import decoded, summary

        result = decoded(fields)
        for worker in result["workers"]:
            self._worker(worker)
        self._show(summary(result))
        return 1 if result["failed"] else 0

    def _worker(self, outcome: Mapping[str, object]) -> None:
        name = outcome.get("name")
        if name in self._ended:
            return
        self._ended.add(name)
        because = f"  {outcome['cause']}: {shown(str(outcome.get('reason', '')))}" if outcome.get("cause") else ""
        self._show(f"{name}  {outcome.get('outcome')}{because}")


def _show(line: str) -> None:
    print(line, flush=True)
