"""The start: reaching Redis and the API patiently, but not for ever."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
import trio_util

from ottoscaler.backoff import Backoff
from ottoscaler.drain import Drain
from ottoscaler.errors import OttoscalerError, Unavailable
from ottoscaler.log import log

T = TypeVar("T")


class StartupFailed(OttoscalerError):
    """What is needed stayed away for the whole start-up time."""


class StartupStopped(OttoscalerError):
    """A signal came before everything was reached; nothing has begun yet, so nothing is left to do."""


class Startup:
    """One start: `seconds` for all of it together."""

    def __init__(self, seconds: float, drain: Drain, backoff: Backoff) -> None:
        self._seconds = seconds
        self._drain = drain
        self._backoff = backoff
        self._give_up_at = trio.current_time() + seconds

    async def reach(self, what: str, call: Callable[[], Awaitable[T]], known: Callable[[], str] = str) -> T:
        """Repeat `call` until it answers. Raises `StartupFailed` with a sentence when the time is over,
        `StartupStopped` on a signal. A `call` that tries again by itself tells by `known` what stands in its way.
        """
        answers: list[T] = []
        problem = "no answer"

        async def insist() -> None:
            nonlocal problem
            for delay in self._backoff.delays():
                try:
                    answers.append(await call())
                except Unavailable as error:
                    if str(error) != problem:
                        problem = str(error)
                        log.warning("waiting at the start", what=what, reason=problem)
                    await trio.sleep(delay)
                else:
                    return

        with trio.move_on_at(self._give_up_at):
            await trio_util.wait_any(insist, self._drain.requested.wait)
        if answers:
            return answers[0]
        if self._drain.requested.is_set():
            raise StartupStopped(f"{self._drain.reason} before {what} was reached")
        reason = known() or problem
        raise StartupFailed(f"{what} was not reached within {self._seconds:g} s (STARTUP_TIMEOUT_SECONDS): {reason}")
