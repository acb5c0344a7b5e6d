"""`ottoscaler logs`: what a worker wrote, or all workers of an event, each line behind its worker's name."""

import argparse
import os
import re
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from ottoscaler.cli.flags import REDIS, add_setting_flags, settings_from
from ottoscaler.cli.letters import is_id
from ottoscaler.errors import Answered, FixYourCall, Unavailable

if TYPE_CHECKING:
    from ottoscaler.logs.mark import Entry
    from ottoscaler.pods import PodRecord

COLOURS = ("36", "33", "32", "35", "34", "96", "93", "92", "95", "94")
HASHED = re.compile(r"otto-agent-[0-9]+-[0-9a-f]{24}(-r[0-9]+)?", re.ASCII)
OF_EVENT = re.compile(r"otto-agent-[0-9]+-([0-9]+-[0-9]+)(-.*)?", re.ASCII)
"""Names of pods as `kube.manifest.pod_name` makes them: with a hash, or with the id of the event in them."""
Write = Callable[[bytes], object]
Say = Callable[[str], object]


class LogApi(Protocol):
    """What is needed of the API here; `ottoscaler.kube.client.Kube` has it."""

    async def list_pods(self, namespace: str, selector: str) -> tuple[list[dict[str, Any]], int]:
        """All pods of a selector, and the version of the list."""

    def watch_pods(
        self, namespace: str, selector: str, resource_version: int
    ) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        """Type and object of each change after a version."""

    async def get_pod(self, namespace: str, name: str) -> dict[str, Any]:
        """One pod."""

    def read_log(
        self,
        namespace: str,
        name: str,
        container: str,
        *,
        follow: bool,
        since: str = "",
        limit_bytes: int | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """A container's log with timestamps."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("target", metavar="EVENT_ID|WORKER", help="an event, or one of its workers by the pod's name")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on until the event has its result and every worker has ended"
    )
    parser.add_argument("--timestamps", action="store_true", help="show when each line was written")
    add_setting_flags(parser, ("KUBECONFIG", "NAMESPACE", *REDIS))


def run(args: argparse.Namespace) -> int:
    """Show what there is, and with --follow what comes."""
    import trio

    from ottoscaler.cli.logs_follow import follow_logs, open_asking
    from ottoscaler.cli.reach import open_kube_of

    settings = settings_from(args)
    is_coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    async def main() -> int:
        async with open_kube_of(settings) as kube:
            page = Page(args.target, _write, is_coloured=is_coloured, has_stamps=args.timestamps)
            if not args.follow:
                return 0 if await show_logs(kube, settings.namespace, args.target, page, _say) else 1
            async with open_asking(settings) as ask:
                await follow_logs(kube, settings.namespace, args.target, page, ask, _say)
            return 0

    return trio.run(main)


def _write(text: bytes) -> None:
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


def _say(sentence: str) -> None:
    print(f"ottoscaler: {sentence}", file=sys.stderr, flush=True)


class Page:
    """Writes lines; those of an event's workers behind their names, in a colour each."""

    def __init__(self, target: str, write: Write, *, is_coloured: bool = False, has_stamps: bool = False) -> None:
        self._target = target
        self._write = write
        self._is_coloured = is_coloured
        self._has_stamps = has_stamps
        self._prefixes: dict[str, bytes] = {}

    def show(self, worker: str, entries: "Sequence[Entry]") -> None:
        """Write lines of one worker in one piece, so that those of others come between and not inside."""
        from ottoscaler.logs.mark import Gap
        from ottoscaler.logs.messages import say_gap

        prefix = self._prefix(worker)
        out = bytearray()
        for entry in entries:
            out += prefix
            if isinstance(entry, Gap):
                out += f"[{say_gap(entry)}]".encode()
            else:
                out += (entry.stamp.encode() + b" " if self._has_stamps else b"") + entry.text
            out += b"\n"
        if out:
            self._write(bytes(out))

    def _prefix(self, worker: str) -> bytes:
        if worker == self._target:
            return b""
        if worker not in self._prefixes:
            colour = COLOURS[len(self._prefixes) % len(COLOURS)]
            name = f"\x1b[{colour}m{worker}\x1b[0m" if self._is_coloured else worker
            self._prefixes[worker] = f"{name} | ".encode()
        return self._prefixes[worker]


async def show_logs(api: LogApi, namespace: str, target: str, page: Page, say: Say) -> bool:
    """What there is now, worker after worker in the order of their creation; whether all could be read.

    FixYourCall where there is no such pod.
    """
    from ottoscaler.cli.following import list_records
    from ottoscaler.logs.lines import LineReader

    records = [record for record in (await list_records(api, namespace))[0] if is_meant(record, target)]
    if not records:
        raise no_pod(target)
    is_whole = True
    for record in records:
        reader = LineReader()
        try:
            read = await reader_of(api, namespace, record.name)
            async with aclosing(read(follow=False)) as pieces:
                async for piece in pieces:
                    page.show(record.name, reader.feed(piece))
            page.show(record.name, reader.end())
        except (Answered, Unavailable) as error:
            say(f"{record.name}: {error}")
            is_whole = False
    return is_whole


def no_pod(target: str, why: str = "") -> FixYourCall:
    """The answer to a target of which there is nothing; `why` goes on with the sentence."""
    return FixYourCall(
        f"there is no pod of {target!r}{why}, expected an event, such as 1756659802903-0, or a worker, whose pods are "
        f"still there (see ottoscaler workers)"
    )


async def reader_of(api: LogApi, namespace: str, name: str) -> Any:
    """How to read the log of a pod: of the container named `worker`, else of the first."""
    from ottoscaler.pods import WORKER_CONTAINER

    names = [one["name"] for one in (await api.get_pod(namespace, name))["spec"]["containers"]]
    container = WORKER_CONTAINER if WORKER_CONTAINER in names else names[0]
    return partial(api.read_log, namespace, name, container)


def is_meant(record: "PodRecord", target: str) -> bool:
    """Whether this pod is the worker, or one of the event."""
    return target in (record.name, record.event_id)


def event_of(target: str) -> str:
    """The id of the event that is meant, or whose worker is; empty where the target does not tell."""
    found = OF_EVENT.fullmatch(target)
    return found[1] if found else target if is_id(target) else ""


def may_come(target: str) -> bool:
    """Whether a scaler could ever start what is named so."""
    return bool(event_of(target) or HASHED.fullmatch(target))
