"""What waits to be sent, what is under way, and what an answer means. Pure: the caller sends, and says what time it is.

Lines are sent in order. One that is answered RETRY goes again after a while, and later ones may pass it. When the
connection is cut, what was under way goes first, in order. Where there is no room the oldest line that waits gives way,
because the end of a log says most; in its place goes a line that says how many are missing.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from ottoscaler.client.limits import MOST_BYTES, Limits, Pace

Answer = Literal["ACK", "RETRY", "DROP"]
WINDOW_LINES = 256
WINDOW_BYTES = 1 << 20
"""Under way at a time; one line always may be."""
FIRST_RETRY, LONGEST_RETRY = 0.1, 10.0
OVERHEAD = 300
"""Bytes that a line takes beside its text."""


@dataclass(slots=True)
class Line:
    """One entry. `missing` is how many lines this one stands for, 0 for a line of the program's own; `is_part`: not the
    last part of a line that is too long.
    """

    text: str
    timestamp: str
    level: str = ""
    source: str = ""
    metadata: Mapping[str, str] | None = None
    missing: int = 0
    is_part: bool = False
    tries: int = 0

    @property
    def counts(self) -> bool:
        """Whether this is a line of the program's own, or the end of one."""
        return not (self.missing or self.is_part)

    @property
    def weight(self) -> int:
        """About how many bytes of memory it takes."""
        return OVERHEAD + len(self.text)


@dataclass(frozen=True, slots=True)
class Statistics:
    """How it stands: lines taken by the handler, not wanted by it, never sent for want of room or time, and waiting."""

    acknowledged: int
    dropped: int
    left_out: int
    waiting: int


class Buffer:
    """The lines of one worker between the program and the handler."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._pace = Pace(self.limits.rate)
        self._waiting: deque[Line] = deque()
        self._again: list[tuple[float, int, Line]] = []
        self._sent: deque[Line] = deque()
        self._bytes = 0
        self._sent_bytes = 0
        self._order = 0
        self._gap = 0
        self._gap_from = ""
        self._acknowledged = self._dropped = self._left_out = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._again) + len(self._sent)

    @property
    def is_empty(self) -> bool:
        """Everything was answered, and no gap is to be told."""
        return not len(self) and not self._gap

    @property
    def has_room(self) -> bool:
        """Whether a line can be added without another giving way."""
        return len(self) < self.limits.lines and self._bytes < MOST_BYTES

    @property
    def is_under_way(self) -> bool:
        """Whether an answer is to come."""
        return bool(self._sent)

    def statistics(self) -> Statistics:
        """How it stands."""
        return Statistics(self._acknowledged, self._dropped, self._left_out, len(self))

    def set_limits(self, limits: Limits) -> None:
        """From now on these hold."""
        if limits.rate != self._pace.rate:
            self._pace = Pace(limits.rate)
        self.limits = limits
        self._make_room()

    def add(self, line: Line) -> None:
        """Add a line behind all others."""
        self._waiting.append(line)
        self._bytes += line.weight
        self._make_room()

    def next(self, now: float) -> Line | None:
        """The next line that may be sent now, which then is under way; None: none for now."""
        if self._pace.wait(now) or not self._fits_window():
            return None
        if self._again and self._again[0][0] <= now:
            line = heapq.heappop(self._again)[2]
        elif self._gap:
            line = self._gap_line()
        elif self._waiting:
            line = self._cut(self._waiting.popleft())
        else:
            return None
        self._pace.take(now)
        self._sent.append(line)
        self._sent_bytes += line.weight
        return line

    def wait(self, now: float) -> float:
        """Seconds until `next` may give a line, if neither a line nor an answer comes before."""
        if not self._fits_window():
            return math.inf
        if self._waiting or self._gap:
            return self._pace.wait(now)
        return max(self._pace.wait(now), self._again[0][0] - now) if self._again else math.inf

    def take_answer(self, answer: Answer, now: float) -> None:
        """The handler's answer to the oldest line under way."""
        line = self._sent.popleft()
        self._sent_bytes -= line.weight
        if answer == "RETRY":
            line.tries += 1
            delay = min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(line.tries - 1, 20))
            self._order += 1
            heapq.heappush(self._again, (now + delay, self._order, line))
            return
        self._bytes -= line.weight
        if line.counts:
            self._acknowledged += answer == "ACK"
            self._dropped += answer == "DROP"

    def put_back(self) -> None:
        """The connection is gone: what was under way goes first on the next one."""
        self._waiting.extendleft(reversed(self._sent))
        self._sent.clear()
        self._sent_bytes = 0

    def give_up(self) -> None:
        """Nothing is sent any more: what waits was left out."""
        self.put_back()
        for line in [*self._waiting, *(line for *_, line in self._again)]:
            self._left_out += line.counts
        self._waiting.clear()
        self._again.clear()
        self._bytes = self._gap = 0

    def _fits_window(self) -> bool:
        lines = len(self._sent)
        return not lines or (lines < min(WINDOW_LINES, self.limits.lines) and self._sent_bytes < WINDOW_BYTES)

    def _cut(self, line: Line) -> Line:
        """The beginning of a line, as much as may be sent at once; the rest waits in front of all others."""
        text, rest = self.limits.cut(line.text)
        if not rest:
            return line
        first = replace(line, text=text, metadata={**(line.metadata or {}), "more": "true"}, is_part=True)
        line.text = rest
        self._waiting.appendleft(line)
        self._bytes += OVERHEAD
        return first

    def _make_room(self) -> None:
        """Where there is too much, the oldest goes: of those that wait, else of those that are to be sent again."""
        while (len(self) > self.limits.lines or self._bytes > MOST_BYTES) and (self._waiting or self._again):
            line = self._waiting.popleft() if self._waiting else heapq.heappop(self._again)[2]
            self._bytes -= line.weight
            self._gap += line.missing or line.counts
            self._gap_from = self._gap_from or line.timestamp
            self._left_out += line.counts

    def _gap_line(self) -> Line:
        count, since = self._gap, self._gap_from
        self._gap, self._gap_from = 0, ""
        text = f"[{count} lines from {since} on are missing here: there was no room to hold them back]"
        line = Line(text, since, "warning", "ottoscaler", {"missing": str(count)}, missing=count)
        self._bytes += line.weight
        return line
