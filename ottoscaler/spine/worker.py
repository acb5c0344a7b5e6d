"""One worker: create → accepted → wait for the end → record the outcome. The pod it leaves is cleaned by its scaling.

In: the event, an index, and what the progress knows of the attempt. Out: its outcome. It waits on the fleet, which
one shared watch feeds, and asks the API by name only where the watch cannot tell: after a 409 that nobody sees, and
when a pod vanished that nobody of ours deleted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import trio
import trio_util

from ottoscaler.events import Event
from ottoscaler.fair import FairLimiter
from ottoscaler.fleet import Follow, PodRecord
from ottoscaler.log import log
from ottoscaler.metrics import CAUSES_NAMED, StageClock, count_attempt
from ottoscaler.outcomes import STOP_REASONS, WorkerOutcome, read_outcome, rfc3339
from ottoscaler.spine.creation import STOPPED, Creation
from ottoscaler.spine.diagnosis import Diagnosis
from ottoscaler.spine.site import Site
from ottoscaler.stream.base import Accepted, Claim, Outcome
from ottoscaler.verdicts import Verdict, has_started, is_waiting_for_volumes


class Worker:
    """The life of one attempt of one worker.

    `earlier`: the causes of the attempts before it. `accepted_uid`: the pod that an earlier owner saw accepted ("" =
    none was). `fence_from` (Unix s, 0 = no): when an earlier owner may have sent a create that was never answered.
    `begun` (Unix s): since when the work on its event is under way, for the first attempt's time to be counted from; of
    a pod that was accepted, since when it was.
    """

    def __init__(
        self,
        site: Site,
        event: Event,
        claim: Claim,
        index: int,
        attempt: int = 1,
        *,
        earlier: Sequence[str] = (),
        accepted_uid: str = "",
        fence_from: float = 0.0,
        begun: float = 0.0,
    ) -> None:
        self.name = site.name_pod(event.id, index, attempt)
        self._site = site
        self._event = event
        self._claim = claim
        self._index = index
        self._attempt = attempt
        self._earlier = earlier
        self._stop = trio.Event()
        self._stop_cause = "Stopped"
        self._waiting = trio.CancelScope()
        trace_id = site.traces.of_worker(event, index, attempt).trace_id
        self._log = log.bind(event_id=event.id, worker=self.name, attempt=attempt, trace_id=trace_id or None)
        self._creation = Creation(
            site, event, index, attempt, stop=self._stop, note=self._note, uid=accepted_uid, fence_from=fence_from
        )
        self._is_accepted = bool(accepted_uid)
        self.accepted: Accepted | None = None
        """What was recorded of it here."""
        self.recorded_since = 0
        """The count of restarts before its end was recorded."""
        self.accepted_at = math.inf
        self._last: PodRecord | None = None
        self._deleted = False
        self._is_stop_durable = False
        self._uncertain_since = 0.0
        self._diagnosis = Diagnosis(site, self.name, self._log, site.policy_for(event), self._note)
        self._named: tuple[str, ...] = ()
        self._began = begun
        self._on_gap = site.traces.gaps(event, index, attempt)
        is_first = begun and not accepted_uid
        self._clock = StageClock("started" if is_first else "", begun if is_first else 0.0, self._on_gap)
        self._is_inherited = bool(accepted_uid)

    def __repr__(self) -> str:
        return f"<Worker {self.name} uid={self._uid or None} stopping={self._stop.is_set()}>"

    def stop(self, cause: str = "Stopped") -> None:
        """End it, for `cause` (Stopped, Cancelled), and let it end as terminated. Safe to call twice."""
        self._stop_cause = cause
        self._stop.set()
        self._waiting.cancel(reason=f"the worker is to stop: {cause}")

    @property
    def stop_cause(self) -> str:
        """Why it is to stop; empty while it is not."""
        return self._stop_cause if self._stop.is_set() else ""

    async def wait_turn(self, not_before: float, slots: FairLimiter) -> None:
        """Return with a slot once the time (Unix s) has come and the attempt before has surely ended.

        One that is to stop waits for none of it.
        """

        async def turn() -> None:
            await self._wait_former()
            await trio.sleep(self._site.policy_for(self._event).wait(not_before - self._site.now()))
            await slots.acquire(self._event.id)
            got.set()

        got = trio.Event()
        await trio_util.wait_any(turn, self._stop.wait)
        if not got.is_set():
            slots.acquire_beyond()

    async def _wait_former(self) -> None:
        """A pod that was given up while it ran (hung, on a lost node) must be gone before another runs beside it."""
        former = self._site.name_pod(self._event.id, self._index, self._attempt - 1)
        with self._site.fleet.follow(former) as follow:
            await follow.wait(lambda r: r is None or r.gone or r.is_final or r.exit_code is not None)

    async def run(self) -> WorkerOutcome:
        """Live to the end, record it, and return the outcome that stands. Raises `NotOurs` when the event was lost."""
        if self._attempt > 1 and not self._is_inherited:
            self._began = self._site.now()
            self._clock = StageClock("started", self._began, self._on_gap)
        with self._site.fleet.follow(self.name) as follow:
            verdict = await self._live(follow)
        self._clock.reach("ended", self._site.now())
        outcome = self._outcome(verdict)
        self.recorded_since = self._site.ledger.stream.restarts
        stands = await self._record(outcome)
        recorded_at = self._site.now()
        self._clock.reach("recorded", recorded_at)
        self._site.traces.worker_ended(self._event, stands, self._began, recorded_at)
        self._count_cause(stands.cause)
        count_attempt(stands.outcome, stands.cause, is_retried=stands.retry_at > 0)
        say = self._log.warning if stands.retry_at > 0 else self._log.info
        say(
            "worker ended",
            task_id=self._event.task_id,
            stage="recorded",
            outcome=stands.outcome,
            cause=stands.cause,
            reason=stands.reason or None,
            retry=stands.retry_at > 0 or None,
        )
        return stands

    async def _live(self, follow: Follow) -> Verdict:
        if refused := await self._creation.ensure(follow):
            return refused
        await self._note_accepted()
        return await self._wait_end(follow)

    @property
    def _uid(self) -> str:
        return self._creation.uid

    @property
    def is_unanswered(self) -> bool:
        """A create of ours may still be carried out, and nothing in the progress says so."""
        return self._creation.is_under_way or bool(self._creation.fence_from and not self._is_accepted)

    async def _note_accepted(self) -> None:
        if self._is_accepted:
            return
        self.accepted_at = self._site.now()
        self._clock.reach("accepted", self.accepted_at)
        fence_from = self._creation.fence_from
        fence = int((fence_from + self._site.patience.create_fence) * 1000) if fence_from else 0
        self.accepted = Accepted(self._index, self._attempt, self._uid, int(self.accepted_at * 1000), fence)
        await self._site.ledger.record(self._claim, accepted=(self.accepted,))
        self._is_accepted = True

    # -- waiting

    async def _wait_end(self, follow: Follow) -> Verdict:
        await self._wait_appearance(follow)
        while True:
            record = follow.record
            if record is None or record.gone or record.uid != self._uid:
                if ended := await self._judge_vanished(follow, record):
                    return ended
                continue
            said = await self._judge(follow, record)
            if isinstance(said, Verdict):
                return said
            with trio.move_on_at(said):
                await self._wait_change(follow, record)

    async def _judge(self, follow: Follow, record: PodRecord) -> Verdict | float:
        """The verdict on a pod that is there, or until when (clock of trio) only a change of it can bring one."""
        self._last = record
        self._note_stages(record)
        verdict = self._diagnosis.judge_end(record)
        if verdict and verdict.certain:
            return verdict
        if not verdict and (hung := self._diagnosis.judge_late(record)):
            await self._delete(record)
            return hung
        now = trio.current_time()
        self._uncertain_since = (self._uncertain_since or now) if verdict else 0.0
        final_by = self._uncertain_since + self._site.patience.final_phase
        limit = final_by if verdict else self._diagnosis.stuck_until(record)
        if limit <= now:
            return verdict or await self._give_up(follow, record) or now
        if not verdict and await self._stop_once(record):  # else it has ended by itself, and is about to say so
            return now
        return min(limit, self._diagnosis.late_at(record))

    async def _wait_appearance(self, follow: Follow) -> None:
        """A pod just created is settled when the watch shows it, or has passed its version without it."""

        async def seen() -> None:
            await follow.wait(lambda record: record is not None)

        if follow.record is None and self._creation.version:
            await trio_util.wait_any(seen, lambda: self._site.fleet.wait_version(self._creation.version))

    async def _wait_change(self, follow: Follow, seen: PodRecord) -> None:
        """Return when the record is another one, when a stop was asked for that nobody acted on yet, or when the
        kubelet warns of what keeps the worker from starting.
        """

        async def changed() -> None:
            await follow.wait(lambda record: record is not seen)

        with trio.CancelScope() as self._waiting:  # no task of its own for the stop: here all workers spend their lives
            if is_waiting_for_volumes(seen):
                await trio_util.wait_any(changed, lambda: self._diagnosis.wait_warning(seen))
            else:
                await changed()

    async def _stop_once(self, record: PodRecord) -> bool:
        """Delete the pod if it is to stop; True: time has passed, judge it again before that. What is known of it must
        be on the disk of Redis first: forgotten in a crash, with its pod gone, the worker would run once more.
        """
        if not self._stop.is_set() or self._deleted:
            return False
        if not self._is_stop_durable:
            await self._make_stop_durable()
            return True
        await self._delete(record)
        return False

    async def _make_stop_durable(self) -> None:
        """Return when Redis cannot forget the stop any more, or has, perhaps with all of the event: then it is none."""
        ledger, stream = self._site.ledger, self._site.ledger.stream
        since = stream.restarts
        await ledger.insist(stream.wait_durable)
        while since != stream.restarts:
            since = stream.restarts
            progress = await ledger.insist(partial(stream.read_progress, self._event.id))
            if progress is None or progress.owner != self._claim.session or self._index not in progress.stops:
                self._stop = trio.Event()
                return
            await ledger.insist(stream.wait_durable)
        self._is_stop_durable = True

    async def _delete(self, record: PodRecord) -> None:
        await self._site.delete(self._event.id, self.name, record.uid)
        self._deleted = True

    async def _give_up(self, follow: Follow, record: PodRecord) -> Verdict | None:
        """Delete a pod that will not start, unless it has changed meanwhile: then it is judged again (None)."""
        stuck = self._diagnosis.judge_stuck(record)
        if stuck and await self._site.delete(self._event.id, self.name, record.uid, record.resource_version):
            self._deleted = True
            return Verdict("failed", stuck.cause, stuck.reason, has_started=has_started(record))
        with trio.move_on_after(self._site.patience.appearance):
            await self._wait_change(follow, record)
        return None

    async def _judge_vanished(self, follow: Follow, record: PodRecord | None) -> Verdict | None:
        """The watch does not show the pod; where we did not delete it, the API is asked once. None: it is there after
        all.
        """
        if record is not None and record.uid == self._uid:
            self._last = record
            if verdict := self._diagnosis.judge_end(record):
                return verdict
        if self._deleted and self._stop.is_set():
            return STOPPED
        pod = await self._site.read_pod(self._event.id, self.name)
        if pod is None or pod["metadata"]["uid"] != self._uid:
            started = has_started(self._last) if self._last is not None and self._last.gone else None
            return Verdict(
                "failed", "DeletedByOther", f"pod {self.name} was deleted by someone else", has_started=started
            )
        if not self._site.stranger(pod):
            self._site.fleet.learn(pod)
            if follow.record is not None and follow.record.uid == self._uid and not follow.record.gone:
                return None
        return await self._follow_by_name(follow, pod)

    async def _follow_by_name(self, follow: Follow, pod: dict[str, Any] | None) -> Verdict:
        """Somebody took its labels away, so the shared watch sees it no more; it runs on, and is read by its name.

        Rare enough for a look every few seconds; a watch of its own would be one more thing that can be cut and go
        silent.
        """
        self._log.warning("worker is not in the watch and is followed by name", cause="LabelsLost")
        self._count_cause("LabelsLost")
        while pod is not None and pod["metadata"]["uid"] == self._uid:
            said = await self._judge(follow, PodRecord.from_pod(pod))
            if isinstance(said, Verdict):
                return said
            with trio.move_on_at(min(said, trio.current_time() + self._site.patience.appearance)):
                await (trio.Event() if self._stop.is_set() else self._stop).wait()
            pod = await self._site.read_pod(self._event.id, self.name)
        self._last = None
        return STOPPED if self._stop.is_set() else Verdict("failed", "DeletedByOther", f"pod {self.name} was deleted")

    # -- seeing

    def _note(self, cause: str, reason: str) -> None:
        """Something keeps it from starting or ending."""
        self._count_cause(cause)
        self._site.ledger.note_trouble(self._claim, self._index, cause, reason)

    def _count_cause(self, cause: str) -> None:
        if cause and cause not in self._named:
            self._named += (cause,)
            CAUSES_NAMED.labels(cause).inc()

    def _note_stages(self, record: PodRecord) -> None:
        """What the pod shows was reached just now; where it came in one piece with its end, its own time counts."""
        reach, now = self._clock.skip if self._is_inherited else self._clock.reach, self._site.now()
        is_late = self._is_inherited or record.exit_code is not None
        self._is_inherited = False
        if record.scheduled or record.started_at is not None:
            reach("scheduled", now)
        if record.started_at is not None:
            reach("running", min(now, record.started_at) if is_late else now)

    # -- recording

    def _outcome(self, verdict: Verdict) -> WorkerOutcome:
        last = self._last
        is_left = last is not None and not last.gone and not self._deleted
        return WorkerOutcome(
            name=self.name,
            index=self._index,
            attempt=self._attempt,
            outcome=verdict.outcome,
            cause=verdict.cause,
            reason=verdict.reason,
            exit_code=last.exit_code if last else None,
            started_at=rfc3339(last.started_at if last else None),
            completed_at=rfc3339((last and last.finished_at) or self._site.now()),
            uid=self._uid if is_left else "",
            retry_at=self._retry_at(verdict),
            fence_until=self._fence_until(),
        )

    def _fence_until(self) -> float:
        since = self._creation.fence_from
        return since + self._site.patience.create_fence if since else 0.0

    def _retry_at(self, verdict: Verdict) -> float:
        policy = self._site.policy_for(self._event)
        if verdict.outcome != "failed" or not policy.may_retry(self._earlier, verdict.cause, verdict.has_started):
            return 0.0
        return self._site.now() + policy.delay(self._attempt)

    async def _record(self, outcome: WorkerOutcome) -> WorkerOutcome:
        """Record; where a stop mark stands and the pod was on its way out, the outcome is that of a stopped worker."""
        last = self._last
        was_leaving = last is None or last.gone or last.deleting or self._deleted
        was_leaving = was_leaving or outcome.retry_at > 0
        marked = {cause: outcome.stopped(cause).to_json() for cause in STOP_REASONS} if was_leaving else {}
        retried = self._attempt if outcome.retry_at else 0
        (stands,) = await self._site.ledger.record(
            self._claim, outcomes=(Outcome(self._index, outcome.to_json(), marked, retried),)
        )
        return read_outcome(stands)
