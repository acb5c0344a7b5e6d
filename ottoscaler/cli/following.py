"""Pods as a command sees them: listed once, or followed for ever, as slim records."""

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Any, Protocol

import msgspec
import trio

from ottoscaler.errors import Expired, Unavailable
from ottoscaler.pods import MANAGED_BY_LABEL, PodRecord

SELECTOR = f"{MANAGED_BY_LABEL}=ottoscaler"
SILENCE_SECONDS = 35  # the server ends a watch after 30; one that goes on without doing so is dead
Tell = Callable[[PodRecord], None]


class Pods(Protocol):
    """What is needed of the API here; `ottoscaler.kube.client.Kube` has it."""

    async def list_pods(self, namespace: str, selector: str) -> tuple[list[dict[str, Any]], int]:
        """All pods of a selector, and the version of the list."""

    def watch_pods(
        self, namespace: str, selector: str, resource_version: int
    ) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        """Type and object of each change after a version."""


async def list_records(kube: Pods, namespace: str, selector: str = SELECTOR) -> tuple[list[PodRecord], int]:
    """The workers of a namespace in the order of their creation, and the version of the list."""
    pods, version = await kube.list_pods(namespace, selector)
    return sorted(map(PodRecord.from_pod, pods), key=_order), version


async def follow_records(
    kube: Pods, namespace: str, tell_all: Callable[[list[PodRecord]], None], tell: Tell, selector: str = SELECTOR
) -> None:
    """Tell the list once and then each change, for ever; deleted pods come once more with `gone` set.

    What goes wrong at the first list is raised; later the list is read again, and what changed meanwhile is told.
    """
    records, version = await list_records(kube, namespace, selector)
    tell_all(records)
    known = {record.uid: record for record in records}

    def news(record: PodRecord) -> None:
        if known.get(record.uid) != record and not (record.gone and record.uid not in known):
            known[record.uid] = record
            tell(record)
        if record.gone:
            known.pop(record.uid, None)

    while True:
        try:
            await _follow_watch(kube, namespace, selector, version, news)
        except (Expired, Unavailable):
            await trio.sleep(1)
        try:
            records, version = await list_records(kube, namespace, selector)
        except Unavailable:
            continue
        for record in missing(known.values(), records):
            news(record)
        for record in records:
            news(record)


async def _follow_watch(kube: Pods, namespace: str, selector: str, version: int, news: Tell) -> None:
    """One watch, until the server ends it or falls silent."""
    with trio.move_on_after(SILENCE_SECONDS):
        async with aclosing(kube.watch_pods(namespace, selector, version)) as events:
            async for kind, pod in events:
                if kind != "BOOKMARK":
                    news(PodRecord.from_pod(pod, gone=kind == "DELETED"))


def missing(known: Iterable[PodRecord], listed: Iterable[PodRecord]) -> list[PodRecord]:
    """Records that are known and not listed any more, as gone."""
    there = {record.uid for record in listed}
    return [msgspec.structs.replace(record, gone=True) for record in known if record.uid not in there]


def _order(record: PodRecord) -> tuple[float, str, int]:
    return (record.created_at or 0.0, record.event_id, record.index)


def status_of(record: PodRecord) -> str:
    """One word for the state of a pod, as kubectl's STATUS column has it; `Deleted` when it is gone."""
    if record.gone:
        return "Deleted"
    if record.deleting:
        return "Terminating"
    if record.init_failure is not None:
        return "Init:Error"
    if record.reason and record.is_final:  # Evicted, DeadlineExceeded
        return record.reason
    return record.waiting_reason or record.term_reason or record.phase or "Unknown"
