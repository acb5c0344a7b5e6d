"""The sweep: pods of ours that belong to no event are found, reported, and deleted after a grace. Off the hot path, on
every replica.

It looks at the fleet, so it costs the API nothing, and asks Redis which of the events are known. While Redis does
not answer nothing is judged. Pods of another era are only reported: a Redis that was emptied must not cost a
running worker.
"""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress

import trio

from ottoscaler.errors import Unavailable
from ottoscaler.fleet import PodRecord
from ottoscaler.log import log
from ottoscaler.metrics import ORPHANS
from ottoscaler.spine.fences import Guard
from ottoscaler.spine.roster import Roster
from ottoscaler.spine.site import Site

PERIOD_SECONDS = 10.0


class Sweeper:
    """Finds orphans. `grace` (s): how long an event must stay unknown before its pods are deleted."""

    def __init__(self, site: Site, guard: Guard, roster: Roster, grace: float) -> None:
        self._site = site
        self._guard = guard
        self._roster = roster
        self._grace = grace
        self._suspected: dict[str, float] = {}
        self._foreign: Counter[str] = Counter()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Sweep at a jittered interval until cancelled."""
        task_status.started()
        while True:
            await trio.sleep(PERIOD_SECONDS * random.uniform(0.8, 1.2))
            with suppress(Unavailable):
                await self._sweep()

    async def _sweep(self) -> None:
        pods = [record for record in self._site.fleet.records.values() if not record.gone and not record.deleting]
        self._report_foreign(pods)
        unsure = [record for record in pods if self._is_unsure(record)]
        known = await self._site.ledger.stream.sweep(sorted({record.event_id for record in unsure}))
        orphans = [record for record in unsure if record.event_id not in known]
        orphans += [record for record in pods if self._is_superfluous(record)]
        now = trio.current_time()
        self._suspected = {record.uid: self._suspected.get(record.uid, now) for record in orphans}
        for record in orphans:
            if now - self._suspected[record.uid] >= self._grace:
                log.warning(
                    "orphan deleted", event_id=record.event_id, worker=record.name, reason="its event is unknown"
                )
                await self._site.delete(record.event_id, record.name, record.uid)
                ORPHANS.inc()

    def _is_unsure(self, record: PodRecord) -> bool:
        return (
            record.era == self._site.era
            and record.event_id != ""
            and record.event_id not in self._roster
            and record.name not in self._guard
        )

    def _is_superfluous(self, record: PodRecord) -> bool:
        """A pod of an event in work here whose attempt has ended: somebody's late create brought it."""
        work = self._roster.work_of(record.event_id)
        return record.era == self._site.era and work is not None and not work.needs(record)

    def _report_foreign(self, pods: list[PodRecord]) -> None:
        """Say once which other eras have pods, and again when their number has changed."""
        foreign = Counter(record.era for record in pods if record.era != self._site.era)
        for era in foreign.keys() - {era for era, number in self._foreign.items() if foreign[era] == number}:
            advice = f"ottoscaler sweep --era {era} deletes them"
            log.warning("pods of another era", era=era, pods=foreign[era], cause="EraLost", reason=advice)
        self._foreign = foreign
