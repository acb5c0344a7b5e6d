"""How the pod of one attempt comes to exist: adopted where it is there already, created where it is not, or refused
for good.
"""

from __future__ import annotations

from typing import Any

import trio

from ottoscaler.errors import Ambiguous, Conflict, NotFound, OttoscalerError, Refused, Unavailable, WritesSuspended
from ottoscaler.events import Event
from ottoscaler.fleet import Follow, PodRecord
from ottoscaler.log import log
from ottoscaler.outcomes import STOP_REASONS
from ottoscaler.site import Site
from ottoscaler.verdicts import Verdict, judge_refusal

STOPPED = Verdict("terminated", "Stopped", STOP_REASONS["Stopped"])


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
        self._name = site.name_pod(event.id, index, attempt)
        self._asked_wait = 0.0

    def has_pod(self) -> bool:
        """Whether the pod is known to exist, or to have existed."""
        return bool(self.uid)

    async def ensure(self, follow: Follow) -> Verdict | None:
        """Return None once the pod exists and its uid is known, or why it never will."""
        if self.has_pod() or self._adopt(follow.record):
            return None
        give_up_at = trio.current_time() + self._site.patience.create_timeout
        delays = self._site.backoff.delays()
        while not self.has_pod():
            if self._stop.is_set():
                return STOPPED
            said = await self._try(follow)
            if isinstance(said, Verdict):
                return said
            if said and trio.current_time() >= give_up_at:
                return Verdict("failed", "ApiUnavailable", f"the API did not accept the pod: {said}")
            if said:
                log.debug("create is tried again", event_id=self._event.id, worker=self._name, reason=said)
                wait = max(next(delays), min(self._asked_wait, give_up_at - trio.current_time()))
                with trio.move_on_after(wait):
                    await self._stop.wait()
        return None

    async def _try(self, follow: Follow) -> Verdict | str:
        """One create: a verdict, why it must be made again, or empty when it need not be or was not even sent."""
        self._asked_wait = 0.0
        try:
            pod = await self._site.create(self._event, self._index, self._attempt, self._note_sent)
        except WritesSuspended:
            await self._site.wait_writable()
            return ""
        except Ambiguous as error:
            self.fence_from = self._site.now()
            self._asked_wait = error.retry_after or 0.0
            return str(error)
        except Unavailable as error:
            self._asked_wait = error.retry_after or 0.0
            return str(error)
        except NotFound as error:  # the namespace is not there (yet)
            return str(error)
        except Conflict as error:
            return await self._judge_conflict(follow, error)
        except Refused as error:
            cause, is_passing = judge_refusal(error)
            return str(error) if is_passing else Verdict("failed", cause, str(error))
        self._own(pod)
        log.info("worker created", event_id=self._event.id, task_id=self._event.task_id, worker=self._name)
        return ""

    def _note_sent(self, is_under_way: bool) -> None:
        self.is_under_way = is_under_way

    def _own(self, pod: dict[str, Any]) -> None:
        self._site.fleet.learn(pod)
        self.uid, self.version = pod["metadata"]["uid"], int(pod["metadata"]["resourceVersion"])

    def _adopt(self, record: PodRecord | None) -> bool:
        """Take the pod over that is already there; another era's pod of this name is not ours to take."""
        if record is None or record.gone or record.era != self._site.era:
            return False
        self.uid = record.uid
        return True

    async def _judge_conflict(self, follow: Follow, error: OttoscalerError) -> Verdict | str:
        """409: ours is adopted, another's is a failure that says whose it is."""
        with trio.move_on_after(self._site.patience.appearance):
            await follow.wait(lambda record: record is not None and not record.gone)
        if self._adopt(follow.record):
            return ""
        pod = await self._site.read_pod(self._name)
        if pod is None:
            return str(error)
        if whose := self._site.stranger(pod):
            self.fence_from = 0.0  # whatever still comes meets the same 409
            return Verdict("failed", "NameTaken", f"pod {self._name} exists already and {whose}")
        self._own(pod)
        return ""
