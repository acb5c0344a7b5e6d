"""Where workers live: what every worker shares of the outer ring, and the three ways in which it touches the API.

Each call insists: an API that is away, or a lease that has run out, makes it wait, never fail. What the caller must
decide about leaves as an error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from ottoscaler.backoff import Backoff
from ottoscaler.errors import Ambiguous, Conflict, NotFound, Refused, Unavailable, WritesSuspended
from ottoscaler.events import Event
from ottoscaler.fair import FairLimiter
from ottoscaler.fleet import Fleet, PodRecord
from ottoscaler.kube.client import Kube
from ottoscaler.log import log
from ottoscaler.pod_warnings import PodWarnings
from ottoscaler.pods import ERA_LABEL, EVENT_LABEL, INSTANCE_LABEL
from ottoscaler.retries import RetryPolicy
from ottoscaler.spine.ledger import Ledger
from ottoscaler.spine.standings import Standings
from ottoscaler.spine.traces import NO_TRACES, Traces
from ottoscaler.spine.worker_logs import NO_LOGS, WorkerLogs
from ottoscaler.throttle import Throttle
from ottoscaler.verdicts import Graces


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things may take, in seconds."""

    cleanup_delay: float = 1.0
    create_fence: float = 60.0
    create_timeout: float = 600.0
    final_phase: float = 10.0
    """An end that is not certain waits this long for the pod's final phase (it comes about 1.1 s later)."""
    phase_lag: float = 1.5
    """A large event that has ended waits this long for the phases of its pods, about 1.1 s after the ends."""
    appearance: float = 2.0
    """A pod that the API says exists must be seen by the watch within this time, or is read once by name."""
    graces: Graces = field(default_factory=Graces)


@dataclass(frozen=True, slots=True)
class Site:
    """The shared surroundings of all workers of this process."""

    kube: Kube
    fleet: Fleet
    ledger: Ledger
    standings: Standings
    namespace: str
    instance: str
    era: str
    build_pod: Callable[[Event, int, int], dict[str, Any]]
    name_pod: Callable[[str, int, int], str]
    wait_writable: Callable[[], Any]
    slots: FairLimiter
    writes: Throttle
    patience: Patience
    backoff: Backoff
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    retries_by_template: Mapping[str, RetryPolicy] = field(default_factory=dict)
    now: Callable[[], float] = time.time
    warnings: PodWarnings = field(default_factory=PodWarnings)
    logs: WorkerLogs = NO_LOGS
    traces: Traces = NO_TRACES

    def policy_for(self, event: Event) -> RetryPolicy:
        """How failures of this event's workers are met: its own word, its template's, else the settings'."""
        policy = self.retries_by_template.get(event.template, self.retries)
        return policy.asked(event.spec.retry) if event.spec else policy

    async def delete(self, event_id: str, name: str, uid: str, resource_version: int | None = None) -> bool:
        """Delete exactly this pod. False: it has changed since `resource_version`, or the name belongs to another pod
        now.
        """
        delays = self.backoff.delays()
        while True:
            try:
                async with self.writes.hold("delete", event_id):
                    await self.kube.delete_pod(self.namespace, name, uid=uid, resource_version=resource_version)
            except Conflict:
                return False
            except WritesSuspended:
                await self.wait_writable()
            except Unavailable as away:
                await trio.sleep(max(next(delays), away.retry_after or 0.0))
            except Refused as refused:
                log.warning("delete refused", event_id=event_id, worker=name, cause=refused.reason, reason=str(refused))
                await trio.sleep(max(10.0, next(delays)))
            else:
                return True

    async def delete_finished(self, event_id: str, number: int) -> None:
        """Delete the finished pods of one event, `number` of them, as collections of at most 500."""
        selector = f"{INSTANCE_LABEL}={self.instance},{ERA_LABEL}={self.era},{EVENT_LABEL}={event_id}"
        for _ in range(0, number, 500):
            try:
                async with self.writes.hold("delete", event_id):
                    await self.kube.delete_finished_pods(self.namespace, selector, limit=500)
            except (Unavailable, WritesSuspended, Refused, Conflict, NotFound) as error:
                log.debug(
                    "collection delete failed; each pod is deleted by itself", event_id=event_id, reason=str(error)
                )
                return

    async def read_pod(self, event_id: str, name: str) -> dict[str, Any] | None:
        """One GET, for the rare cases in which the watch cannot tell; None = there is no such pod."""
        delays = self.backoff.delays()
        is_told = False
        while True:
            try:
                return await self.kube.get_pod(self.namespace, name)
            except NotFound:
                return None
            except Unavailable as away:
                await trio.sleep(max(next(delays), away.retry_after or 0.0))
            except Refused as refused:
                if not is_told:
                    reason = f"{refused}; expected the right to get pods (ottoscaler check says which are missing)"
                    log.warning("read refused", event_id=event_id, worker=name, cause="Forbidden", reason=reason)
                is_told = True
                await trio.sleep(max(10.0, next(delays)))

    def stranger(self, pod: Mapping[str, Any]) -> str:
        """Whose a pod of one of our names is, in words; empty when it is ours."""
        labels = pod["metadata"].get("labels") or {}
        instance, era = labels.get(INSTANCE_LABEL), labels.get(ERA_LABEL)
        if instance is None:
            return f"is managed by {labels.get('app.kubernetes.io/managed-by', 'somebody else')}"
        if instance != self.instance:
            return f"belongs to the Ottoscaler instance {instance}"
        if era != self.era:
            return f"belongs to era {era}, which this Redis has forgotten"
        return ""

    def is_labelled(self, record: PodRecord) -> bool:
        """Whether a pod's labels say which attempt it is: somebody may have changed them, while its name stays."""
        return record.attempt > 0 and self.name_pod(record.event_id, record.index, record.attempt) == record.name

    async def create(
        self, event: Event, index: int, attempt: int, sent: Callable[[bool], None], give_up_at: float
    ) -> dict[str, Any]:
        """Send one create. `sent(True)` is called before, `sent(False)` once an answer of any kind has come.

        Raises what the API answers: `Conflict`, `Refused`, `Unavailable`, `Ambiguous`, `WritesSuspended` (nothing
        was sent). Nothing is sent to an API that has put off all creates for CREATE_TIMEOUT_SECONDS, and one even after
        `give_up_at` (clock of trio): those who wait for their turn would have to wait one pause each.
        """
        body = self.build_pod(event, index, attempt)
        async with self.writes.hold("create", event.id):
            failing = self.writes.failing("create")
            if failing.last >= max(give_up_at, failing.since + self.patience.create_timeout):
                raise Unavailable(failing.reason)
            sent(True)
            try:
                pod = await self.kube.create_pod(self.namespace, body)
            except Ambiguous:
                raise
            except Exception:
                sent(False)
                raise
            sent(False)
            return pod
