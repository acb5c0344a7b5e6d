"""`ottoscaler logs`: what a worker wrote, or all workers of an event, each line behind its worker's name."""

import argparse
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ottoscaler.cli.flags import add_setting_flags, settings_from
from ottoscaler.errors import Answered, FixYourCall, TryAgain, Unavailable

if TYPE_CHECKING:
    from ottoscaler.fleet import Fleet
    from ottoscaler.logs.mark import Entry
    from ottoscaler.pods import PodRecord

COLOURS = ("36", "33", "32", "35", "34", "96", "93", "92", "95", "94")
T = TypeVar("T")
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
    parser.add_argument("-f", "--follow", action="store_true", help="go on until every worker has ended")
    parser.add_argument("--timestamps", action="store_true", help="show when each line was written")
    add_setting_flags(parser, ("KUBECONFIG", "NAMESPACE"))


def run(args: argparse.Namespace) -> int:
    """Show what there is, and with --follow what comes."""
    import trio

    from ottoscaler.cli.reach import open_kube_of

    settings = settings_from(args)
    is_coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    async def main() -> int:
        async with open_kube_of(settings) as kube:
            page = Page(args.target, _write, is_coloured=is_coloured, has_stamps=args.timestamps)
            if not args.follow:
                return 0 if await show_logs(kube, settings.namespace, args.target, page, _say) else 1
            await follow_logs(kube, settings.namespace, args.target, page, _say)
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
        raise FixYourCall(
            f"there is no pod of {target!r}, expected an event or a worker whose pods are still there "
            f"(see ottoscaler workers)"
        )
    is_whole = True
    for record in records:
        reader = LineReader()
        try:
            read = await _reader_of(api, namespace, record.name)
            async with aclosing(read(follow=False)) as pieces:
                async for piece in pieces:
                    page.show(record.name, reader.feed(piece))
            page.show(record.name, reader.end())
        except (Answered, Unavailable) as error:
            say(f"{record.name}: {error}")
            is_whole = False
    return is_whole


async def follow_logs(api: LogApi, namespace: str, target: str, page: Page, say: Say) -> None:
    """Follow every worker of the target to its end, those that come later, too; ends when all have ended."""
    import trio

    from ottoscaler.cli.following import follow_records
    from ottoscaler.fleet import Fleet

    fleet, begun, open_ones = Fleet(), set[str](), set[str]()

    async def follow(name: str) -> None:
        await _follow_one(api, namespace, name, fleet, page, say)
        open_ones.discard(name)
        if not open_ones:
            nursery.cancel_scope.cancel(reason="every worker has ended")

    def tell(record: "PodRecord") -> None:
        if not is_meant(record, target):
            return
        fleet.apply("DELETED" if record.gone else "MODIFIED", record)
        if record.name not in begun and not record.gone:
            begun.add(record.name)
            open_ones.add(record.name)
            nursery.start_soon(follow, record.name)

    def tell_all(records: "list[PodRecord]") -> None:
        for record in records:
            tell(record)

    async with trio.open_nursery() as nursery:
        await follow_records(api, namespace, tell_all, tell)


async def _follow_one(api: LogApi, namespace: str, name: str, fleet: "Fleet", page: Page, say: Say) -> None:
    from ottoscaler.errors import NotFound
    from ottoscaler.logs.following import Following
    from ottoscaler.logs.mark import Mark

    async def deliver(entries: "Sequence[Entry]") -> None:
        page.show(name, entries)

    with fleet.follow(name) as pod:
        try:
            read = await insist(partial(_reader_of, api, namespace, name), partial(_say_of, say, name))
        except NotFound:
            return
        await Following(name, read, pod, Mark(), deliver).run()


def _say_of(say: Say, name: str, sentence: str) -> None:
    say(f"{name}: {sentence}")


async def insist(call: Callable[[], Awaitable[T]], say: Say) -> T:
    """What the call brings, tried again for ever while what stands in the way passes; says so once."""
    import trio

    from ottoscaler.logs.following import RETRY

    has_said = False
    for delay in RETRY.delays():
        try:
            return await call()
        except TryAgain as error:
            if not has_said:
                say(f"{error}; it is tried again")
            has_said = True
        await trio.sleep(delay)
    raise AssertionError("unreachable")


async def _reader_of(api: LogApi, namespace: str, name: str) -> Any:
    """How to read the log of a pod: of the container named `worker`, else of the first."""
    from ottoscaler.pods import WORKER_CONTAINER

    names = [one["name"] for one in (await api.get_pod(namespace, name))["spec"]["containers"]]
    container = WORKER_CONTAINER if WORKER_CONTAINER in names else names[0]
    return partial(api.read_log, namespace, name, container)


def is_meant(record: "PodRecord", target: str) -> bool:
    """Whether this pod is the worker, or one of the event."""
    return target in (record.name, record.event_id)
