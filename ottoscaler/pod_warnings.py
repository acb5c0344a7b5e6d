"""What the kubelet warns of about pods of ours, as far as a verdict needs it: the last words of each kind, by pod.

Owned by the site. In: events of the API (`note`, `replace`), told by the one watch of warnings. Out: the few that
tell a cause which the pod itself does not show (a liveness kill looks like any other 137, a volume that cannot be
mounted like a container that is still being created). Bounded; what it forgets only makes a verdict less precise.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import trio

POD_PREFIX = "otto-agent-"
TELLING = frozenset({"Unhealthy", "FailedMount", "FailedAttachVolume"})
LONGEST = 500
REPEAT_SLACK = 5.0


class PodWarning(NamedTuple):
    """One warning. `first` and `last`: Unix seconds by the kubelet's clock; `seen`: when it came, by trio's clock."""

    reason: str
    message: str
    first: float
    last: float
    seen: float

    def is_current(self, now: float) -> bool:
        """Whether it may still hold at `now` (trio's clock): what fails again and again does so at doubling intervals,
        so silence for longer than all the time before means that it passed.
        """
        return now - self.seen <= self.last - self.first + REPEAT_SLACK


class PodWarnings:
    """The last warning of each telling reason, by pod; of at most `keep` pods, the longest silent leave first."""

    def __init__(self, keep: int = 10_000) -> None:
        self._keep = keep
        self._pods: OrderedDict[str, tuple[str, dict[str, PodWarning]]] = OrderedDict()
        self._waiting: dict[str, trio.Event] = {}

    def __repr__(self) -> str:
        return f"<PodWarnings of {len(self._pods)} pods>"

    def of(self, name: str, uid: str) -> tuple[PodWarning, ...]:
        """The warnings of exactly this pod."""
        known, warnings = self._pods.get(name, ("", {}))
        return tuple(warnings.values()) if known == uid else ()

    def note(self, event: Mapping[str, Any]) -> None:
        """Take a v1 Event over; one that tells nothing, or is not about a pod of our names, is dropped."""
        about = event.get("involvedObject") or {}
        name, uid, reason = about.get("name") or "", about.get("uid") or "", event.get("reason")
        if reason not in TELLING or about.get("kind") != "Pod" or not name.startswith(POD_PREFIX):
            return
        known, warnings = self._pods.get(name, ("", {}))
        warnings = warnings if known == uid else {}
        warnings[reason] = _read(event, trio.current_time())
        self._pods[name] = (uid, warnings)
        self._pods.move_to_end(name)
        if len(self._pods) > self._keep:
            self._pods.popitem(last=False)
        if name in self._waiting:
            self._waiting.pop(name).set()

    def forget(self, name: str) -> None:
        """The pod is gone, or nobody asks any more."""
        self._pods.pop(name, None)

    def forget_absent(self, is_there: Callable[[str], bool], silent_for: float = 60.0) -> None:
        """Forget pods that are not there and were silent for these seconds (a warning may be faster than its pod)."""
        before = trio.current_time() - silent_for
        for name, (_, warnings) in list(self._pods.items()):
            if not is_there(name) and all(warning.seen < before for warning in warnings.values()):
                self.forget(name)

    async def wait_change(self, name: str, uid: str, seen: Iterable[PodWarning]) -> None:
        """Wait until the warnings of this pod are others than `seen`, at once if they are."""
        known = tuple(seen)
        while self.of(name, uid) == known:
            waiting = self._waiting.setdefault(name, trio.Event())
            try:
                await waiting.wait()
            finally:
                if self._waiting.get(name) is waiting and not waiting.statistics().tasks_waiting:
                    del self._waiting[name]


def _read(event: Mapping[str, Any], seen: float) -> PodWarning:
    """Both forms of events: with first and last time, and the newer one with a series."""
    first = _time(event.get("firstTimestamp")) or _time(event.get("eventTime")) or 0.0
    last = _time(event.get("lastTimestamp")) or _time((event.get("series") or {}).get("lastObservedTime")) or first
    message = " ".join(str(event.get("message") or "").split())[:LONGEST]
    return PodWarning(str(event.get("reason")), message, first, last, seen)


def _time(value: object) -> float | None:
    try:
        return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else None
    except ValueError:
        return None
