"""What waits to be sent, what is under way, and what an answer means. Pure: the caller sends, and says what time it is.

Lines are sent in order. One that is answered RETRY goes again after a while, and later ones may pass it. When the
connection is cut, what was under way goes first, in order. Where there is no room the oldest line that waits gives way,
because the end of a log says most; in its place goes a line that says how many are missing. A line of which a part is
missing is one of them.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Literal

from ottoscaler.client.limits import LONGEST_LINE, MOST_BYTES, Limits, Pace

Answer = Literal["ACK", "RETRY", "DROP"]
WINDOW_LINES = 256
WINDOW_BYTES = 1 << 20
"""Under way at a time; one line always may be."""
FIRST_RETRY, LONGEST_RETRY = 0.1, 10.0
SMALLEST_PART = 1 << 10
"""No handler takes less than that and its metadata."""
OVERHEAD = 300
"""Bytes that a line or a block takes beside its text."""


@dataclass(slots=True)
class Whole:
    """A line that goes in parts, as all of them know it: whether one of them is missing, and the answer to the last."""

    is_missing: bool = False
    answer: Answer | None = None


@dataclass(slots=True)
class Line:
    """One entry. `missing` is how many lines this one stands for, 0 for a line of the program's own; `whole` is what it
    is a part of, and `is_part`: not the last.
    """

    text: str
    timestamp: str
    level: str = ""
    source: str = ""
    metadata: Mapping[str, str] | None = None
    missing: int = 0
    is_part: bool = False
    whole: Whole | None = None
    about_bytes: int = 0
    tries: int = 0

    @property
    def counts(self) -> bool:
        """Whether this is a line of the program's own, or the end of one."""
        return not (self.missing or self.is_part)

    @property
    def weight(self) -> int:
        """About how many bytes of memory it takes."""
        return OVERHEAD + self.about_bytes + len(self.text)


