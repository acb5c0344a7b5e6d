"""How a followed log ends: what is taken for its end, and what is not, where streams are cut and pods go with it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.logs import following
from tests.logs.test_following import Scene, opened, words


async def test_a_pod_that_is_gone_before_its_end_was_read_is_a_gap(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What nobody can read any more is said to be missing."""
    async with opened(tmp_path) as scene:
        scene.start()
        scene.say(1)
        await trio.sleep(1)
        scene.kubelet.is_away = True
        scene.kubelet.cut()
        scene.say(2)
        await trio.sleep(5)
        scene.kubelet.is_gone, scene.kubelet.is_away = True, False
        scene.show(gone=True)
    assert scene.texts == words(1)
    assert [gap.why for gap in scene.gaps] == ["PodGone"]


@pytest.mark.parametrize(
    ("is_listed", "last", "gaps"),
    [
        (False, {}, [("PodGone", False)]),
        (True, {}, []),
        (True, {"scheduled": True}, [("PodGone", False)]),
        (True, {"scheduled": True, "phase": "Failed"}, []),
    ],
)
async def test_a_pod_that_vanished_without_a_last_state_may_have_run(
    tmp_path: Path, autojump_clock: MockClock, is_listed: bool, last: dict[str, Any], gaps: list[tuple[str, bool]]
) -> None:
    """Where the last that was seen of a pod is that it waits, its deletion tells that it never ran, if it had no node
    or its kubelet said so at the end; its absence from a list tells nothing.
    """
    async with opened(tmp_path) as scene:
        scene.show(phase="Pending", scheduled=bool(last))
        await trio.sleep(1)
        scene.kubelet.is_gone = True
        if is_listed:
            scene.show(gone=True, **last)
        else:
            scene.fleet.replace([], 100)
    assert [(gap.why, gap.certain) for gap in scene.gaps] == gaps


