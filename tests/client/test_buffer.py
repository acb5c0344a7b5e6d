"""The buffer: order, what each answer means, and gaps that say exactly how many lines are missing."""

from __future__ import annotations

import math
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottoscaler.client.buffer import FIRST_RETRY, WINDOW_BYTES, WINDOW_LINES, Answer, Block, Buffer, Line, Statistics
from ottoscaler.client.limits import MOST_BYTES, Limits, Pace


def block(*texts: str) -> Block:
    """Lines of the program's own, given at once."""
    return Block("".join(f"{text}\n" for text in texts).encode(), "2026-01-02T03:04:05Z")


def filled(*texts: str, limits: Limits | None = None) -> Buffer:
    """A buffer to which lines were added."""
    buffer = Buffer(limits)
    for text in texts:
        buffer.add(block(text))
    return buffer


def sent(buffer: Buffer, now: float = 0.0) -> list[str]:
    """The texts of all lines that may be sent now."""
    texts = []
    while (each := buffer.next(now)) is not None:
        texts.append(each.text)
    return texts


def test_lines_go_in_order_and_are_answered_in_order() -> None:
    """ACK and DROP are counted for the oldest line under way."""
    buffer = filled("a", "b", "c")
    assert sent(buffer) == ["a", "b", "c"]
    for answer in ("ACK", "DROP", "ACK"):
        buffer.take_answer(answer, 0.0)
    assert buffer.is_empty
    assert buffer.statistics() == Statistics(acknowledged=2, dropped=1, left_out=0, waiting=0)


def test_what_is_said_of_a_line_takes_room_like_its_text() -> None:
    """No more is held back than there is room for, metadata and all, and every byte of it is given back."""
    metadata = {"stack": "x" * 100_000}
    buffer = Buffer(Limits(line_bytes=10))
    for number in range(1000):
        buffer.add(Block(b"%d and more than goes at once\n" % number, "2026-01-02T03:04:05Z", metadata=metadata))
    assert len(buffer) <= MOST_BYTES // 100_000
    assert buffer.statistics().left_out == 1000 - len(buffer)
    while not buffer.is_empty:
        assert len(sent(buffer)) <= WINDOW_BYTES // 100_000 + 2
        buffer.take_answer("ACK", 0.0)
    assert buffer._bytes == buffer._sent_bytes == 0


def test_a_retried_line_goes_again_after_a_growing_while() -> None:
    """RETRY: later lines pass it, and each further RETRY doubles the while."""
    buffer = filled("a", "b")
    assert sent(buffer) == ["a", "b"]
    buffer.take_answer("RETRY", 0.0)
    buffer.take_answer("ACK", 0.0)
    assert (sent(buffer, FIRST_RETRY - 0.01), buffer.wait(0.0)) == ([], FIRST_RETRY)
    assert sent(buffer, FIRST_RETRY) == ["a"]
    buffer.take_answer("RETRY", 1.0)
    assert buffer.wait(1.0) == pytest.approx(2 * FIRST_RETRY)


def test_what_was_under_way_goes_first_again() -> None:
    """After a cut the unanswered lines go before what waits, in their order."""
    buffer = filled("a", "b", "c")
    sent(buffer)
    buffer.take_answer("ACK", 0.0)
    buffer.put_back()
    buffer.add(block("d"))
    assert sent(buffer) == ["b", "c", "d"]


def test_the_oldest_gives_way_and_a_line_says_how_many() -> None:
    """Beyond the limit the oldest waiting lines go; one line in their place says how many, and since when."""
    buffer = filled("1", "2", "3", "4", "5", limits=Limits(lines=2))
    stamp = "2026-01-02T03:04:05Z"
    said = f"3 lines are missing between {stamp} and {stamp}: there was no room to hold them back"
    texts = sent(buffer)
    while not buffer.is_empty:
        buffer.take_answer("ACK", 0.0)
        texts += sent(buffer)
    assert texts == [said, "4", "5"]
    assert buffer.statistics() == Statistics(acknowledged=2, dropped=0, left_out=3, waiting=0)


def test_the_window_is_bounded() -> None:
    """Without answers no more than the window is under way."""
    buffer = filled(*map(str, range(WINDOW_LINES + 5)))
    assert len(sent(buffer)) == WINDOW_LINES
    assert buffer.wait(0.0) == math.inf


def test_a_long_line_goes_in_parts() -> None:
    """Parts are within the limit in UTF-8 bytes, all but the last say that there is more, and one line is counted."""
    buffer = filled("ääääöä", "b", limits=Limits(line_bytes=5))
    parts = [buffer.next(0.0) for _ in range(4)]
    assert [(part.text, part.metadata) for part in parts if part] == [
        ("ää", {"continued": "true"}),
        ("ää", {"continued": "true"}),
        ("öä", None),
        ("b", None),
    ]
    for _ in parts:
        buffer.take_answer("ACK", 0.0)
    assert buffer.statistics() == Statistics(acknowledged=2, dropped=0, left_out=0, waiting=0)
    assert buffer._bytes == 0


def test_given_up_lines_are_left_out() -> None:
    """Whatever waits, is under way or is to be sent again counts as left out when nothing is sent any more."""
    buffer = filled("a", "b", "c")
    buffer.next(0.0)
    buffer.next(0.0)
    buffer.take_answer("RETRY", 0.0)
    buffer.give_up()
    assert buffer.is_empty
    assert buffer.statistics() == Statistics(acknowledged=0, dropped=0, left_out=3, waiting=0)


