"""`ottoscaler status`: one screen about a running installation, from Redis and the API; with -w again and again.

What cannot be read is said to be unknown, never 0: the screen comes also while the API is away.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ottoscaler.cli.flags import KUBERNETES, REDIS, add_setting_flags, settings_from
from ottoscaler.errors import OttoscalerError, Unavailable
from ottoscaler.stages import OF_PIPELINES

if TYPE_CHECKING:
    from ottoscaler.settings import Settings
    from ottoscaler.stream.backlog import EventFacts, Holder
    from ottoscaler.stream.base import Stream

LETTERS = 5
PERIOD_SECONDS = 2.0
LIMIT_SECONDS = 10.0
YEAR = 365 * 86_400.0
"""A session that left by itself has a lease that ended in 1970."""
NEWER = "of a newer version"
CLEAR = "\033[H\033[2J"

Facts = dict[str, Any]


class NoInstallation(OttoscalerError):
    """No scaler ever served this stream."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("-w", "--watch", action="store_true", help="again every two seconds, until Ctrl-C")
    parser.add_argument("-o", "--output", choices=["json"], help="one JSON object per look")
    add_setting_flags(parser, (*REDIS, *KUBERNETES))


def run(args: argparse.Namespace) -> int:
    """Look once, or with --watch for ever."""
    import trio

    from ottoscaler.cli.reach import open_stream_of

    settings = settings_from(args)
    show = show_as(args.output, is_watched=args.watch)

    async def main() -> None:
        async with open_stream_of(settings) as stream:
            show(await look(stream, settings, count_workers))
            while args.watch:
                await trio.sleep(PERIOD_SECONDS)
                try:
                    show(await look(stream, settings, count_workers))
                except Unavailable as error:  # it comes back, or somebody presses Ctrl-C
                    print(f"ottoscaler: {error}", file=sys.stderr, flush=True)

    trio.run(main)
    return 0


def show_as(
    output: str | None, show: Callable[[str], None] = lambda text: print(text, flush=True), *, is_watched: bool
) -> Callable[[Facts], None]:
    """A function that shows one look, in the form asked for; on a terminal a watch clears the screen before each."""
    from ottoscaler.cli.status_screen import screen

    clear = CLEAR if is_watched and sys.stdout.isatty() else ""
    if output == "json":
        return lambda facts: show(json.dumps(facts, ensure_ascii=False))
    return lambda facts: show(clear + "\n".join(screen(facts)))


async def count_workers(settings: "Settings", namespace: str) -> Counter[str]:
    """The worker pods of the installation in its namespace by state, in kubectl's words. Raises `OttoscalerError`."""
    import trio

    from ottoscaler.cli.following import list_records, status_of
    from ottoscaler.cli.reach import open_kube_of
    from ottoscaler.cli.workers import selector_of

    try:
        with trio.fail_after(LIMIT_SECONDS):
            async with open_kube_of(settings) as kube:
                records, _ = await list_records(kube, namespace, selector_of(settings))
    except trio.TooSlowError:
        raise Unavailable(f"the API did not answer within {LIMIT_SECONDS:g} s") from None
    return Counter(map(status_of, records))


async def look(
    stream: "Stream",
    settings: "Settings",
    count: Callable[["Settings", str], Awaitable[Mapping[str, int]]],
    now: Callable[[], float] = time.time,
) -> Facts:
    """All there is to show, as JSON has it; ages in seconds; `orphaned` are events whose replica went and that nobody
    has taken yet. Raises `NoInstallation`, and `Unavailable` for Redis.
    """
    era = await stream.read_era()
    if era is None:
        place = f"stream {settings.redis_stream}, group {settings.redis_consumer_group}"
        raise NoInstallation(f"Redis at {stream.address} knows no scaler of {place}: none was ever started on it")
    overview, backlog = await stream.overview(LETTERS), await stream.backlog()
    try:
        workers, trouble = dict(await count(settings, era.namespace)), ""
    except OttoscalerError as error:
        workers, trouble = None, str(error)
    offered = sum(not event.owner for event in overview.events)
    alive = {holder.session for holder in overview.holders if holder.lease_seconds > 0}
    return {
        "redis": stream.address,
        "stream": settings.redis_stream,
        "group": settings.redis_consumer_group,
        "namespace": era.namespace,
        "era": era.id,
        "era_age": round(now() - era.created / 1000, 3),
        "replicas": [
            {"session": each.session, "lease_seconds": each.lease_seconds, "held": each.held}
            for each in overview.holders
        ],
        "outages": list(_outages(overview.holders, now())),
        "events": {
            "running": _types(event for event in overview.events if event.owner in alive),
            "orphaned": _types(event for event in overview.events if event.owner and event.owner not in alive),
            "waiting": _types(event for event in overview.events if not event.owner),
            "unread": None if backlog.waiting is None else max(0, backlog.waiting - offered),
            "oldest_waiting_seconds": backlog.oldest_age if backlog.waiting != 0 else None,
        },
        "troubles": Counter(cause for event in overview.events if (cause := _cause(event.trouble))),
        "workers": workers,
        "workers_unknown": trouble,
        "pipelines": [
            {
                "id": event.request_id.removeprefix(OF_PIPELINES),
                "event_id": event.event_id,
                "stages": event.planned,
                "begun": event.created,
                "ended": event.ended,
            }
            for event in overview.events
            if event.type == "pipeline"
        ],
        "dead_letters": overview.dead_letters,
        "last_dead_letters": [{"id": id_, **fields} for id_, fields in overview.last_letters],
    }


def _outages(holders: "Iterable[Holder]", now: float) -> Iterator[Facts]:
    """What replicas cannot reach, oldest first: what they say of the API and otto-handler while their lease holds; one
    whose lease has run out has itself not reached Redis, or died.
    """
    found: list[Facts] = []
    for each in holders:
        if each.lease_seconds > 0:
            told: dict[str, Facts] = json.loads(each.outages or "{}")
            found += (
                {"what": what, "session": each.session, "seconds": round(now - about["since"], 3)}
                | {"reason": str(about["reason"])}
                for what, about in told.items()
            )
        elif -each.lease_seconds < YEAR:
            reason = "its lease has run out: it died, or cannot reach Redis"
            found.append({"what": "redis", "session": each.session, "seconds": -each.lease_seconds, "reason": reason})
    return iter(sorted(found, key=lambda outage: -outage["seconds"]))


def _types(events: "Iterable[EventFacts]") -> Counter[str]:
    return Counter(event.type or NEWER for event in events)


def _cause(trouble: str) -> str:
    return str(json.loads(trouble).get("cause", "")) if trouble else ""
