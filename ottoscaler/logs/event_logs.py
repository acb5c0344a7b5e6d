"""The logs of one event, as the spine asks for them: which workers there are, how they end, and when nobody waits."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
import trio

from ottoscaler.events import Event
from ottoscaler.logs.mark import Gap, Mark
from ottoscaler.logs.messages import Who
from ottoscaler.logs.tracked import Tracked
from ottoscaler.outcomes import WorkerOutcome
from ottoscaler.pods import WORKER_CONTAINER
from ottoscaler.stream.base import Claim
from ottoscaler.stream.progress import Progress

if TYPE_CHECKING:
    from ottoscaler.logs.keeping import LogKeeper


class LogsOfEvent:
    """The logs of one event."""

    def __init__(self, keeper: LogKeeper, event: Event, claim: Claim, progress: Progress) -> None:
        self.tracked: dict[str, Tracked] = {}
        self._keeper = keeper
        self._event = event
        self._claim = claim
        self._progress = progress

    def follow(self, index: int, attempt: int, name: str) -> None:
        """Forward the log of an attempt."""
        if name not in self.tracked:
            container = self._container(index, attempt)
            parent = self._keeper.traces.of_worker(self._event, index, attempt).traceparent
            about = (self._event.task_id, self._event.id, index, attempt, self._keeper.namespace, container)
            who = Who(name, *about, traceparent=parent)
            text = self._progress.marks.get((index, attempt))
            mark = msgspec.json.decode(text, type=Mark) if text else Mark()
            wording = self._keeper.receiver.wording(who)
            tracked = self.tracked[name] = Tracked(who, self._claim, mark, wording, self._keeper.room)
            if made := self._progress.accepted.get((index, attempt)):
                tracked.accepted_at = made["at"] / 1000
            if mark.gap:  # an owner before us may have died with it
                tracked.rest = Gap(mark.sure, "", mark.gap, certain=False)
                self._keeper.say_rest(tracked)
            tracked.tell_end = None if mark.ended else self._note_trace
            self._keeper.track(tracked)

    def _note_trace(self, tracked: Tracked) -> None:
        """The log of an attempt was looked after to its end, by whomever it was begun."""
        who, mark, now = tracked.who, tracked.mark, self._keeper.now()
        began = datetime.fromisoformat(mark.head).timestamp() if mark.head else now
        about = (self._event, who.index, who.attempt)
        self._keeper.traces.log_ended(*about, began=began, lines=mark.line, gaps=tracked.gaps)

    def end(self, outcome: WorkerOutcome) -> None:
        """An attempt has ended, here or before this process had the event."""
        tracked = self.tracked.get(outcome.name)
        if tracked is None:
            if (outcome.index, outcome.attempt) not in self._progress.accepted:
                return  # it never had a pod
            self.follow(outcome.index, outcome.attempt, outcome.name)
            tracked = self.tracked[outcome.name]
        ended = datetime.fromisoformat(outcome.completed_at).timestamp() if outcome.completed_at else self._keeper.now()
        passed = max(0.0, self._keeper.now() - ended)
        tracked.end(outcome, max(0.0, self._keeper.grace - passed))

    def gaps(self) -> list[dict[str, str]]:
        """The logs whose rest was given up: worker, stamp from which on lines are missing, and why."""
        rests = ((tracked.who.name, tracked.rest) for tracked in self.tracked.values())
        return [{"worker": name, "from": rest.begin, "why": rest.why} for name, rest in rests if rest is not None]

    def end_all(self) -> None:
        """No attempt goes on, and none will come."""
        self._keeper.waiting[self] = trio.current_time()

    @property
    def is_settled(self) -> bool:
        """No log of it is waited for any more."""
        return all(tracked.settled.is_set() for tracked in self.tracked.values())

    async def wait_pod(self, name: str) -> None:
        """Return when the log of this pod is needed no more."""
        if (tracked := self.tracked.get(name)) is not None:
            await self._keeper.wait(tracked)

    async def wait_all(self) -> None:
        """Return when no log of the event is needed any more."""
        for tracked in list(self.tracked.values()):
            await self._keeper.wait(tracked)

    def _container(self, index: int, attempt: int) -> str:
        """The container whose log is the worker's: the one named so, else the first."""
        names = [one["name"] for one in self._keeper.build_pod(self._event, index, attempt)["spec"]["containers"]]
        return WORKER_CONTAINER if WORKER_CONTAINER in names else str(names[0])
