"""One worker's lines on their way to the receiver: what may be sent, what an answer means, where the mark stands. Pure.

Lines are sent in order. One that is to be sent again (RETRY) waits for its time while later ones go on, inside the
window; what was under way when a connection ended is sent again first, in order. The mark moves over lines that are
done with (ACK, DROP) as far as no line before them is open.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from typing import Literal, Protocol

from ottoscaler.logs.lines import LogLine
from ottoscaler.logs.mark import Entry, Gap, Mark

WINDOW_LINES = 2048
WINDOW_BYTES = 1 << 20
"""Of one worker, together: one line may always be under way, however long it is."""
RETRIED_LINES = 256
RETRIED_BYTES = 64 << 10
"""The same while lines wait to be sent again: a thousand workers whose lines are refused stay within little memory."""
FIRST_RETRY, LONGEST_RETRY = 0.1, 30.0
SMALLEST_REFUSED = 4 << 10
"""No receiver refuses less for its size: a gap, which would go in its place, is hardly smaller."""
OVERHEAD = 256
"""Bytes that a line takes in memory beside its text."""

Status = Literal["ACK", "RETRY", "DROP"]


class AnswerLike(Protocol):
    """What the receiver says to an entry."""

    @property
    def status(self) -> str:
        """ACK, RETRY or DROP; anything else counts as RETRY."""

    @property
    def throttle(self) -> float:
        """Seconds for which it wants no more of this worker."""


class Supply(Protocol):
    """Where the next lines are; `ottoscaler.logs.backlog.Backlog` is one."""

    def peek(self) -> Entry | None:
        """The next entry, if there is one at hand."""

    def pop(self) -> Entry:
        """Take it."""


class Item:
    """One entry on its way. Items compare by the time from which they may be sent, then by their order."""

    __slots__ = ("due", "entry", "instead", "is_done", "is_sent", "order", "size", "tries", "weight")

    def __init__(self, entry: Entry, order: int, weight: int) -> None:
        self.entry = entry
        self.instead: Gap | None = None
        """What goes to the receiver in its place."""
        self.size = 0
        """Bytes that were sent of it."""
        self.order = order
        self.weight = weight
        self.tries = 0
        self.due = 0.0
        self.is_sent = False
        self.is_done = False

    @property
    def may_be_too_large(self) -> bool:
        """Whether it is under way, and may be what the receiver refuses for its size."""
        return self.is_sent and isinstance(self.entry, LogLine) and self.size > SMALLEST_REFUSED

    def leave_out(self) -> Gap:
        """Have a gap go in its place; the mark passes over the line all the same."""
        assert isinstance(self.entry, LogLine)  # gaps are small
        self.instead = Gap(self.entry.stamp, self.entry.stamp, "TooLarge")
        return self.instead

    def __lt__(self, other: Item) -> bool:
        return (self.due, self.order) < (other.due, other.order)


class Outbox:
    """The window of one worker. Times are seconds of one clock, given by the caller."""

    def __init__(self, supply: Supply, mark: Mark) -> None:
        self.dropped = 0
        self.not_before = 0.0
        """Until then the receiver wants nothing of this worker."""
        self._mark = mark
        self._last: LogLine | None = None
        """The last line that is done with, where the mark does not know it yet."""
        self._supply = supply
        self._open: deque[Item] = deque()
        self._again: list[Item] = []
        self._bytes = 0
        self._orders = 0

    @property
    def mark(self) -> Mark:
        """How far everything is done with."""
        if self._last is not None:  # made when it is asked for, not for each line
            self._mark, self._last = self._mark.at(self._last, self._mark.head), None
        return self._mark

    @property
    def done(self) -> int:
        """How many entries are done with, with none before them that is not."""
        return self._orders - len(self._open)

    @property
    def line(self) -> int:
        """The number of the line at the mark."""
        return self._last.number if self._last is not None else self._mark.line

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
        items = self.take(now, 1, 1)
        return items[0] if items else None

    def take(self, now: float, lines: int, size: int) -> list[Item]:
        """The next entries that may be sent now, so many lines or bytes and one more at most; they count as sent."""
        items: list[Item] = []
        if now < self.not_before:
            return items
        while self._again and self._again[0].due <= now and len(items) < lines and size > 0:
            items.append(item := heapq.heappop(self._again))
            item.is_sent = True
            size -= item.weight
        lines -= len(items)
        most_lines, most_bytes = (RETRIED_LINES, RETRIED_BYTES) if self._again else (WINDOW_LINES, WINDOW_BYTES)
        waiting, supply = self._open, self._supply
        while lines > 0 and size > 0 and (entry := supply.peek()) is not None:
            weight = OVERHEAD + len(entry.text)
            if waiting and (len(waiting) >= most_lines or self._bytes + weight > most_bytes):
                break
            self._orders += 1
            item = Item(supply.pop(), self._orders, weight)
            item.is_sent = True
            waiting.append(item)
            items.append(item)
            self._bytes += weight
            size -= weight
            lines -= 1
        return items

    def has_due(self, now: float) -> bool:
        """Whether something may be sent now, of what is in memory."""
        is_retried = bool(self._again) and self._again[0].due <= now
        return now >= self.not_before and (is_retried or self._supply.peek() is not None)

    def wake_at(self, now: float) -> float:
        """When `next` may have something that it does not have now, without any answer or line; infinity: never."""
        due = [self._again[0].due] if self._again else []
        fresh = [0.0] if now < self.not_before and self._supply.peek() is not None else []
        return max(self.not_before, min(due + fresh)) if due or fresh else math.inf

    def answer(self, items: Sequence[Item], answers: Sequence[AnswerLike], now: float) -> None:
        """What the receiver said to entries, in their order."""
        for item, said in zip(items, answers, strict=True):
            item.is_sent = False
            if said.throttle > 0:
                self.not_before = max(self.not_before, now + said.throttle)
            if said.status == "ACK":
                item.is_done = True
            elif said.status == "DROP":
                item.is_done = True
                self.dropped += 1
            else:
                item.due = now + min(FIRST_RETRY * 2**item.tries, LONGEST_RETRY)
                item.tries += 1
                heapq.heappush(self._again, item)
        self._move_mark()

    def _move_mark(self) -> None:
        waiting = self._open
        while waiting and waiting[0].is_done:
            item = waiting.popleft()
            self._bytes -= item.weight
            if isinstance(item.entry, LogLine):
                self._last = item.entry

    def lose(self) -> None:
        """The connection ended: what was sent and not answered will be sent again, first and in order."""
        for item in self._open:
            if item.is_sent:
                item.is_sent, item.due = False, 0.0
                heapq.heappush(self._again, item)
