"""The window of one worker, against a receiver that answers anything."""

from __future__ import annotations

import math
from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from ottoscaler.logs import outbox as outbox_module
from ottoscaler.logs.lines import LogLine
from ottoscaler.logs.mark import Entry, Gap, Mark
from ottoscaler.logs.outbox import Item, Outbox
from tests.logs.receiver import FakeAnswer


class Supply:
    """Entries at hand."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = deque(entries)

    def peek(self) -> Entry | None:
        """The next one."""
        return self.entries[0] if self.entries else None

    def pop(self) -> Entry:
        """Take it."""
        return self.entries.popleft()


def lines(count: int, size: int = 10) -> list[Entry]:
    """Numbered lines."""
    return [LogLine("2026-11-20T20:41:21Z", b"x" * size, at, at) for at in range(1, count + 1)]


STEPS = st.lists(st.sampled_from(["send", "send", "ACK", "ACK", "RETRY", "DROP", "lose", "wait"]), max_size=200)


@given(steps=STEPS, count=st.integers(0, 40))
def test_every_line_is_done_with_once_whatever_is_answered(steps: list[str], count: int) -> None:
    """Under any answers, losses and waits: no line is skipped, none is sent again after ACK or DROP, the mark covers
    exactly the lines before the first open one, and new lines go out in order.
    """
    box, now = Outbox(Supply(lines(count)), Mark()), 0.0
    flight: deque[Item] = deque()
    finished: set[int] = set()
    first_sent: list[int] = []
    retried = 0

    def number(item: Item) -> int:
        assert isinstance(item.entry, LogLine)
        return item.entry.number

    def step(what: str) -> None:
        nonlocal now, retried
        if what == "send":
            if (item := box.next(now)) is not None:
                assert number(item) not in finished
                assert item not in flight
                flight.append(item)
                if number(item) not in first_sent:
                    first_sent.append(number(item))
        elif what == "lose":
            box.lose()
            flight.clear()
        elif what == "wait":
            now = max(now, min(box.wake_at(now), now + 60))
        elif flight:
            item = flight.popleft()
            retried += what == "RETRY"
            if what != "RETRY":
                finished.add(number(item))
            box.answer([item], [FakeAnswer(what, 0.0)], now)
        covered = next((at - 1 for at in range(1, count + 1) if at not in finished), count)
        assert box.mark.line == box.done == covered

    for what in steps:
        step(what)
    for _ in range(3 * count + 3 * retried + 3):
        step("wait")
        step("send")
        step("ACK")
    assert first_sent == list(range(1, count + 1))
    assert finished == set(first_sent)
    assert box.is_empty


def test_a_lost_connection_sends_again_in_order() -> None:
    """What was not answered comes first, in the old order."""
    box = Outbox(Supply(lines(5)), Mark())
    sent = [box.next(0.0) for _ in range(3)]
    assert sent[0] is not None
    box.answer([sent[0]], [FakeAnswer("ACK", 0.0)], 0.0)
    box.lose()
    again = [box.next(0.0) for _ in range(4)]
    assert [item.entry.number for item in again if item and isinstance(item.entry, LogLine)] == [2, 3, 4, 5]
    assert box.next(0.0) is None


def test_a_retry_waits_longer_each_time_and_holds_up_nobody() -> None:
    """The line comes again after 0.1, 0.2, 0.4 s and so on, up to 30; those behind it are sent meanwhile."""
    box, now = Outbox(Supply(lines(2)), Mark()), 0.0
    first = box.next(now)
    assert first is not None
    for expected in [0.1, 0.2, 0.4, *[None] * 8, 30.0]:
        box.answer([first], [FakeAnswer("RETRY", 0.0)], now)
        if expected == 0.1:
            other = box.next(now)
            assert other is not None
            box.answer([other], [FakeAnswer("ACK", 0.0)], now)
            assert box.mark.line == 0
        wait = box.wake_at(now) - now
        assert expected is None or math.isclose(wait, expected)
        assert box.next(now + wait - 0.001) is None
        now += wait
        assert box.next(now) is first
    box.answer([first], [FakeAnswer("ACK", 0.0)], now)
    assert box.mark.line == 2


def test_throttle_slows_this_worker_for_its_time() -> None:
    """After throttle_ms nothing of the worker is sent until it is over."""
    box = Outbox(Supply(lines(3)), Mark())
    first = box.next(0.0)
    assert first is not None
    box.answer([first], [FakeAnswer("ACK", 2.5)], 1.0)
    assert box.next(3.4) is None
    assert box.wake_at(1.0) == 3.5
    assert box.next(3.5) is not None


def test_the_window_is_bounded_by_lines_and_bytes() -> None:
    """So many lines or bytes are under way at most, one line always."""
    box = Outbox(Supply(lines(9000)), Mark())
    assert sum(box.next(0.0) is not None for _ in range(9000)) == outbox_module.WINDOW_LINES
    large = Outbox(Supply(lines(3, size=1 << 20)), Mark())
    first = large.next(0.0)
    assert first is not None
    assert large.next(0.0) is None
    large.answer([first], [FakeAnswer("ACK", 0.0)], 0.0)
    assert large.next(0.0) is not None


def test_a_gap_moves_no_mark() -> None:
    """A gap is handed on like a line, and what follows it is marked as before."""
    box = Outbox(Supply([Gap("a", "b", "LogRotated"), *lines(1)]), Mark())
    for expected in (0, 1):
        item = box.next(0.0)
        assert item is not None
        box.answer([item], [FakeAnswer("DROP", 0.0)], 0.0)
        assert box.mark.line == expected
    assert box.dropped == 2
