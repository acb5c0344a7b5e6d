"""Container logs: what is written, and what each reading option gives back."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from ottoscaler.localcluster.logs import MAX_ENTRY_BYTES, ContainerLog, LogOptions, Stream, format_stamp, read_log

SECOND = 10**9
EPOCH = int(datetime(2026, 11, 20, 20, 41, 21, tzinfo=UTC).timestamp()) * SECOND


class Clock:
    """A wall clock that a test moves by hand; each look moves it by one nanosecond."""

    def __init__(self) -> None:
        self.now = EPOCH

    def __call__(self) -> int:
        """Nanoseconds since the epoch."""
        self.now += 1
        return self.now


async def read(log: ContainerLog, **options: object) -> bytes:
    """Everything that a reader with these options gets."""
    return b"".join([piece async for piece in read_log(log, LogOptions(**options))])  # type: ignore[arg-type]  # the test's own words


def recorded_log(path: Path) -> tuple[ContainerLog, Clock]:
    """The log of the recorded pod `logs-1`: six lines on each stream, half a second apart."""
    clock = Clock()
    log = ContainerLog(path / "0.log", now_ns=clock)
    for number in range(1, 7):
        log.feed("stdout", f"line {number}\n".encode())
        log.feed("stderr", f"err {number}\n".encode())
        clock.now += SECOND // 2
    log.close()
    return log, clock


async def test_options_answer_as_recorded(tmp_path: Path) -> None:
    """The whole log, a tail, a byte limit and since give the recorded bodies."""
    log, clock = recorded_log(tmp_path)
    whole = "".join(f"line {n}\nerr {n}\n" for n in range(1, 7)).encode()
    assert await read(log) == whole
    assert await read(log, tail_lines=2) == b"line 6\nerr 6\n"
    assert await read(log, tail_lines=0) == b""
    assert await read(log, tail_lines=99) == whole
    assert await read(log, limit_bytes=10) == b"line 1\nerr"
    assert await read(log, since_seconds=1) == b"line 6\nerr 6\n"
    clock.now += 2 * SECOND
    assert await read(log, since_seconds=1) == b""
    assert await read(log, since_time=datetime(2026, 11, 20, 20, 41, 23, tzinfo=UTC)) == (
        b"line 5\nerr 5\nline 6\nerr 6\n"
    )


async def test_timestamps_have_nine_digits(tmp_path: Path) -> None:
    """With timestamps each line begins with RFC 3339 in nanoseconds, and the byte limit counts them."""
    log, _ = recorded_log(tmp_path)
    lines = (await read(log, timestamps=True)).splitlines()
    assert lines[0] == b"2026-11-20T20:41:21.000000001Z line 1"
    assert all(re.fullmatch(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (line|err) \d", line) for line in lines)
    assert await read(log, timestamps=True, limit_bytes=33) == b"2026-11-20T20:41:21.000000001Z li"


async def test_long_lines_binary_and_unfinished_lines_come_back_whole(tmp_path: Path) -> None:
    """A line above 16 KiB, NUL and invalid UTF-8, and a last line without newline are served unchanged."""
    log = ContainerLog(tmp_path / "0.log", now_ns=Clock())
    data = b"x" * (3 * MAX_ENTRY_BYTES + 5) + b"\n\x00\xff\xfe\n\nno newline"
    log.feed("stdout", data[:100])
    log.feed("stdout", data[100:])
    log.close()
    assert await read(log) == data
    stamped = await read(log, timestamps=True)
    assert stamped.count(b"2026-11-20T") == 4, "one stamp per line, none inside the long one"


async def test_since_inside_a_long_line_begins_without_a_stamp(tmp_path: Path) -> None:
    """A stream that begins in the middle of a long line begins without a stamp, as the kubelet's does."""
    clock = Clock()
    log = ContainerLog(tmp_path / "0.log", now_ns=clock)
    log.feed("stdout", b"a" * MAX_ENTRY_BYTES)
    clock.now += 5 * SECOND
    log.feed("stdout", b"tail\nnext\n")
    log.close()
    text = await read(log, since_seconds=2, timestamps=True)
    assert text.startswith(b"tail\n2026-")


