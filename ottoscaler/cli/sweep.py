"""`ottoscaler sweep`: the pods of an era that is over, which nothing else deletes: counted by era, or deleted.

An era is one life of the data in Redis. Where Redis was emptied, the pods that ran go on, and belong to no event that
anybody knows. Only a person can say that they may go.
"""

import argparse
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ottoscaler.cli.columns import Columns
from ottoscaler.cli.flags import KUBERNETES, REDIS, add_setting_flags, settings_from
from ottoscaler.errors import FixYourCall, OttoscalerError

if TYPE_CHECKING:
    from ottoscaler.pods import PodRecord
    from ottoscaler.settings import Settings
    from ottoscaler.stream.base import Stream

Show = Callable[[str], None]
HEADER = ("ERA", "PODS", "PRESENT")
LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?", re.ASCII)
BATCH = 50


class Pods(Protocol):
    """What is needed of the API here; `ottoscaler.kube.client.Kube` has it."""

    async def list_pods(self, namespace: str, selector: str) -> tuple[list[dict[str, Any]], int]:
        """All pods of a selector, and the version of the list."""

    async def delete_pod(self, namespace: str, name: str, *, uid: str | None = None) -> None:
        """Delete a pod of that uid; that it is gone already is success."""


class NotSwept(FixYourCall):
    """The era may not be swept; the message says why."""


class NotDeleted(OttoscalerError):
    """Pods that the API would not delete; one sentence per line."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--era", metavar="ERA", help="delete the pods of this era; without it the eras are listed")
    parser.add_argument("--dry-run", action="store_true", help="list the pods that would be deleted, and delete none")
    parser.add_argument("-o", "--output", choices=["json"], help="one JSON object per line")
    add_setting_flags(parser, (*REDIS, *KUBERNETES))


def run(args: argparse.Namespace) -> int:
    """List the eras, or delete the pods of one."""
    import trio

    from ottoscaler.cli.reach import open_stream_of
    from ottoscaler.kube.access import load_access
    from ottoscaler.kube.client import open_kube

    settings = settings_from(args)
    access = load_access(settings.kubeconfig, None, os.environ)

    async def main() -> None:
        async with open_stream_of(settings) as stream, open_kube(access, may_write=_always) as kube:
            if args.era is None:
                await show_eras(settings, stream, kube, args.output, _show)
            else:
                await sweep(settings, stream, kube, args.era, args.output, _show, is_dry=args.dry_run)

    trio.run(main)
    return 0


def _always() -> None:
    """Called before each write: a person's command holds no lease that could have run out."""


async def show_eras(settings: "Settings", stream: "Stream", kube: Pods, output: str | None, show: Show) -> None:
    """One line for the present era and for each that has pods, with their number."""
    era = await stream.read_era()
    present = era.id if era else None
    counts = Counter(record.era for record in await _list(settings, kube))
    if present is not None:
        counts[present] += 0
    if not counts:
        print("there are no pods of this instance, and no era", file=sys.stderr)
        return
    facts = [(id_, count, None if present is None else id_ == present) for id_, count in sorted(counts.items())]
    if output == "json":
        for id_, count, is_present in facts:
            show(json.dumps({"era": id_, "pods": count, "present": is_present}))
        return
    words = {True: "yes", False: "no", None: "unknown"}
    for line in Columns(HEADER).lines([id_, str(count), words[is_present]] for id_, count, is_present in facts):
        show(line)


async def sweep(
    settings: "Settings", stream: "Stream", kube: Pods, era: str, output: str | None, show: Show, *, is_dry: bool
) -> None:
    """List the pods of an era that is over and, unless `is_dry`, delete them. NotSwept where it may not be swept."""
    from ottoscaler.cli.workers import rows_as

    await _refuse_present(settings, stream, era)
    records = await _list(settings, kube, era)
    if not records:
        print(f"there are no pods of era {era}", file=sys.stderr)
        return
    rows_as(output, show)(records)
    if not is_dry:
        await delete_all(kube, settings.namespace, records)
    done = "would be deleted" if is_dry else "deleted"
    print(f"{len(records)} pod{'' if len(records) == 1 else 's'} of era {era} {done}", file=sys.stderr)


async def _refuse_present(settings: "Settings", stream: "Stream", era: str) -> None:
    if not LABEL_VALUE.fullmatch(era):
        raise NotSwept(f"--era is {era!r}, expected an era as `ottoscaler sweep` lists them")
    present = await stream.read_era()
    if present is None:
        raise NotSwept(
            f"Redis at {stream.address} knows no era of the stream {settings.redis_stream}, so {era} may be present: "
            "start a scaler on it first, or correct REDIS_URL, REDIS_STREAM or REDIS_CONSUMER_GROUP"
        )
    if present.id == era:
        raise NotSwept(f"--era is {era!r}, which is the present era: its pods belong to events; expected another one")
    if present.namespace != settings.namespace:
        raise NotSwept(
            f"NAMESPACE is {settings.namespace!r}, expected {present.namespace!r}: that is where this stream's pods are"
        )


async def _list(settings: "Settings", kube: Pods, era: str = "") -> "list[PodRecord]":
    """Our instance's pods, of one era or of all, oldest first."""
    from ottoscaler.kube.manifest import instance_label
    from ottoscaler.pods import ERA_LABEL, INSTANCE_LABEL, MANAGED_BY_LABEL, PodRecord

    instance = instance_label(settings.instance_name, settings.redis_stream, settings.redis_consumer_group)
    labels = {MANAGED_BY_LABEL: "ottoscaler", INSTANCE_LABEL: instance} | ({ERA_LABEL: era} if era else {})
    pods, _ = await kube.list_pods(settings.namespace, ",".join(f"{name}={value}" for name, value in labels.items()))
    return sorted(map(PodRecord.from_pod, pods), key=lambda record: (record.created_at or 0.0, record.name))


async def delete_all(kube: Pods, namespace: str, records: "Sequence[PodRecord]") -> None:
    """Delete pods by name and uid, showing how far it is. NotDeleted says at the end which the API would not."""
    import trio

    from ottoscaler.cli.counting import counting
    from ottoscaler.cli.dlq_changes import persistent
    from ottoscaler.errors import Answered, Conflict

    problems: list[str] = []

    async def delete(record: "PodRecord") -> None:
        try:
            await persistent(lambda: kube.delete_pod(namespace, record.name, uid=record.uid))
        except Conflict:
            return  # another pod has the name by now
        except Answered as error:
            problems.append(str(error))

    with counting("deleted", len(records)) as count:
        for at in range(0, len(records), BATCH):
            async with trio.open_nursery() as nursery:
                for record in records[at : at + BATCH]:
                    nursery.start_soon(delete, record)
            count(len(records[at : at + BATCH]))
    if problems:
        raise NotDeleted("\n".join(problems))


def _show(line: str) -> None:
    print(line, flush=True)
