"""A stream as Redis keeps it, in memory: entries in order of their ids, consumer groups, pending entries.

Only what Ottoscaler uses, with the behaviour of Redis 7 and later where versions differ (a claim drops a pending entry
that was trimmed away).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

from ottoscaler.stream.entry_id import Id, format_id, parse_id

BytePairs = tuple[tuple[bytes, bytes], ...]


@dataclass(slots=True)
class Pending:
    """A delivered entry that nobody acknowledged: to whom, and how often."""

    consumer: str
    deliveries: int = 1


@dataclass(slots=True)
class Group:
    """A consumer group: the last id it delivered, and what is pending."""

    last: Id
    pending: dict[Id, Pending] = field(default_factory=dict)

    def pending_of(self, consumer: str) -> list[Id]:
        """Ids pending for one consumer, in order."""
        return sorted(id_ for id_, entry in self.pending.items() if entry.consumer == consumer)

    def consumers(self) -> set[str]:
        """Consumers that have pending entries."""
        return {entry.consumer for entry in self.pending.values()}


class Log:
    """One stream. Ids are unique and only grow; fields and values are bytes."""

    def __init__(self) -> None:
        self.entries: dict[Id, BytePairs] = {}
        self.groups: dict[str, Group] = {}
        self.last: Id = (0, 0)
        self._order: list[Id] = []

    def __len__(self) -> int:
        return len(self._order)

    def add(self, pairs: Iterable[tuple[bytes, bytes]], now: int) -> str:
        """XADD with an id of the server's making; `now` in ms."""
        self.last = max((now, 0), (self.last[0], self.last[1] + 1))
        self.entries[self.last] = tuple(pairs)
        self._order.append(self.last)
        return format_id(self.last)

    def after(self, id_: Id, count: int) -> list[tuple[str, BytePairs]]:
        """XREAD: up to `count` entries behind an id."""
        start = bisect_right(self._order, id_)
        return [(format_id(found), self.entries[found]) for found in self._order[start : start + count]]

    def before(self, id_: str, count: int) -> list[tuple[str, BytePairs]]:
        """XREVRANGE: up to `count` entries before an id (empty: of all), the newest first."""
        end = bisect_left(self._order, parse_id(id_)) if id_ else len(self._order)
        return [(format_id(found), self.entries[found]) for found in reversed(self._order[max(0, end - count) : end])]

    def deliver(self, group: str, consumer: str, count: int) -> list[tuple[str, BytePairs]]:
        """XREADGROUP with `>`: up to `count` entries not delivered to the group yet; KeyError without the group."""
        state = self.groups[group]
        found = self.after(state.last, count)
        for text, _ in found:
            state.last = parse_id(text)
            state.pending[state.last] = Pending(consumer)
        return found

    def claim(self, group: str, consumer: str, id_: Id) -> None:
        """XCLAIM with JUSTID: move a pending entry to a consumer; one that was trimmed away is pending no more."""
        state = self.groups.get(group)
        if state is None or id_ not in state.pending:
            return
        if id_ in self.entries:
            state.pending[id_].consumer = consumer
        else:
            del state.pending[id_]

    def acknowledge(self, group: str, id_: Id) -> None:
        """XACK of one entry."""
        if group in self.groups:
            self.groups[group].pending.pop(id_, None)

    def delete(self, id_: Id) -> None:
        """XDEL of one entry."""
        if self.entries.pop(id_, None) is not None:
            self._order.remove(id_)

    def trim(self, keep: int) -> None:
        """XTRIM MAXLEN: drop the oldest entries beyond `keep`, pending or not."""
        for id_ in self._order[: max(0, len(self._order) - keep)]:
            del self.entries[id_]
        del self._order[: max(0, len(self._order) - keep)]

    def oldest(self) -> tuple[Id, BytePairs]:
        """The first entry there is; IndexError when there is none."""
        return self._order[0], self.entries[self._order[0]]