async def test_one_read_alone_is_not_the_log(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A log that is opened when its container has ended is read twice: the first answer may have been cut at once."""
    async with opened(tmp_path) as scene:
        scene.say(1, 2)
        scene.kubelet.empty_answers = 1
        scene.show(started_at=float(int(scene.kubelet.now())))
        scene.end()
    assert scene.texts == words(1, 2)
    assert not scene.gaps


@pytest.mark.parametrize(("late", "gaps"), [(0.005, [("EndNotRead", False)]), (0.05, [])])
async def test_a_stream_s_end_is_not_the_log_s(
    tmp_path: Path, autojump_clock: MockClock, late: float, gaps: list[tuple[str, bool]]
) -> None:
    """A stopped pod that is gone before its log was read once more, or after: the former leaves a gap, though all came,
    for it looks like the next case.
    """
    async with opened(tmp_path) as scene:
        scene.start()
        scene.say(1, 2)
        await trio.sleep(1)
        scene.end()
        await trio.sleep(late)
        scene.kubelet.is_gone = True
        scene.show(gone=True)
    assert scene.texts == words(1, 2)
    assert [(gap.why, gap.certain) for gap in scene.gaps] == gaps


async def test_a_stream_cut_in_the_second_of_the_end_leaves_a_gap(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The API tells the end in whole seconds, so a cut just before it seems to have come with it: that is no proof."""
    async with opened(tmp_path) as scene:
        scene.start()
        scene.say(1)
        await trio.sleep(1.1)
        scene.kubelet.cut(is_polite=True)
        await trio.sleep(0.05)
        scene.say(2)
        scene.end()
        scene.kubelet.is_gone = True
        scene.show(gone=True)
    assert scene.texts == words(1)
    (gap,) = scene.gaps
    assert (gap.begin[:19], gap.end, gap.why, gap.certain) == ("2026-11-20T20:41:21", "", "EndNotRead", False)


async def test_a_cut_in_the_last_second_is_mended_at_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    """After a stream's end nobody waits for the container's: what is written after a cut is read while it can be."""
    async with opened(tmp_path) as scene:
        scene.start()
        scene.say(1)
        await trio.sleep(10)
        scene.kubelet.cut(is_polite=True)
        scene.say(2)
        await trio.sleep(0.3)
        scene.say(3)
        await trio.sleep(0.1)
        scene.kubelet.is_gone = True
        scene.end()
        scene.show(gone=True)
    assert scene.texts == words(1, 2, 3)
    assert [(gap.why, gap.certain) for gap in scene.gaps] == [("EndNotRead", False)]


async def test_a_log_that_was_read_long_after_its_end_was_whole(tmp_path: Path, autojump_clock: MockClock) -> None:
    """While the watch tells nothing the log is read again and again: what was read well after the end is everything."""
    async with opened(tmp_path) as scene:
        scene.start()
        scene.say(1, 2)
        await trio.sleep(1)
        ended = float(int(scene.kubelet.now()))
        scene.kubelet.log.close()
        await trio.sleep(20)
        scene.kubelet.is_gone = True
        scene.show(gone=True, exit_code=0, finished_at=ended)
    assert scene.texts == words(1, 2)
    assert scene.gaps == []
    assert len(scene.kubelet.reads) < 60


async def test_a_last_line_without_its_end_is_not_forgotten(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The rest of a line that a stream left is no line; where no read can tell that it was one, a gap says so."""
    async with opened(tmp_path) as scene:
        scene.start()
        scene.say(1)
        await trio.sleep(1)
        scene.kubelet.log.feed("stdout", b"no newline")
        scene.end()
        await trio.sleep(0.005)
        scene.kubelet.is_gone = True
        scene.show(gone=True)
    assert scene.texts == words(1)
    assert [gap.why for gap in scene.gaps] == ["EndNotRead"]


async def test_a_last_line_without_its_end_is_not_forgotten_later(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Nor is it where the log was read long after its end, and the pod is gone when it is followed once more."""
    async with opened(tmp_path) as scene:
        scene.start()
        scene.say(1)
        scene.kubelet.log.feed("stdout", b"no newline")
        scene.kubelet.log.close()
        ended = scene.kubelet.now()
        await trio.sleep(10)
        reads = scene.kubelet.reads
        known = len(reads)
        while len(reads) == known or not reads[-1][0]:  # noqa: ASYNC110 - it tells nobody
            await trio.sleep(0.001)
        scene.kubelet.is_gone = True
        scene.show(gone=True, exit_code=0, finished_at=float(int(ended)))
    assert scene.texts == words(1)
    assert [gap.why for gap in scene.gaps] == ["EndNotRead"]


async def test_a_stream_that_outlives_its_container_is_left(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A kubelet looks once a second whether it may end a stream; the log is read as soon as the end is seen."""
    async with opened(tmp_path) as scene:
        scene.start()
        scene.say(1)
        await trio.sleep(1)
        scene.say(2)
        await trio.sleep(0.2)
        scene.show(exit_code=0, finished_at=float(int(scene.kubelet.now())))
        await trio.sleep(0.4)
        scene.kubelet.is_gone = True
        scene.show(gone=True)
    assert scene.texts == words(1, 2)
    assert scene.gaps == []


async def test_a_cut_after_the_hurry_is_mended(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A worker that was said to have ended is followed on for a while, until its container's end is seen."""
    async with opened(tmp_path) as scene:
        scene.start()
        scene.say(1)
        await trio.sleep(1)
        scene.following.hurry()
        scene.kubelet.cut(is_polite=True)
        scene.say(2)
        await trio.sleep(1)
        scene.say(3)
        await trio.sleep(1)
        scene.end()
    assert scene.texts == words(1, 2, 3)
    assert scene.gaps == []


async def test_a_last_read_that_was_cut_is_read_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A read that the API ended politely, having lost the kubelet, ends like a whole one: news are read twice."""
    async with opened(tmp_path) as scene:
        scene.kubelet.log.feed("stdout", b"".join(b"line %d %s\n" % (number, b"x" * 16_000) for number in range(60)))
        scene.slow = 0.5
        scene.start()
        scene.end()
        await trio.sleep(0.7)
        scene.kubelet.cut(is_polite=True)
        scene.slow = 0.0
    assert [int(text.split()[1]) for text in scene.texts] == list(range(60))
    assert scene.gaps == []
    assert [bool(since) for _, since in scene.kubelet.reads] == [False, False, True, False]  # and a look at the head


async def test_a_read_that_the_kubelet_gave_up_is_made_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    """An error of the kubelet's that comes when the answer has begun stands behind the lines, and ends it politely."""
    async with opened(tmp_path) as scene:
        scene.say(1, 2, 3)
        scene.kubelet.complaints = [b"failed to read log file: input/output error"] * 3
        scene.start()
        scene.end()
    assert scene.texts == words(1, 2, 3)
    assert scene.gaps == []
    assert len(scene.kubelet.reads) == 5


async def test_a_pod_that_goes_before_a_rotation_was_noticed_is_a_gap_from_the_last_look(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """What a follower skipped as it was taken to a new file lies before the last line that came."""
    async with opened(tmp_path) as scene:
        scene.start()
        scene.say(1)
        await trio.sleep(1)
        scene.say(2, 3)
        scene.kubelet.log.rotate()
        await trio.sleep(20)
        scene.say(4)
        await trio.sleep(1)
        scene.end()
        scene.kubelet.is_gone = True
        scene.show(gone=True)
    assert scene.texts == words(1, 4)
    (gap,) = scene.gaps
    assert (gap.begin[:19], gap.end, gap.certain) == ("2026-11-20T20:41:21", "", False)


async def test_what_a_slow_receiver_takes_is_not_cut_off(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Nobody hurries a receiver: a worker that has ended meanwhile is read on behind what it takes."""
    async with opened(tmp_path) as scene:
        scene.start()
        await trio.sleep(1)
        scene.slow = 20.0
        scene.say(1, 2)
        await trio.sleep(1)
        scene.following.hurry()
        scene.end()
        scene.slow = 0.0
    assert scene.texts == words(1, 2)
    assert scene.gaps == []


@pytest.mark.parametrize("is_closed", [True, False])
async def test_a_worker_said_to_have_ended_keeps_nobody_waiting(
    tmp_path: Path, autojump_clock: MockClock, is_closed: bool
) -> None:
    """After `hurry` what is there is read; where the container's end was not seen, that is said."""
    async with opened(tmp_path) as scene:
        scene.start()
        scene.say(1)
        await trio.sleep(1)
        if is_closed:
            scene.end()
        scene.following.hurry()
    assert scene.texts == words(1)
    assert [gap.why for gap in scene.gaps] == ([] if is_closed else ["EndNotSeen"])


async def test_a_new_file_is_noticed_while_the_stream_lives(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head is looked at every so many bytes: a gap is said also where pod and log go with the container's end."""
    monkeypatch.setattr(following, "HEAD_EVERY", 50)
    async with opened(tmp_path) as scene:
        scene.start()
        scene.say(1)
        await trio.sleep(1)
        scene.say(2, 3)
        scene.kubelet.log.rotate()
        await trio.sleep(20)
        scene.say(*range(4, 14))
        await trio.sleep(1)
        scene.end()
        await trio.sleep(0.005)
        scene.kubelet.is_gone = True
        scene.show(gone=True)
    assert (scene.kubelet.log.skipped, scene.texts) == (2, words(1, *range(4, 14)))
    assert [(gap.why, gap.certain) for gap in scene.gaps] == [("LogRotated", False), ("EndNotRead", False)]


async def rotate_unread(scene: Scene) -> None:
    """Line 2 is put away while nobody can read it; line 3 is the first of the new file."""
    scene.start()
    scene.say(1)
    await trio.sleep(1)
    scene.kubelet.is_away = True
    scene.kubelet.cut()
    scene.say(2)
    await trio.sleep(5)
    scene.kubelet.log.rotate()
    scene.say(3)
    scene.kubelet.is_away = False
    await trio.sleep(5)


async def test_after_a_rotation_one_read_without_the_mark_is_no_second_one(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """As before it, a read may be cut off short of the mark: that alone is no new file, and nothing comes twice."""
    async with opened(tmp_path) as scene:
        await rotate_unread(scene)
        scene.kubelet.empty_answers = 1
        scene.kubelet.cut()
        await trio.sleep(5)
        scene.say(4)
        scene.end()
    assert scene.texts == words(1, 3, 4)
    assert [gap.why for gap in scene.gaps] == ["LogRotated"]


async def test_however_many_reads_are_cut_off_the_file_is_the_same(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A file that begins as the one that was read before is that one, however often reads end short of the mark."""
    async with opened(tmp_path) as scene:
        scene.start()
        scene.say(1, 2)
        await trio.sleep(1)
        read = scene.kubelet.read

        async def read_one_line(**wanted: Any) -> AsyncGenerator[bytes, None]:
            async for piece in read(**wanted):
                yield piece[: piece.find(b"\n") + 1]

        scene.following._read = read_one_line
        scene.kubelet.cut(is_polite=True)
        await trio.sleep(60)
        scene.following._read = read
        scene.say(3)
        scene.end()
    assert scene.texts == words(1, 2, 3)
    assert not scene.gaps


async def test_reads_that_are_cut_off_again_and_again_are_no_rotation(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """While the file is the one that was read before, what does not show the mark was cut off: no gap, no repeats."""
    async with opened(tmp_path) as scene:
        scene.start()
        scene.say(1, 2)
        await trio.sleep(1)
        scene.kubelet.empty_answers = 3  # two reads, and a look at the file between or behind them
        scene.kubelet.cut(is_polite=True)
        await trio.sleep(5)
        scene.say(3)
        scene.end()
    assert scene.texts == words(1, 2, 3)
    assert not scene.gaps


async def test_a_gap_after_a_rotation_begins_behind_it(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What is missing when the pod is gone is missing from the new file on, not from the log's beginning."""
    async with opened(tmp_path) as scene:
        await rotate_unread(scene)
        scene.kubelet.is_gone = True
        scene.kubelet.cut()
        scene.kubelet.log.close()
        scene.show(gone=True)
    rotated, gone = scene.gaps
    assert (rotated.why, gone.why) == ("LogRotated", "PodGone")
    assert gone.begin == rotated.end
