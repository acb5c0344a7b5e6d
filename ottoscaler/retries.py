"""Whether a worker that failed is run again: a value made of the settings, asked once per failure. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from ottoscaler.backoff import Backoff
from ottoscaler.causes import CauseClass, class_of


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The settings of the same names; `moved` holds the causes that were moved to another class."""

    worker_max_attempts: int = 1
    platform_max_attempts: int = 5
    platform_retry_started: bool = False
    moved: Mapping[str, CauseClass] = field(default_factory=dict)
    backoff: Backoff = field(default_factory=lambda: Backoff(1.0, 60.0))

    def may_retry(self, earlier: Sequence[str], cause: str, has_started: bool | None) -> bool:
        """`earlier`: the causes of the attempts before this one. `has_started`: None where nobody knows whether it
        ran.

        The worker's own faults count against its attempts. The platform's faults have a number of their own, and a
        worker that had started, or may have, is run again for them only where that is allowed.
        """
        kind = class_of(cause, self.moved)
        failures = 1 + sum(class_of(before, self.moved) == kind for before in earlier)
        if kind == "own":
            return failures < self.worker_max_attempts
        if kind == "platform" and (has_started is False or self.platform_retry_started):
            return failures < self.platform_max_attempts
        return False

    def is_made_final(self, cause: str) -> bool:
        """Whether this cause was moved to end a worker at once, though it might pass."""
        return self.moved.get(cause) == "final"

    def delay(self, attempt: int) -> float:
        """Seconds between the end of this attempt and the next one; grows, with jitter."""
        return next(islice(self.backoff.delays(), min(attempt, 16) - 1, None))