@settings(max_examples=40, deadline=None)
@given(pieces=st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(max_size=60)), max_size=30))
def test_no_byte_is_lost_or_added(tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[Stream, bytes]]) -> None:
    """However a process cuts its writes, each stream's bytes are all there, in order."""

    async def go() -> None:
        log = ContainerLog(tmp_path_factory.mktemp("log") / "0.log", now_ns=Clock())
        for stream, data in pieces:
            log.feed(stream, data)
        log.close()
        entries = log.path.read_bytes().split(b"\n")[:-1] if log.generation else []
        for stream in ("stdout", "stderr"):
            seen = b""
            for entry in entries:
                _, name, tag, content = entry.split(b" ", 3)
                if name == stream.encode():
                    seen += content + (b"\n" if tag == b"F" else b"")
            assert seen == b"".join(data for name, data in pieces if name == stream)

    trio.run(go)


async def test_follow_sees_each_line_and_ends_with_the_log(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A follower that came before the first line gets every line as it is written and ends at the close."""
    log = ContainerLog(tmp_path / "0.log")
    seen: list[tuple[float, bytes]] = []

    async def follow() -> None:
        async for piece in read_log(log, LogOptions(follow=True)):
            seen.append((trio.current_time(), piece))  # noqa: PERF401 - each at its own time

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        for number in range(3):
            await trio.sleep(1)
            log.feed("stdout", b"%d\n" % number)
        await trio.sleep(1)
        log.feed("stdout", b"last")
        log.close()
    assert [(round(at - start), piece) for at, piece in seen] == [(1, b"0\n"), (2, b"1\n"), (3, b"2\n"), (4, b"last")]


async def test_rotation_serves_only_the_current_file(tmp_path: Path) -> None:
    """After a rotation only the new file is served, and no more than five files are kept."""
    log = ContainerLog(tmp_path / "0.log", max_bytes=400, now_ns=Clock())
    for number in range(100):
        log.feed("stdout", b"line %02d\n" % number)
    log.close()
    text = await read(log)
    assert text.endswith(b"line 99\n")
    assert b"line 00" not in text
    assert len(list(tmp_path.iterdir())) == 5


async def test_a_slow_follower_skips_whole_files(tmp_path: Path) -> None:
    """A follower that reads nothing during rotations goes on in the current file, having missed those between."""
    log = ContainerLog(tmp_path / "0.log", max_bytes=400, now_ns=Clock())
    log.feed("stdout", b"first\n")
    stream = read_log(log, LogOptions(follow=True))
    seen = [await anext(stream)]
    for number in range(100):
        log.feed("stdout", b"line %02d\n" % number)
    log.close()
    seen += [piece async for piece in stream]
    text = b"".join(seen)
    assert text.startswith(b"first\n")
    assert text.endswith(b"line 99\n")
    assert b"line 40" not in text


async def test_a_rotation_on_demand_counts_what_followers_did_not_get(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A follower at the end of the old file misses nothing; what it had not read is skipped, and counted."""
    log = ContainerLog(tmp_path / "0.log")
    seen: list[bytes] = []

    async def follow() -> None:
        async for piece in read_log(log, LogOptions(follow=True)):
            seen.append(piece)  # noqa: PERF401 - followed while it is written

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        for number in range(3):
            await trio.sleep(1)
            log.feed("stdout", b"%d\n" % number)
        await trio.sleep(1)
        log.rotate()
        log.feed("stdout", b"read\n")
        await trio.sleep(1)
        assert log.skipped == 0
        log.feed("stdout", b"lost\nlost\n")
        log.rotate()
        log.feed("stdout", b"next\n")
        await trio.sleep(1)
        log.close()
    assert b"".join(seen) == b"0\n1\n2\nread\nnext\n"
    assert log.skipped == 2


def test_stamps_compare_as_text() -> None:
    """Later is greater, also across a second without a fraction."""
    moments = [EPOCH - 1, EPOCH, EPOCH + 1, EPOCH + SECOND]
    assert [format_stamp(moment) for moment in moments] == sorted(format_stamp(moment) for moment in moments)
    assert format_stamp(EPOCH) == "2026-11-20T20:41:21.000000000Z"
