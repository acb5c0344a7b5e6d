"""Whether a receiver answers at all, and since when it does not; shared by all that ask it the same thing.

It is silent from the moment at which it was asked something until it answers. One that is asked nothing is not silent.
"""

from __future__ import annotations

import math

import trio

from ottoscaler.log import log


class Outage:
    """Says once that the receiver takes nothing, and once that it does again, in these words."""

    def __init__(
        self, lost: str = "otto-handler does not take logs", found: str = "otto-handler takes logs again"
    ) -> None:
        self.silent_since = math.inf
        """When it was asked first what it did not answer (clock of trio); infinity: it has answered."""
        self._lost = lost
        self._found = found
        self._is_lost = False

    def ask(self) -> None:
        """It was asked something that it will answer if it is there."""
        if self.silent_since == math.inf:
            self.silent_since = trio.current_time()

    def lose(self, errors: BaseException) -> None:
        """It could not be asked, or has left without an answer."""
        self.ask()
        while isinstance(errors, BaseExceptionGroup):
            errors = errors.exceptions[0]
        if not self._is_lost:
            self._is_lost = True
            log.warning(self._lost, is_change=True, reason=str(errors))

    def find(self) -> None:
        """An answer came."""
        self.silent_since = math.inf
        if self._is_lost:
            self._is_lost = False
            log.info(self._found)

    def is_silent_for(self, seconds: float) -> bool:
        """Whether it was asked so long ago and has not answered since."""
        return trio.current_time() - self.silent_since >= seconds
