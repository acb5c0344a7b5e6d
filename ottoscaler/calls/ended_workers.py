"""Workers that have ended, and those that wait to be run again: from the progress of events that go on, and from
results, the newest first.

Results are read back as far as a question may cost: what lies further back is not shown, and neither is what a newer
version wrote; the answer says so.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from functools import partial
from typing import NamedTuple

import msgspec

from ottoscaler.calls.worker_rows import Ended
from ottoscaler.outcomes import newer_version
from ottoscaler.spine.ledger import Ledger

MOST_WORKERS = 10_000
MOST_RESULTS = 10_000
MOST_BYTES = 32 * 1024 * 1024
"""So much one question reads of the results at most."""
PAGE_BYTES = 1024 * 1024
PAGE = 500
FIRST_PAGE = 20


class EndedWorkers(NamedTuple):
    """Those read; `is_truncated`: there is more that was not read, of these tasks or of others."""

    workers: list[Ended]
    is_truncated: bool


async def ended_workers(ledger: Ledger, task_id: str) -> EndedWorkers:
    """Of one task, or (empty) of all; at most `MOST_WORKERS`."""
    found: dict[tuple[str, int], Ended] = {}
    async with aclosing(_all(ledger, task_id)) as ends:
        async for ended in ends:
            if ended is None:
                return EndedWorkers(list(found.values()), is_truncated=True)
            worker = (ended.event_id, ended.outcome["index"])
            if worker not in found and len(found) == MOST_WORKERS:
                return EndedWorkers(list(found.values()), is_truncated=True)
            found.setdefault(worker, ended)  # one may close while we read
    return EndedWorkers(list(found.values()), is_truncated=False)


async def _all(ledger: Ledger, task_id: str) -> AsyncGenerator[Ended | None]:
    """None, at last, stands for what is not read."""
    async with aclosing(_of_live_events(ledger, task_id)) as live:
        async for early in live:
            yield early
    async with aclosing(_of_results(ledger, task_id)) as results:
        async for ended in results:
            yield ended


async def _of_live_events(ledger: Ledger, task_id: str) -> AsyncGenerator[Ended]:
    stream = ledger.stream
    ids = await ledger.insist(stream.live_events)
    standings = await ledger.insist(partial(stream.look, ids))
    for event_id, standing in standings.items():
        if (standing.ended or standing.retried) and task_id in ("", standing.task_id):
            progress = await ledger.insist(partial(stream.read_progress, event_id))
            if progress is None or progress.lane != "work":  # the outcomes of a pipeline are those of its stages
                continue
            last_attempts = {index: progress.attempts[index, attempt] for index, attempt in sorted(progress.attempts)}
            for outcome in (last_attempts | progress.outcomes).values():
                yield Ended(event_id, standing.task_id, outcome)


async def _of_results(ledger: Ledger, task_id: str) -> AsyncGenerator[Ended | None]:
    before, count, entries, size, is_all = "", FIRST_PAGE, 0, 0, True
    while entries < MOST_RESULTS and size < MOST_BYTES:
        page = await ledger.insist(partial(ledger.stream.read_results_back, before, count))
        if not page:
            if not is_all:
                yield None
            return
        for before, fields in page:  # noqa: B007 - the next page begins behind the last one
            entries, size = entries + 1, size + sum(map(len, fields.values()))
            if newer_version(fields):
                is_all = False
                continue
            for ended in _workers_of(fields, task_id):
                yield ended
        count = max(1, min(PAGE, PAGE_BYTES * entries // max(size, 1)))
    more = await ledger.insist(partial(ledger.stream.read_results_back, before, 1))
    if more or not is_all:
        yield None


def _workers_of(fields: Mapping[str, str], task_id: str) -> Iterator[Ended]:
    if fields.get("type") == "scale_up" and task_id in ("", fields.get("task_id")):
        for outcome in msgspec.json.decode(fields.get("workers", "[]")):
            yield Ended(fields["event_id"], fields.get("task_id", ""), outcome)
