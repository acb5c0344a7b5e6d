"""What the pod of one worker says over its life: verdicts with the memory that a single record does not have.

In: each record of the pod, and what the kubelet warned of it. Out: the end, why it does not start and until when that
is waited out, and what is only reported; every cause is logged once, when it is first seen. It waits for nothing but
warnings, which the pod itself does not show.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from ottoscaler.fleet import PodRecord
from ottoscaler.log import Log
from ottoscaler.pod_warnings import PodWarning
from ottoscaler.retries import RetryPolicy
from ottoscaler.spine.site import Site
from ottoscaler.verdicts import Late, Stuck, Verdict, is_waiting_for_volumes, judge_end, judge_late, judge_stuck


class Diagnosis:
    """The judgement of one attempt's pod; `log` is bound to its worker, `note` puts a cause and reason into the
    progress.
    """

    def __init__(self, site: Site, name: str, log: Log, policy: RetryPolicy, note: Callable[[str, str], None]) -> None:
        self._site = site
        self._policy = policy
        self._note = note
        self._name = name
        self._log = log
        self._told: set[str] = set()
        self._pull_error = ""
        self._patience = ""
        self._stuck_since = self._tell_at = math.inf
        self._warnings: tuple[PodWarning, ...] = ()

    def judge_end(self, record: PodRecord) -> Verdict | None:
        """The worker's end as far as this record and the warnings show one."""
        return judge_end(record, self._heed(record))

    def judge_stuck(self, record: PodRecord) -> Stuck | None:
        """Why the worker does not start; the words of a pull that failed outlast the back-off that hides them."""
        if record.waiting_reason == "ErrImagePull":
            self._pull_error = record.waiting_message
        if record.deleting:
            return None
        return judge_stuck(record, self._pull_error, self._heed(record), trio.current_time())

    def stuck_until(self, record: PodRecord) -> float:
        """Until when (trio's clock) what keeps the worker from starting is waited out; infinity when nothing does."""
        stuck = self.judge_stuck(record)
        if stuck is None:
            self._stuck_since = self._tell_at = math.inf
            return math.inf
        if self._stuck_since == math.inf or self._patience != stuck.patience:
            self._patience, self._stuck_since = stuck.patience, trio.current_time()
        self._tell_at = self._stuck_since + stuck.quiet
        if self._tell_at <= trio.current_time():
            self._tell("worker does not start", stuck.cause, stuck.reason)
        is_final = self._policy.is_made_final(stuck.cause)
        limit = 0.0 if is_final else self._site.patience.graces.limit(stuck.patience)
        return math.inf if limit is None else self._stuck_since + limit

    def judge_late(self, record: PodRecord) -> Verdict | None:
        """Report what does not go on or away by now; the verdict where that ends the worker."""
        for late in judge_late(record):
            if self._when(late) > trio.current_time():
                continue
            self._tell("worker does not end", late.cause, late.reason)
            if late.ends:
                return Verdict("failed", late.cause, late.reason, has_started=True)
        return None

    def late_at(self, record: PodRecord) -> float:
        """When (trio's clock) to look at this record again though nothing has changed."""
        now = trio.current_time()
        return min(at for at in (self._tell_at, *map(self._when, judge_late(record)), math.inf) if at > now)

    async def wait_warning(self, record: PodRecord) -> None:
        """Wait for news that the pod does not show; only while there may be some that matter."""
        if not is_waiting_for_volumes(record):
            await trio.sleep_forever()
        await self._site.warnings.wait_change(self._name, record.uid, self._warnings)

    def _heed(self, record: PodRecord) -> tuple[PodWarning, ...]:
        self._warnings = self._site.warnings.of(self._name, record.uid)
        return self._warnings

    def _when(self, late: Late) -> float:
        return trio.current_time() + late.at - self._site.now()

    def _tell(self, words: str, cause: str, reason: str) -> None:
        if cause not in self._told:
            self._told.add(cause)
            self._log.warning(words, of_many=True, cause=cause, reason=reason)
            self._note(cause, reason)