def test_a_line_without_its_beginning_is_missing() -> None:
    """Where the first parts of a line give way, that is one missing line, however many; its end arrives."""
    buffer = Buffer(Limits(lines=2))
    for text in ("one", "two", "three"):
        buffer.add(Block(f"{text}\n".encode(), "T", source="stdout", is_part=True))
        buffer.add(Block(b"other\n", "T", source="stderr"))
    buffer.add(Block(b"end\nnext\n", "T", source="stdout"))
    texts = []
    while (line := buffer.next(0.0)) is not None:
        texts.append(line.text)
        buffer.take_answer("ACK", 0.0)
    said = "4 lines are missing between T and T: there was no room to hold them back"
    assert texts == [said, "end", "next"]
    assert buffer.is_empty
    assert buffer.statistics() == Statistics(acknowledged=1, dropped=0, left_out=4, waiting=0)


@given(st.text(), st.integers(1, 50))
def test_the_parts_of_a_line_are_the_line(text: str, line_bytes: int) -> None:
    """However a line is cut, its parts are the line, none longer than allowed (one character always goes)."""
    limits, rest, parts = Limits(line_bytes=line_bytes), text, []
    while True:
        part, rest = limits.cut(rest)
        parts.append(part)
        if not rest:
            break
    assert "".join(parts) == text
    assert all(len(part.encode()) <= line_bytes or len(part) == 1 for part in parts)


@given(st.integers(1, 10_000), st.lists(st.floats(0, 0.5), min_size=1, max_size=200))
def test_the_pace_is_kept(rate: int, steps: list[float]) -> None:
    """In any stretch of time no more lines go than the rate allows, but for a twentieth of a second's and one."""
    pace, now, gone = Pace(rate), 0.0, list[float]()
    for step in steps:
        now += step
        while not pace.wait(now) and len(gone) < 400:
            pace.take(now)
            gone.append(now)
    for first, then in enumerate(gone):
        assert len(gone) - first <= rate * (gone[-1] - then + 0.05) + 2


class World:
    """A program that writes, a handler that answers, and the buffer between them."""

    def __init__(self, lines: int) -> None:
        self.buffer = Buffer(Limits(lines=lines, line_bytes=7))
        self.under_way = deque[Line]()
        self.now = 0.0
        self.short = 0
        self.long = [""]
        """The lines that come in parts, each of a character of its own; the last is not at its end."""
        self.taken: list[Line] = []

    def add(self, count: int) -> None:
        """Lines, all at once."""
        self.short += count
        self.buffer.add(block(*"x" * count))

    def add_part(self, *, is_last: bool) -> None:
        """A part of a line."""
        part = chr(0x4E00 + len(self.long)) * 5
        self.buffer.add(Block(f"{part}\n".encode(), "T", source="long", is_part=not is_last))
        self.long[-1] += part
        self.long += [""] * is_last

    def send(self) -> bool:
        """Send a line, if one may be sent."""
        if (line := self.buffer.next(self.now)) is not None:
            self.under_way.append(line)
        return line is not None

    def cut(self) -> None:
        """The connection is gone."""
        self.buffer.put_back()
        self.under_way.clear()

    def answer(self, kind: Answer) -> None:
        """Answer the oldest line under way, if there is one."""
        if self.under_way:
            line = self.under_way.popleft()
            self.buffer.take_answer(kind, self.now)
            self.taken += [line] * (kind != "RETRY")

    def finish(self) -> None:
        """End the last line, and take everything."""
        self.add_part(is_last=True)
        while not self.buffer.is_empty:
            self.now += 100
            while self.send():
                pass
            self.answer("ACK")

    @property
    def whole(self) -> int:
        """The lines that were taken with all their parts."""
        text = "".join(line.text for line in self.taken if not line.missing)
        return text.count("x") + sum(text.count(line[0]) == len(line) for line in self.long[:-1])


@given(
    st.lists(
        st.one_of(
            st.integers(1, 9),
            st.sampled_from(["part", "end"]),
            st.just("send"),
            st.just("cut"),
            st.sampled_from(["ACK", "RETRY", "DROP"]),
            st.just("time"),
        ),
        max_size=200,
    ),
    st.integers(1, 8),
)
def test_every_line_is_accounted_for(steps: list[int | str], lines: int) -> None:
    """Whatever happens in whatever order: each line is acknowledged, dropped or left out, once, and the lines that say
    what is missing, together with those that were taken whole, make up all of them.
    """
    world = World(lines)
    for step in steps:
        match step:
            case int():
                world.add(step)
            case "part" | "end":
                world.add_part(is_last=step == "end")
            case "send":
                world.send()
            case "cut":
                world.cut()
            case "time":
                world.now += 1
            case "ACK" | "RETRY" | "DROP":
                world.answer(step)
        most = 3 * lines if any(world.long) else lines  # a part is cut in three
        assert len(world.buffer) <= most + 1  # one line that says what is missing
    world.finish()
    done = world.buffer.statistics()
    assert done.acknowledged + done.dropped == world.whole
    assert done.left_out == world.short + len(world.long) - 1 - world.whole
    assert sum(line.missing for line in world.taken) == done.left_out
    assert world.buffer._bytes == 0
