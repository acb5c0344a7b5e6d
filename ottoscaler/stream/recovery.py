"""Entries on their way from the stream to the process: none is forgotten when a call is cancelled or its answer lost.

Redis counts an entry as delivered when it sends it. Three things keep it from being lost between there and the one who
registers it: what arrives with a cancel is kept (`take`), a call that failed leaves a doubt, and a doubt makes the next
`read` ask for everything that is pending for this session without progress and was not given out before (`recover`).
"""

from __future__ import annotations

from collections.abc import Iterable

from ottoscaler.stream.base import Entry


class Deliveries:
    """What one session received: entries nobody took yet, and ids that were given out and not registered so far."""

    def __init__(self) -> None:
        self._unread: list[Entry] = []
        self._given: set[str] = set()
        self._is_doubtful = False

    def has_unread(self) -> bool:
        """Whether entries wait to be taken."""
        return bool(self._unread)

    @property
    def is_doubtful(self) -> bool:
        """Whether a delivery may have got lost on its way."""
        return self._is_doubtful

    def doubt(self) -> Deliveries:
        """Around a call that delivers: when it fails or is cancelled, what it delivered is looked for later."""
        return self

    def __enter__(self) -> None:
        """Nothing is in doubt yet."""

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self._is_doubtful |= kind is not None

    def arrive(self, entries: Iterable[Entry]) -> None:
        """Keep entries until somebody takes them."""
        self._unread.extend(entries)

    def recover(self, pending: Iterable[Entry]) -> None:
        """End the doubt: of all that is pending without progress, keep what was never given out."""
        known = self._given | {entry.id for entry in self._unread}
        self._unread.extend(entry for entry in pending if entry.id not in known)
        self._is_doubtful = False

    def take(self, count: int | None = None) -> list[Entry]:
        """The oldest entries that arrived (all without a count); from now on they are given out."""
        taken, self._unread = self._unread[:count], self._unread[len(self._unread[:count]) :]
        self.give(taken)
        return taken

    def give(self, entries: Iterable[Entry]) -> None:
        """Note that the process has these entries now."""
        self._given.update(entry.id for entry in entries)

    def forget(self, event_ids: Iterable[str]) -> None:
        """Note that these were registered, or have ended."""
        self._given.difference_update(event_ids)