@dataclass(slots=True)
class Block:
    """Lines as the program gave them, all at once, each with its newline: looked at one by one only when they are sent.

    `is_part`: one line, whose end is in the next block.
    """

    data: bytes
    timestamp: str
    level: str = ""
    source: str = ""
    metadata: Mapping[str, str] | None = None
    is_part: bool = False
    lines: int = field(init=False)
    whole: Whole | None = field(init=False, default=None)
    """What the first line is a part of, if it is one."""
    about_bytes: int = field(init=False)
    """Of level, source and metadata, in UTF-8."""
    _start: int = 0

    def __post_init__(self) -> None:
        self.lines = self.data.count(b"\n")
        said = chain((self.level, self.source), *(self.metadata or {}).items())
        self.about_bytes = sum(len(text.encode()) for text in said)

    @property
    def weight(self) -> int:
        """About how many bytes of memory it takes."""
        return OVERHEAD + self.about_bytes + len(self.data)

    def pop(self) -> Line:
        """Take the first line."""
        end = self.data.index(b"\n", self._start)
        data, metadata = self.data[self._start : end], self.metadata
        try:
            text = data.decode()
        except UnicodeDecodeError:  # a message takes nothing else
            text, metadata = data.decode(errors="backslashreplace"), {**(metadata or {}), "escaped": "true"}
        whole, self.whole = self.whole, None
        self._start = end + 1
        self.lines -= 1
        said = (text, self.timestamp, self.level, self.source, metadata)
        return Line(*said, is_part=self.is_part, whole=whole, about_bytes=self.about_bytes)

    def skip(self, lines: int) -> None:
        """Leave out the first lines."""
        for _ in range(lines):
            self._start = self.data.index(b"\n", self._start) + 1
        self.lines -= lines
        self.whole = None


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
        self._part_bytes = LONGEST_LINE
        """What the handler takes at once beside what it says, as found out."""
        self._about_bytes = LONGEST_LINE
        """What it takes beside the text, as found out."""
        self._blocks: deque[Block] = deque()
        self._lines = 0
        """In the blocks."""
        self._begun: dict[str, Whole] = {}
        """By source: the line of which parts were added, and not yet the last."""
        self._first: deque[Line] = deque()
        """Go before the blocks: what was under way when a connection was cut, and the rest of what was cut in parts."""
        self._again: list[tuple[float, int, Line]] = []
        self._sent: deque[Line] = deque()
        self._bytes = 0
        self._sent_bytes = 0
        self._order = 0
        self._gap = 0
        self._gap_from = self._gap_to = ""
        self._acknowledged = self._dropped = self._left_out = 0
        self.answers = 0
        """So many came, whatever they said."""

    def __len__(self) -> int:
        return self._lines + len(self._first) + len(self._again) + len(self._sent)

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
        self.limits = replace(limits, line_bytes=min(limits.line_bytes, self._part_bytes))
        self._make_room()

    def shrink(self) -> None:
        """The handler takes no message as large as one under way: from now on lines go in parts of half that size, and
        where they are small already, without what was said beside the text from half its size on.
        """
        if not self._sent:
            return
        largest = max(len(line.text.encode()) for line in self._sent)
        if largest <= SMALLEST_PART:
            self._about_bytes = max(line.about_bytes for line in self._sent) // 2
        self._part_bytes = max(SMALLEST_PART, min(self._part_bytes, largest // 2))
        self.set_limits(self.limits)

    def add(self, block: Block) -> None:
        """Add lines behind all others."""
        block.whole = self._begun.pop(block.source, None)
        if block.is_part:
            block.whole = self._begun[block.source] = block.whole or Whole()
        self._blocks.append(block)
        self._lines += block.lines
        self._bytes += block.weight
        self._make_room()

    def next(self, now: float) -> Line | None:
        """The next line that may be sent now, which then is under way; None: none for now."""
        if self._pace.wait(now) or not self._fits_window():
            return None
        if self._again and self._again[0][0] <= now:
            line = self._bared(heapq.heappop(self._again)[2])
        elif self._gap:
            line = self._gap_line()
        elif self._first:
            line = self._cut(self._bared(self._first.popleft()))
        elif self._blocks:
            line = self._cut(self._bared(self._pop_line()))
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
        if self._first or self._blocks or self._gap:
            return self._pace.wait(now)
        return max(self._pace.wait(now), self._again[0][0] - now) if self._again else math.inf

    def take_answer(self, answer: Answer, now: float) -> None:
        """The handler's answer to the oldest line under way."""
        self.answers += 1
        line = self._sent.popleft()
        self._sent_bytes -= line.weight
        if answer == "RETRY":
            line.tries += 1
            delay = min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(line.tries - 1, 20))
            self._order += 1
            heapq.heappush(self._again, (now + delay, self._order, line))
            return
        self._bytes -= line.weight
        if line.counts and not (line.whole and line.whole.is_missing):
            self._count(answer, 1)
        if line.counts and line.whole:
            line.whole.answer = answer

    def put_back(self) -> None:
        """The connection is gone: what was under way goes first on the next one."""
        self._first.extendleft(reversed(self._sent))
        self._sent.clear()
        self._sent_bytes = 0

    def give_up(self) -> None:
        """Nothing is sent any more: what waits was left out."""
        self.put_back()
        while self._first or self._again or self._blocks:
            self._leave_out(len(self))
        self._bytes = self._gap = 0

    def _count(self, answer: Answer | None, lines: int) -> None:
        self._acknowledged += lines * (answer == "ACK")
        self._dropped += lines * (answer == "DROP")

    def _fits_window(self) -> bool:
        lines = len(self._sent)
        return not lines or (lines < min(WINDOW_LINES, self.limits.lines) and self._sent_bytes < WINDOW_BYTES)

    def _pop_line(self) -> Line:
        block = self._blocks[0]
        line = block.pop()
        self._lines -= 1
        self._bytes += line.weight
        if not block.lines:
            self._blocks.popleft()
            self._bytes -= block.weight
        return line

    def _bared(self, line: Line) -> Line:
        """The line, without level, source and metadata where these alone are more than the handler takes."""
        if line.about_bytes > self._about_bytes:
            self._bytes -= line.about_bytes
            line.level = line.source = ""
            ours = {name: said for name, said in (line.metadata or {}).items() if name in ("continued", "escaped")}
            line.metadata, line.about_bytes = {**ours, "left_out": "TooLarge"}, 0
        return line

    def _cut(self, line: Line) -> Line:
        """The beginning of a line, as much as may be sent at once; the rest waits in front of all others."""
        text, rest = self.limits.cut(line.text)
        if line.missing or not rest:  # a gap is said whole, the first time and again
            return line
        line.whole = line.whole or Whole()
        first = replace(line, text=text, metadata={**(line.metadata or {}), "continued": "true"}, is_part=True)
        line.text = rest
        self._first.appendleft(line)
        self._bytes += OVERHEAD + line.about_bytes
        return first

    def _make_room(self) -> None:
        """Where there is too much the oldest goes; what is under way stays."""
        while (excess := len(self) - self.limits.lines) > 0 or self._bytes > MOST_BYTES:
            if not (self._first or self._again or self._blocks):
                return
            self._leave_out(excess if excess > 0 else len(self))

    def _leave_out(self, most: int) -> None:
        """Leave out the oldest line, or up to so many of the oldest block: of what waits, else of what goes again."""
        if self._blocks and not self._first:
            self._skip(min(most, self._blocks[0].lines))
            return
        line = self._first.popleft() if self._first else heapq.heappop(self._again)[2]
        self._bytes -= line.weight
        self._note_missing(self._lose(line.whole) if line.whole else int(line.counts), line.missing, line.timestamp)

    def _skip(self, lines: int) -> None:
        """Leave out lines of the oldest block."""
        block = self._blocks[0]
        self._note_missing(lines - 1 + self._lose(block.whole) if block.whole else lines, 0, block.timestamp)
        self._lines -= lines
        if lines < block.lines:
            block.skip(lines)
        else:
            self._blocks.popleft()
            self._bytes -= block.weight

    def _lose(self, whole: Whole) -> int:
        """A part is left out: 1 if with it the line is missing, 0 if it was so before."""
        if whole.is_missing:
            return 0
        whole.is_missing = True
        self._count(whole.answer, -1)  # of a part that was to go again, when the last one was answered
        return 1

    def _note_missing(self, lines: int, told: int, since: str) -> None:
        """Lines are left out; `told` is what a line said that is itself left out."""
        self._left_out += lines
        self._gap += lines + told
        self._gap_from = self._gap_from or since
        self._gap_to = since

    def _gap_line(self) -> Line:
        """What goes in the place of lines that are missing, with the words that the scaler has for gaps."""
        count, begin, end = self._gap, self._gap_from, self._gap_to
        self._gap, self._gap_from = 0, ""
        text = f"{count} lines are missing between {begin} and {end}: there was no room to hold them back"
        metadata = {"gap": "NoRoom", "lines": str(count), "from": begin, "to": end, "certain": "true"}
        line = Line(text, end, "warn", "ottoscaler", metadata, missing=count)
        self._bytes += line.weight
        return line
