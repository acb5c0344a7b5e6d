"""How the pod of one attempt comes to exist: adopted where it is there already, created where it is not, or refused
for good.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import trio

from ottoscaler.errors import Ambiguous, Conflict, NotFound, OttoscalerError, Refused, Unavailable, WritesSuspended
from ottoscaler.events import Event
from ottoscaler.fleet import Follow, PodRecord
from ottoscaler.log import log
from ottoscaler.outcomes import STOP_REASONS
from ottoscaler.spine.site import Site
from ottoscaler.verdicts import Verdict, judge_refusal

QUIET_SECONDS = 5.0
"""An API that does not answer any create of this process is named only after this time: most such troubles are over by
then."""
STOPPED = Verdict("terminated", "Stopped", STOP_REASONS["Stopped"])


class _Trouble(NamedTuple):
    """Why a create must be made again."""

    cause: str
    reason: str


class Creation:
    """The creating of one attempt's pod.

    `uid` and `version` are those of the pod once it is known (version 0 where only the watch told of it),
    `is_under_way` is True while a create has been sent and not answered, `fence_from` (Unix s, 0 = never) is when a
    create was last known to be without an answer: it may be carried out later.
    """

    def __init__(
        self,
        site: Site,
        event: Event,
        index: int,
        attempt: int,
        *,
        stop: trio.Event,
        note: Callable[[str, str], None],
        uid: str = "",
        fence_from: float = 0.0,
    ) -> None:
        self.uid = uid
        self.version = 0
        self.is_under_way = False
        self.fence_from = fence_from
        self._site = site
        self._event = event
        self._index = index
        self._attempt = attempt
        self._stop = stop
        self._note = note
        self._name = site.name_pod(event.id, index, attempt)
        self._asked_wait = 0.0
        self._give_up_at = math.inf
        self._troubled_since: dict[str, float] = {}
        self._told: set[str] = set()

    def has_pod(self) -> bool:
        """Whether the pod is known to exist, or to have existed."""
        return bool(self.uid)

    async def ensure(self, follow: Follow) -> Verdict | None:
        """Return None once the pod exists and its uid is known, or why it never will."""
        self._give_up_at = give_up_at = trio.current_time() + self._site.patience.create_timeout
        delays = self._site.backoff.delays()
        while not (self.has_pod() or self._adopt(follow.record)):
            if self._stop.is_set():
                return STOPPED
            said = await self._try(follow)
            if isinstance(said, Verdict):
                return said
            if said and trio.current_time() >= give_up_at and not self._adopt(follow.record):
                return self._fail(said.cause, f"the API did not accept the pod: {said.reason}")
            if said and not self.has_pod():
                delay = min(next(delays), self._tell(said))
                wait = max(delay, min(self._asked_wait, give_up_at - trio.current_time()))
                with trio.move_on_after(wait):
                    await self._stop.wait()
        return None

    def _fail(self, cause: str, reason: str) -> Verdict:
        """It will never exist; where a create is without an answer, nobody knows whether it did."""
        return Verdict("failed", cause, reason, has_started=None if self.fence_from else False)

    def _tell(self, trouble: _Trouble) -> float:
        """Log each cause once, when it is first seen; an API that does not answer once that lasts, or will last by what
        it asked for. In how many seconds the cause is to be named; infinity: it is.
        """
        now, (cause, reason) = trio.current_time(), trouble
        due = self._due(cause, now)
        if cause in self._told or max(now + self._asked_wait, self._site.writes.paused_until) < due:
            log.debug("create is tried again", event_id=self._event.id, worker=self._name, reason=reason)
            return math.inf if cause in self._told else due - now
        self._told.add(cause)
        self._note(cause, reason)
        log.warning(
            "worker cannot be created yet",
            of_many=True,
            event_id=self._event.id,
            task_id=self._event.task_id,
            worker=self._name,
            attempt=self._attempt,
            cause=cause,
            reason=reason,
        )
        return math.inf

    def _due(self, cause: str, now: float) -> float:
        """When a cause is to be named (clock of trio)."""
        since = self._troubled_since.setdefault(cause, now)
        if cause != "ApiUnavailable":
            return since
        return min(since, self._site.writes.failing("create").since) + QUIET_SECONDS

    async def _try(self, follow: Follow) -> Verdict | _Trouble | None:
        """One create: a verdict, why it must be made again, or None when it need not be or was not even sent."""
        self._asked_wait = 0.0
        try:
            pod = await self._site.create(self._event, self._index, self._attempt, self._note_sent, self._give_up_at)
        except WritesSuspended:
            await self._site.wait_writable()
            return None
        except Unavailable as error:
            if isinstance(error, Ambiguous):
                self.fence_from = self._site.now()
            self._asked_wait = error.retry_after or 0.0
            return _Trouble("ApiUnavailable", str(error))
        except Conflict as error:
            return await self._judge_conflict(follow, error)
        except (NotFound, Refused) as error:
            cause, is_passing = judge_refusal(error)
            is_passing = is_passing and not self._site.policy_for(self._event).is_made_final(cause)
            return _Trouble(cause, str(error)) if is_passing else self._fail(cause, str(error))
        self._own(pod)
        trace_id = self._site.traces.of_worker(self._event, self._index, self._attempt).trace_id
        facts = {"event_id": self._event.id, "task_id": self._event.task_id, "trace_id": trace_id or None}
        say = log.info if self._attempt == 1 else log.debug  # the end before it said that it runs again
        say("worker created", **facts, worker=self._name, attempt=self._attempt, stage="accepted")
        return None

    def _note_sent(self, is_under_way: bool) -> None:
        self.is_under_way = is_under_way

    def _own(self, pod: dict[str, Any]) -> None:
        self._site.fleet.learn(pod)
        self.uid, self.version = pod["metadata"]["uid"], int(pod["metadata"]["resourceVersion"])

    def _adopt(self, record: PodRecord | None) -> bool:
        """Take the pod over that is already there; another era's pod of this name is not ours to take. One that was
        seen and is gone by now was this attempt, too: made again it would run a second time.
        """
        if record is None or record.era != self._site.era:
            return False
        self.uid = record.uid
        return True

    async def _judge_conflict(self, follow: Follow, error: OttoscalerError) -> Verdict | _Trouble | None:
        """409: ours is adopted, another's is a failure that says whose it is."""
        with trio.move_on_after(self._site.patience.appearance):
            await follow.wait(lambda record: record is not None and not record.gone)
        if self._adopt(follow.record):
            return None
        pod = await self._site.read_pod(self._event.id, self._name)
        if pod is None:
            return _Trouble("ApiUnavailable", str(error))
        if whose := self._site.stranger(pod):
            self.fence_from = 0.0  # whatever still comes meets the same 409
            return self._fail("NameTaken", f"pod {self._name} exists already and {whose}")
        self._own(pod)
        return None
