"""GetWorkerStatus: what runs, as the fleet knows it, and what has ended, as progress and results know it."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
import trio

from ottoscaler.calls.ended_workers import EndedWorkers, ended_workers
from ottoscaler.calls.worker_rows import Row, page_token, place_of, row_of_outcome, row_of_pod
from ottoscaler.errors import Unavailable
from ottoscaler.fleet import PodRecord
from ottoscaler.rpc.door import StatusAnswer, StatusQuestion, WorkerStatus
from ottoscaler.spine.site import Site

PAGE_BYTES = 3 * 1024 * 1024
"""Of workers in one answer: gRPC clients take messages of up to 4 MiB unless they are told otherwise."""
PATIENCE_SECONDS = 10.0
AT_ONCE = 500
"""Workers that are written out before others get their turn."""


async def worker_status(site: Site, question: StatusQuestion) -> StatusAnswer:
    """Count and list the workers asked for. Raises `InvalidCall` for a page token that is none, `Unavailable`."""
    after = place_of(question.page_token) if question.page_token else None
    ended, is_truncated = await _read_ended(site, question.task_id)
    newest = _newest_attempts(site.fleet.records)
    rows = {
        (one.event_id, one.outcome["index"]): row_of_outcome(one, site.fleet.records.get(one.outcome["name"]))
        for one in ended
    }
    await trio.lowlevel.checkpoint()
    for worker, record in newest.items():
        if (worker not in rows or rows[worker].is_before(record)) and question.task_id in ("", record.task_id):
            rows[worker] = row_of_pod(record)
    name = question.worker_pod_name
    asked = sorted(
        (row for worker, row in rows.items() if name in ("", row.pod_name) or _is_first_pod(site, name, worker)),
        key=lambda row: row.place,
    )
    counts = Counter(row.status for row in asked)
    shown = [row for row in asked if question.status_filter in ("", row.status)]
    start = bisect_right(shown, after, key=lambda row: row.place) if after else 0
    page, is_last = await _page(shown[start:], question.page_size)
    return StatusAnswer(
        total_count=len(asked),
        pending_count=counts["pending"],
        running_count=counts["running"],
        succeeded_count=counts["succeeded"],
        failed_count=counts["failed"],
        terminated_count=counts["terminated"],
        workers=tuple(page),
        next_page_token="" if is_last else page_token(shown[start + len(page) - 1].place),
        is_truncated=is_truncated,
    )


def _is_first_pod(site: Site, name: str, worker: tuple[str, int | str]) -> bool:
    """Whether this is the name under which calls were told of a worker, which may have been run again since."""
    event_id, index = worker
    return isinstance(index, int) and name == site.name_pod(event_id, index, 1)


async def _read_ended(site: Site, task_id: str) -> EndedWorkers:
    """Unknown is never zero: where Redis or the API has not answered in time, the question has no answer."""
    with trio.move_on_after(PATIENCE_SECONDS):
        await site.fleet.wait_synced()
        return await ended_workers(site.ledger, task_id)
    raise Unavailable(f"Redis or the Kubernetes API did not answer within {PATIENCE_SECONDS:g} s")


def _newest_attempts(records: Mapping[str, PodRecord]) -> dict[tuple[str, int | str], PodRecord]:
    """Of a worker that was run again the last pod counts; one whose labels are gone stands for itself."""
    newest: dict[tuple[str, int | str], PodRecord] = {}
    for record in records.values():
        worker = (record.event_id, record.index) if record.event_id else ("", record.name)
        known = newest.get(worker)
        if known is None or known.attempt < record.attempt:
            newest[worker] = record
    return newest


async def _page(rows: Sequence[Row], most: int) -> tuple[list[WorkerStatus], bool]:
    """The first that fit, at least one, and whether they are all."""
    page: list[WorkerStatus] = []
    size = 0
    for row in rows:
        worker = row.shown()
        size += len(msgspec.json.encode(worker))
        if page and (size > PAGE_BYTES or len(page) == most):
            return page, False
        page.append(worker)
        if len(page) % AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
    return page, True
