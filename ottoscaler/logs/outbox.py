"""One worker's lines on their way to the receiver: what may be sent, what an answer means, where the mark stands. Pure.

Lines are sent in order. One that is to be sent again (RETRY) waits for its time while later ones go on, inside the
window; what was under way when a connection ended is sent again first, in order. The mark moves over lines that are
done with (ACK, DROP) as far as no line before them is open.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from typing import Literal, Protocol

from ottoscaler.logs.lines import LogLine
from ottoscaler.logs.mark import Entry, Mark

WINDOW_LINES = 512
WINDOW_BYTES = 256 << 10
"""Of one worker, together: one line may always be under way, however long it is."""
FIRST_RETRY, LONGEST_RETRY = 0.1, 30.0
OVERHEAD = 256
"""Bytes that a line takes in memory beside its text."""

Status = Literal["ACK", "RETRY", "DROP"]


def weight_of(entry: Entry) -> int:
    """About how many bytes of memory an entry takes."""
    return OVERHEAD + (len(entry.text) if isinstance(entry, LogLine) else 0)


class Supply(Protocol):
    """Where the next lines are; `ottoscaler.logs.backlog.Backlog` is one."""

    def peek(self) -> Entry | None:
        """The next entry, if there is one at hand."""

    def pop(self) -> Entry:
        """Take it."""


class Item:
    """One entry on its way. Items compare by the time from which they may be sent, then by their order."""

    __slots__ = ("due", "entry", "is_done", "is_sent", "order", "tries")

    def __init__(self, entry: Entry, order: int) -> None:
        self.entry = entry
        self.order = order
        self.tries = 0
        self.due = 0.0
        self.is_sent = False
        self.is_done = False

    def __lt__(self, other: Item) -> bool:
        return (self.due, self.order) < (other.due, other.order)


class Outbox:
    """The window of one worker. Times are seconds of one clock, given by the caller."""

    def __init__(self, supply: Supply, mark: Mark) -> None:
        self.mark = mark
        self.dropped = 0
        self.not_before = 0.0
        """Until then the receiver wants nothing of this worker."""
        self._supply = supply
        self._open: deque[Item] = deque()
        self._again: list[Item] = []
        self._bytes = 0
        self._orders = 0

    @property
    def is_empty(self) -> bool:
        """Nothing is on its way, and nothing is at hand to be sent."""
        return not self._open and self._supply.peek() is None

    @property
    def weight(self) -> int:
        """About how many bytes are on their way."""
        return self._bytes

    def next(self, now: float) -> Item | None:
        """The next entry that may be sent now; it counts as sent."""
        if now < self.not_before:
            return None
        if self._again and self._again[0].due <= now:
            item = heapq.heappop(self._again)
        elif (fresh := self._fresh()) is not None:
            item = fresh
        else:
            return None
        item.is_sent = True
        return item

    def _fresh(self) -> Item | None:
        entry = self._supply.peek()
        if entry is None:
            return None
        weight = weight_of(entry)
        if self._open and (len(self._open) >= WINDOW_LINES or self._bytes + weight > WINDOW_BYTES):
            return None
        self._orders += 1
        self._bytes += weight
        item = Item(self._supply.pop(), self._orders)
        self._open.append(item)
        return item

    def has_due(self, now: float) -> bool:
        """Whether something may be sent now, of what is in memory."""
        is_retried = bool(self._again) and self._again[0].due <= now
        return now >= self.not_before and (is_retried or self._supply.peek() is not None)

    def wake_at(self, now: float) -> float:
        """When `next` may have something that it does not have now, without any answer or line; infinity: never."""
        due = [self._again[0].due] if self._again else []
        fresh = [0.0] if now < self.not_before and self._supply.peek() is not None else []
        return max(self.not_before, min(due + fresh)) if due or fresh else math.inf

    def answer(self, item: Item, status: Status, throttle: float, now: float) -> None:
        """What the receiver said to an entry; `throttle`: seconds that it wants to be left alone by this worker."""
        item.is_sent = False
        if throttle > 0:
            self.not_before = max(self.not_before, now + throttle)
        if status == "RETRY":
            item.due = now + min(FIRST_RETRY * 2**item.tries, LONGEST_RETRY)
            item.tries += 1
            heapq.heappush(self._again, item)
            return
        self.dropped += status == "DROP"
        item.is_done = True
        self._move_mark()

    def _move_mark(self) -> None:
        last: LogLine | None = None
        while self._open and self._open[0].is_done:
            entry = self._open.popleft().entry
            self._bytes -= weight_of(entry)
            last = entry if isinstance(entry, LogLine) else last
        if last is not None:
            self.mark = self.mark.at(last, self.mark.head)

    def lose(self) -> None:
        """The connection ended: what was sent and not answered will be sent again, first and in order."""
        for item in self._open:
            if item.is_sent:
                item.is_sent, item.due = False, 0.0
                heapq.heappush(self._again, item)
