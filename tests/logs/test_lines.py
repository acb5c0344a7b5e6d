"""Lines out of bytes, and marks that are found again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottoscaler.logs import lines as lines_module
from ottoscaler.logs.lines import LineReader, LogLine
from ottoscaler.logs.mark import Mark, Seeker, digest_of, since_time

START = datetime(2026, 11, 20, 20, 41, 21, tzinfo=UTC)


def stamp(nanoseconds: int) -> str:
    """A stamp as the kubelet writes it, so many ns after a fixed second."""
    seconds, fraction = divmod(nanoseconds, 10**9)
    return f"{START + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


def rendered(entries: list[tuple[int, bytes]]) -> bytes:
    """The stream of these lines."""
    return b"".join(stamp(at).encode() + b" " + text + b"\n" for at, text in entries)


def read(data: bytes, cuts: list[int]) -> list[LogLine]:
    """All lines of a stream that the network cut at these places."""
    reader, found, last = LineReader(), [], 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        found += reader.feed(data[last:cut])
        last = cut
    return found + reader.end()


TEXT = st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b"."))
ENTRIES = st.lists(st.tuples(st.integers(0, 3 * 10**9) | st.sampled_from([0, 1, 10**9]), TEXT), max_size=30)
CUTS = st.lists(st.integers(0, 3000), max_size=12)


@given(entries=ENTRIES, cuts=CUTS)
def test_any_cut_gives_the_same_lines(entries: list[tuple[int, bytes]], cuts: list[int]) -> None:
    """However the stream is cut, each line comes once, with its stamp, its bytes unchanged."""
    found = read(rendered(entries), cuts)
    assert [(line.stamp, line.text) for line in found] == [(stamp(at), text) for at, text in entries]
    assert found == read(rendered(entries), [])


@given(length=st.integers(0, 400), cuts=CUTS, is_ended=st.booleans())
def test_a_long_line_comes_in_parts_of_about_one_size(length: int, cuts: list[int], is_ended: bool) -> None:
    """A line above the limit is cut at the same places whatever the network does, and its parts join to the line."""
    text = bytes(number % 251 + 1 for number in range(length)).replace(b"\n", b".")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines_module, "LONGEST_LINE", 100)
        patch.setattr(lines_module, "LONGEST_BYTES", 90)
        whole = rendered([(5, text), (6, b"next")])
        found = read(whole if is_ended else whole[: -len(rendered([(6, b"next")])) - 1], cuts)
    parts = found[:-1] if is_ended else found
    assert b"".join(part.text for part in parts) == text
    assert [part.more for part in parts] == [True] * (len(parts) - 1) + [False]
    sizes = [len(part.text) for part in parts[:-1]]
    assert all(97 <= size <= 100 or size == 90 for size in sizes)  # of text; where the next hundred bytes are none
    assert all(size == 90 for size, part in zip(sizes, parts, strict=False) if not part.text.isascii())


def test_no_part_of_a_long_line_ends_inside_a_character() -> None:
    """A long line of UTF-8 is UTF-8 in each of its parts, so that none has to be escaped."""
    for text in ("€" * 600_000, "a" + "é" * 700_000, "ab" + "\U0001f600" * 400_000):
        parts = read(rendered([(7, text.encode())]), list(range(0, 1 << 20, 65_536)))
        assert len(parts) > 1
        assert "".join(part.text.decode() for part in parts) == text


def test_a_line_of_a_megabyte_is_one_line() -> None:
    """A million bytes that are no text come back as they are, in one piece, and so does 1 MiB of text."""
    for text in (bytes(range(250)).replace(b"\n", b"\x00") * 4000, "world \u4e16.".encode() * 104_857 + b"123456"):
        (found,) = read(rendered([(7, text)]), list(range(0, 1 << 20, 65_536)))
        assert found.text == text


def test_bytes_are_cut_where_they_are_cut_however_they_come() -> None:
    """3 MiB that are no text have the same parts in one piece as in many, none above a million bytes."""
    raw = rendered([(7, b"\xff" * (3 << 20))])
    found = [read(raw, cuts) for cuts in ([], list(range(0, 3 << 20, 50_000)))]
    assert found[0] == found[1]
    assert [len(line.text) for line in found[0]] == [1_000_000] * 3 + [(3 << 20) - 3_000_000]


@given(cuts=CUTS)
def test_a_tail_without_a_stamp_is_dropped(cuts: list[int]) -> None:
    """A resumed stream may begin inside a long line: that tail is no line, however long it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines_module, "LONGEST_LINE", 50)
        found = read(b"tail " * 60 + b"\n" + rendered([(1, b"one")]), cuts)
    assert [line.text for line in found] == [b"one"]


def test_what_the_kubelet_itself_says_is_no_line() -> None:
    """Words of the kubelet in place of a log are kept apart."""
    reader = LineReader()
    assert reader.feed(b"unable to retrieve container logs for containerd://5d") == []
    assert reader.end() == []
    assert reader.unstamped == b"unable to retrieve container logs for containerd://5d"


def test_stamps_of_other_zones_and_widths_are_read() -> None:
    """The node's zone and fewer digits make no difference."""
    found = read(b"2026-11-20T20:41:21+09:00 a\n2026-11-20T20:41:21.5Z b\n", [])
    assert [(line.stamp, line.text) for line in found] == [
        ("2026-11-20T20:41:21+09:00", b"a"),
        ("2026-11-20T20:41:21.5Z", b"b"),
    ]
    assert since_time(found[0].stamp) == "2026-11-20T11:41:20Z"
    assert since_time(found[1].stamp) == "2026-11-20T20:41:20Z"


@given(entries=ENTRIES.filter(bool), data=st.data())
def test_a_mark_is_found_again_from_a_second_earlier(entries: list[tuple[int, bytes]], data: st.DataObject) -> None:
    """Resumed with sinceTime, exactly what follows the marked line in file order is news."""
    every = read(rendered(entries), [])
    at = data.draw(st.integers(0, len(every) - 1))
    mark = Mark().at(every[at], "")
    resumed = [entry for entry in entries if stamp(entry[0])[:19] >= mark.since[:19]]
    seeker = Seeker(mark)
    rest = list(seeker.pass_on(read(rendered(resumed), [])))
    expected = [line for number, line in enumerate(every) if number > at and line.stamp[:19] >= mark.since[:19]]
    assert seeker.found
    assert [(line.stamp, line.text) for line in rest] == [(line.stamp, line.text) for line in expected]


def test_a_mark_that_is_not_there_is_not_found() -> None:
    """Another text at the same stamp is another line."""
    line = LogLine(stamp(1), b"one")
    seeker = Seeker(Mark().at(line, ""))
    assert list(seeker.pass_on([LogLine(stamp(1), b"two"), LogLine(stamp(2), b"one")])) == []
    assert not seeker.found
    assert seeker.first == stamp(1)
    assert not seeker.is_beyond(LogLine(stamp(10**9), b"near"))
    assert seeker.is_beyond(LogLine(stamp(4 * 10**9), b"far"))
    assert digest_of(b"one") != digest_of(b"two")
