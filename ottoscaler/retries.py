"""Whether a worker that failed is run again: a value made of settings and template, asked once per failure. Pure.

A template can say otherwise than the settings by two annotations of its pods: `ottoscaler/worker-max-attempts` (a
number) and `ottoscaler/retry-policy` (a JSON object of causes and classes, as RETRY_POLICY). An event's spec wins over
both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, cast

import msgspec

from ottoscaler.backoff import Backoff
from ottoscaler.causes import CauseClass, check_retry_policy, class_of
from ottoscaler.errors import SettingsError
from ottoscaler.spec import Retry

ATTEMPTS_ANNOTATION = "ottoscaler/worker-max-attempts"
POLICY_ANNOTATION = "ottoscaler/retry-policy"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The settings of the same names; `moved` holds the causes that were moved to another class.

    `only`: the causes and classes that an event lets be retried, None = all; `fixed_delay` (s) stands in place of the
    backoff, None = the backoff.
    """

    worker_max_attempts: int = 1
    platform_max_attempts: int = 5
    platform_retry_started: bool = False
    moved: Mapping[str, CauseClass] = field(default_factory=dict)
    backoff: Backoff = field(default_factory=lambda: Backoff(1.0, 60.0))
    only: frozenset[str] | None = None
    fixed_delay: float | None = None

    def may_retry(self, earlier: Sequence[str], cause: str, has_started: bool | None) -> bool:
        """`earlier`: the causes of the attempts before this one. `has_started`: None where nobody knows whether it
        ran.

        The worker's own faults count against its attempts. The platform's faults have a number of their own, and a
        worker that had started, or may have, is run again for them only where that is allowed.
        """
        kind = class_of(cause, self.moved)
        if self.only is not None and self.only.isdisjoint((cause, kind)):
            return False
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
        """Seconds between the end of this attempt and the next one; grows, with jitter, unless it is fixed."""
        if self.fixed_delay is not None:
            return self.fixed_delay
        return next(islice(self.backoff.delays(), min(attempt, 16) - 1, None))

    def wait(self, seconds: float) -> float:
        """So long at most the next attempt waits that another owner has planned: its clock may be ahead of ours."""
        longest = self.backoff.maximum if self.fixed_delay is None else self.fixed_delay
        return min(max(0.0, seconds), longest)

    def asked(self, retry: Retry) -> RetryPolicy:
        """This policy with what an event says of retries itself."""
        return replace(
            self,
            worker_max_attempts=retry.max_attempts or self.worker_max_attempts,
            only=self.only if retry.retryable_failures is None else frozenset(retry.retryable_failures),
            fixed_delay=retry.retry_delay_seconds,
        )


def policy_of_template(name: str, template: Mapping[str, Any], settings: RetryPolicy) -> RetryPolicy:
    """The settings' policy with what the template's annotations change. Raises `SettingsError` naming template and
    field.
    """
    annotations: Mapping[str, str] = (template.get("metadata") or {}).get("annotations") or {}
    where, problems = f"template {name}: ", list[str]()
    attempts, moved = settings.worker_max_attempts, dict(settings.moved)
    if (given := annotations.get(ATTEMPTS_ANNOTATION)) is not None:
        if not (given.isascii() and given.isdigit() and 1 <= int(given) <= 100):
            problems.append(f"{where}{ATTEMPTS_ANNOTATION} is {given!r}, expected a whole number from 1 to 100")
        else:
            attempts = int(given)
    if (given := annotations.get(POLICY_ANNOTATION)) is not None:
        try:
            changes = msgspec.json.decode(given, type=dict[str, str])
        except msgspec.DecodeError:
            problems.append(f"{where}{POLICY_ANNOTATION} is {given!r}, expected a JSON object of causes and classes")
        else:
            problems += check_retry_policy(changes, where + POLICY_ANNOTATION)
            moved |= cast("dict[str, CauseClass]", changes)
    if problems:
        raise SettingsError(problems)
    return replace(settings, worker_max_attempts=attempts, moved=moved)
