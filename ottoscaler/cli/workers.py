"""`ottoscaler workers`: the worker pods of an installation, in columns like kubectl's or one JSON object per line.

Which installation follows from INSTANCE_NAME, stream and group, as in the scaler itself; or all of the namespace.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ottoscaler.cli.columns import Columns, shown_age
from ottoscaler.cli.flags import add_setting_flags, settings_from

if TYPE_CHECKING:
    from ottoscaler.pods import PodRecord
    from ottoscaler.settings import Settings

Show = Callable[[str], None]
HEADER = ("NAME", "STATUS", "EXIT", "TASK", "AGE")
WIDE = (*HEADER, "EVENT", "INDEX", "ATTEMPT", "NODE", "IP", "REASON")
SETTINGS = ("KUBECONFIG", "NAMESPACE", "INSTANCE_NAME", "REDIS_STREAM", "REDIS_CONSUMER_GROUP")
INSTANCE = "INSTANCE"
INSTANCE_WIDTH = 16
WATCHED = (len("otto-agent-1-1756659802903-0"), len("ContainerCreating"), 4, 8, 6)  # widths for what is yet to come


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("-w", "--watch", action="store_true", help="go on with each change, until Ctrl-C")
    parser.add_argument("-o", "--output", choices=["wide", "json"], help="more columns, or one JSON object per line")
    parser.add_argument(
        "--all-instances", action="store_true", help="of every installation in the namespace, with a column for which"
    )
    add_setting_flags(parser, SETTINGS)


def run(args: argparse.Namespace) -> int:
    """List, and with --watch go on until a signal."""
    import trio

    from ottoscaler.cli.following import SELECTOR, follow_records, list_records
    from ottoscaler.cli.reach import open_kube_of

    settings = settings_from(args)
    least = ((INSTANCE_WIDTH,) if args.all_instances else ()) + WATCHED if args.watch else ()
    show = rows_as(args.output, least=least, has_instance=args.all_instances)
    selector = SELECTOR if args.all_instances else selector_of(settings)

    async def main() -> None:
        async with open_kube_of(settings) as kube:
            if args.watch:
                await follow_records(kube, settings.namespace, show, lambda record: show([record]), selector)
            else:
                show((await list_records(kube, settings.namespace, selector))[0])

    trio.run(main)
    return 0


def selector_of(settings: "Settings") -> str:
    """The pods of the installation that has these settings, and of no other in the namespace."""
    from ottoscaler.cli.following import SELECTOR
    from ottoscaler.kube.manifest import instance_label
    from ottoscaler.pods import INSTANCE_LABEL

    label = instance_label(settings.instance_name, settings.redis_stream, settings.redis_consumer_group)
    return f"{SELECTOR},{INSTANCE_LABEL}={label}"


def rows_as(
    output: str | None,
    show: Show = lambda line: print(line, flush=True),
    now: Callable[[], float] = time.time,
    least: Sequence[int] = (),
    *,
    has_instance: bool = False,
) -> Callable[[Sequence["PodRecord"]], None]:
    """A function that shows some workers, in the form asked for; `least` are widths of columns; with
    `has_instance` the first column says whose each is.
    """
    header = WIDE if output == "wide" else HEADER
    columns = Columns((INSTANCE, *header) if has_instance else header, least)

    def cells(record: "PodRecord") -> list[str]:
        own = row(record, now(), is_wide=output == "wide")
        return [record.instance, *own] if has_instance else own

    def as_table(records: Sequence["PodRecord"]) -> None:
        for line in columns.lines(map(cells, records)):
            show(line)

    def as_json(records: Sequence["PodRecord"]) -> None:
        for record in records:
            show(json.dumps(facts(record), ensure_ascii=False))

    return as_json if output == "json" else as_table


def row(record: "PodRecord", now: float, *, is_wide: bool) -> list[str]:
    """One worker as the cells of the table; `now` in Unix seconds."""
    from ottoscaler.cli.following import status_of

    age = "" if record.created_at is None else shown_age(now - record.created_at)
    exit_code = "" if record.exit_code is None else str(record.exit_code)
    cells = [record.name, status_of(record), exit_code, record.task_id, age]
    if not is_wide:
        return cells
    reason = record.message or record.waiting_message or record.unschedulable_message or record.term_message
    numbers = [str(record.index or ""), str(record.attempt or "")]
    return [*cells, record.event_id, *numbers, record.node, record.pod_ip, " ".join(reason.split())]


def facts(record: "PodRecord") -> dict[str, object]:
    """One worker with all that is known of it, and its status as the table shows it."""
    import msgspec

    from ottoscaler.cli.following import status_of

    return {"name": record.name, "status": status_of(record), **msgspec.to_builtins(record)}
