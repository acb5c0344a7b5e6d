"""How long-lived parts are kept running: a crash is logged once, counted, and the part is started again after a
backoff.

A part is an async callable `run(*, task_status)` that reports ready through `task_status.started()` and returns
only when it is cancelled or has nothing left to do. What a part retries by itself (Redis away, a watch cut) never
comes here: an exception that leaves a part is a bug. A part that crashes too often ends the process:
`Unrecoverable` leaves the nursery.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable
from typing import Protocol, TypeVar

import trio

from ottoscaler.backoff import Backoff
from ottoscaler.errors import FixYourCall, OttoscalerError
from ottoscaler.log import log
from ottoscaler.metrics import PART_CRASHES
from ottoscaler.startup import StartupFailed

WINDOW_SECONDS = 60.0
E = TypeVar("E", bound=BaseException)


class Unrecoverable(OttoscalerError):
    """A part crashed too often, or its state cannot be trusted any more; the process must end after a hand-over.

    `exit_code` is the process' own: 2 where a person has to mend something first, 1 where the next start may do better.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Part(Protocol):
    """A long-lived part."""

    def __call__(self, *, task_status: trio.TaskStatus[None]) -> Awaitable[None]:
        """Run until cancelled; call `task_status.started()` when ready."""


class Supervisor:
    """Starts parts in nurseries that their owner hands in, and starts them again when they crash.

    `max_restarts` crashes of one part within a minute are too many. `crashes` counts them by part for ever. `ended` are
    the parts that returned, or cannot be kept running.
    """

    def __init__(self, max_restarts: int, backoff: Backoff) -> None:
        self.crashes: Counter[str] = Counter()
        self.ended: set[str] = set()
        self._max_restarts = max_restarts
        self._backoff = backoff

    async def run(
        self, name: str, part: Part, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run one part until it returns; ready once it was ready for the first time.

        Before that, what a person has to mend (settings, a port that is taken) is raised, and tried no more; after
        that, what no restart mends (a key of ours that is somebody else's by now) is `Unrecoverable` at once.
        """
        PART_CRASHES.labels(name)  # 0, so that the first crash is an increase
        status = _FirstStart(task_status)
        recent: deque[float] = deque(maxlen=self._max_restarts)
        delays = self._backoff.delays()
        while True:
            try:
                await part(task_status=status)
            except Unrecoverable:
                self.ended.add(name)
                raise
            except Exception as error:  # whatever a bug raises, the other parts must live
                if not status.has_begun and _is_for_people(error):
                    raise
                if (hopeless := first_of(error, FixYourCall)) is not None:
                    self.ended.add(name)
                    raise Unrecoverable(str(hopeless), exit_code=2) from error
                self._note_crash(name, error, recent)
                if len(recent) == 1:
                    delays = self._backoff.delays()
                await trio.sleep(next(delays))
            else:
                self.ended.add(name)
                return

    def _note_crash(self, name: str, error: Exception, recent: deque[float]) -> None:
        now = trio.current_time()
        while recent and recent[0] <= now - WINDOW_SECONDS:
            recent.popleft()
        recent.append(now)
        self.crashes[name] += 1
        PART_CRASHES.labels(name).inc()
        log.error("a part crashed", error=error, part=name, crashes=self.crashes[name])
        if len(recent) >= self._max_restarts:
            self.ended.add(name)
            raise Unrecoverable(
                f"{name} crashed {len(recent)} times within {WINDOW_SECONDS:.0f} s, last by {error!r}"
            ) from error


def _is_for_people(error: Exception) -> bool:
    return first_of(error, (FixYourCall, StartupFailed)) is not None


def first_of(error: BaseException, kinds: type[E] | tuple[type[E], ...]) -> E | None:
    """The error itself, or the first within its groups, that is one of these."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for one in error.exceptions if (found := first_of(one, kinds)) is not None), None)
    return error if isinstance(error, kinds) else None


class _FirstStart:
    """A task status that may be reported again after a restart; only the first report counts."""

    def __init__(self, task_status: trio.TaskStatus[None]) -> None:
        self._task_status = task_status
        self.has_begun = False

    def started(self, value: None = None) -> None:
        if not self.has_begun:
            self.has_begun = True
            self._task_status.started(value)
