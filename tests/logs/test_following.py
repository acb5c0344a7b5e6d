"""One log followed to its end, through cuts, rotations and absences."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec
import trio
import trio.lowlevel
from trio.testing import MockClock

from ottoscaler.backoff import Backoff
from ottoscaler.fleet import Fleet, PodRecord
from ottoscaler.logs.following import Following
from ottoscaler.logs.lines import LogLine
from ottoscaler.logs.mark import Entry, Gap, Mark
from tests.logs.kubelet import FakeKubelet

NAME = "otto-agent-1-5-0"
START = Mark()


class Scene:
    """One worker, its log, and who follows it."""

    def __init__(self, nursery: trio.Nursery, folder: Path, max_bytes: int = 10 << 20) -> None:
        self.kubelet = FakeKubelet(nursery, folder, max_bytes)
        self.fleet = Fleet()
        self.got: list[Entry] = []
        self.slow = 0.0
        self.skew = 0.0
        self.following: Following
        self._version = 1

    def show(self, **facts: object) -> None:
        """The watch shows the pod so."""
        self._version += 1
        known = self.fleet.records.get(NAME) or PodRecord(name=NAME, uid="u")
        changed = msgspec.structs.replace(known, resource_version=self._version, **facts)
        self.fleet.apply("DELETED" if changed.gone else "MODIFIED", changed)

    def start(self) -> None:
        """The container runs."""
        self.show(started_at=float(int(self.kubelet.now())))

    def end(self) -> None:
        """The container has ended."""
        self.kubelet.log.close()
        self.show(exit_code=0, finished_at=float(int(self.kubelet.now())))

    async def deliver(self, entries: Sequence[Entry]) -> None:
        """Take what is handed on."""
        self.got += entries
        await trio.sleep(self.slow)

    @property
    def texts(self) -> list[str]:
        """The lines so far."""
        return [entry.text.decode() for entry in self.got if isinstance(entry, LogLine)]

    @property
    def gaps(self) -> list[Gap]:
        """The gaps so far."""
        return [entry for entry in self.got if isinstance(entry, Gap)]

    def say(self, *numbers: int) -> None:
        """The worker writes numbered lines, in one go."""
        self.kubelet.log.feed("stdout", b"".join(b"line %d\n" % number for number in numbers))

    async def follow(self, mark: Mark = START) -> None:
        """Follow to the end."""
        with self.fleet.follow(NAME) as pod:
            self.following = Following(
                NAME,
                self.kubelet.read,
                pod,
                mark,
                self.deliver,
                now=lambda: self.kubelet.now() + self.skew,
                retry=Backoff(0.1, 1.0, jitter=0.0),
            )
            await self.following.run()


@asynccontextmanager
async def opened(folder: Path, max_bytes: int = 10 << 20, mark: Mark = START) -> AsyncIterator[Scene]:
    """A scene with its follower; it is left when the log has been followed to its end."""
    async with trio.open_nursery() as streams:
        scene = Scene(streams, folder, max_bytes)
        with trio.fail_after(2000):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(scene.follow, mark)
                await trio.lowlevel.checkpoint()
                yield scene
        scene.kubelet.log.close()
        streams.cancel_scope.cancel(reason="the test is over")


def words(*numbers: int) -> list[str]:
    """These lines."""
    return [f"line {number}" for number in numbers]


async def test_lines_come_as_they_are_written_and_are_numbered(tmp_path: Path, autojump_clock: MockClock) -> None:
    """From the first line to the last, which has no newline; numbers count from 1; then it is over."""
    async with opened(tmp_path) as scene:
        scene.start()
        for number in range(3):
            scene.say(number)
            await trio.sleep(1)
            assert scene.texts == words(*range(number + 1))
        scene.kubelet.log.feed("stderr", b"no newline")
        scene.end()
    assert scene.texts == [*words(0, 1, 2), "no newline"]
    assert [entry.number for entry in scene.got if isinstance(entry, LogLine)] == [1, 2, 3, 4]
    assert scene.following.is_over
    assert scene.following.position.line == 4


async def test_a_cut_stream_goes_on_at_the_mark(tmp_path: Path, autojump_clock: MockClock) -> None:
    """However often the stream is cut, and though the API is away meanwhile, each line comes once."""
    async with opened(tmp_path) as scene:
        scene.start()
        for number in range(0, 60, 3):
            scene.say(number, number, number)  # equal lines are counted, too
            await trio.sleep(0.3)
            scene.kubelet.cut()
            scene.kubelet.is_away = number % 2 == 0
            await trio.sleep(0.7)
        scene.kubelet.is_away = False
        scene.end()
    assert scene.texts == words(*(number for number in range(0, 60, 3) for _ in range(3)))
    assert scene.gaps == []


async def test_it_waits_for_the_container(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Before the container runs nothing is asked for; a refusal right after its start is tried again."""
    async with opened(tmp_path) as scene:
        await trio.sleep(100)
        assert scene.kubelet.reads == []
        scene.kubelet.is_waiting = True
        scene.start()
        await trio.sleep(3)
        scene.kubelet.is_waiting = False
        scene.say(1)
        scene.end()
    assert scene.texts == words(1)


async def test_a_worker_that_never_ran_has_no_log(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A pod that failed before its container began is over without a word."""
    async with opened(tmp_path) as scene:
        scene.show(phase="Failed")
    assert scene.got == []
    assert scene.following.is_over


async def test_a_short_life_between_two_looks_is_read_whole(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A worker that ended before anybody followed it loses no line."""
    async with opened(tmp_path) as scene:
        scene.say(*range(50))
        scene.start()
        scene.end()
    assert scene.texts == words(*range(50))
    assert scene.gaps == []


async def test_the_next_owner_goes_on_from_the_mark(
    tmp_path: Path, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """With the mark of an earlier owner only what follows it comes, and the numbers go on."""
    async with opened(tmp_path / "a") as first:
        first.start()
        first.say(1, 2, 3)
        await trio.sleep(1)
        mark = first.following.position
        first.say(4, 5)
        first.end()
    second = Scene(nursery, tmp_path / "b")
    second.kubelet = first.kubelet
    first.kubelet.nursery = nursery
    second.fleet = first.fleet
    await second.follow(mark)
    assert second.texts == words(4, 5)
    assert [entry.number for entry in second.got if isinstance(entry, LogLine)] == [4, 5]
    assert second.gaps == []
    await second.follow(second.following.position)
    assert second.texts == words(4, 5)


async def test_a_rotation_while_nobody_read_is_a_gap(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Lines of a file that was put away while the stream was cut are gone, and a gap says from where to where."""
    async with opened(tmp_path) as scene:
        scene.start()
        scene.say(1)
        await trio.sleep(1)
        scene.kubelet.is_away = True
        scene.kubelet.cut()
        scene.say(2, 3)
        await trio.sleep(5)
        scene.kubelet.log.rotate()
        scene.say(4)
        await trio.sleep(5)
        scene.kubelet.is_away = False
        await trio.sleep(5)
        scene.say(5)
        scene.end()
    assert scene.texts == words(1, 4, 5)
    (gap,) = scene.gaps
    assert (gap.begin[:19], gap.end[:19], gap.why, gap.certain) == (
        "2026-11-20T20:41:21",
        "2026-11-20T20:41:27",
        "LogRotated",
        True,
    )
    assert scene.got.index(gap) == 1
    assert [entry.number for entry in scene.got if isinstance(entry, LogLine)] == [1, 2, 3]


async def test_a_rotation_inside_a_living_stream_is_not_passed_off_as_completeness(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Where the follower was taken to a new file nobody can say whether the old one was read whole: that is said."""
    async with opened(tmp_path) as scene:
        scene.start()
        scene.say(1)
        await trio.sleep(1)
        scene.say(2, 3)
        scene.kubelet.log.rotate()
        await trio.sleep(20)
        scene.say(4)
        scene.end()
    assert scene.kubelet.log.skipped == 2
    assert scene.texts == words(1, 4)
    (gap,) = scene.gaps
    assert (gap.end[:19], gap.why, gap.certain) == ("2026-11-20T20:41:42", "LogRotated", False)


async def test_a_slow_receiver_loses_nothing_that_the_file_still_has(tmp_path: Path, autojump_clock: MockClock) -> None:
    """While nobody takes the lines the file keeps them."""
    async with opened(tmp_path) as scene:
        scene.start()
        scene.slow = 7.0
        for number in range(20):
            scene.say(number)
            await trio.sleep(0.5)
        scene.slow = 0.0
        scene.end()
    assert scene.texts == words(*range(20))
    assert scene.gaps == []


async def test_a_slow_receiver_and_a_rotation_are_a_gap(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A follower that was held up finds a new file, and says what it cannot have seen."""
    async with opened(tmp_path, max_bytes=2000) as scene:
        scene.start()
        scene.say(0)
        await trio.sleep(1)
        scene.slow = 5.0
        for number in range(1, 400):
            scene.say(number)
            await trio.sleep(0.05)
        scene.slow = 0.0
        await trio.sleep(10)
        scene.end()
    missing = sorted(set(words(*range(400))) - set(scene.texts))
    assert missing
    assert len(set(scene.texts)) == len(scene.texts)
    assert scene.texts[-1] == "line 399"
    assert scene.gaps


async def test_two_rotations_between_two_looks_are_both_told(tmp_path: Path, autojump_clock: MockClock) -> None:
    """One file is put away while the stream is open, the next while it is not: the lines of both are in gaps."""
    async with opened(tmp_path) as scene:
        scene.start()
        scene.say(1)
        await trio.sleep(3)
        scene.say(2, 3)
        scene.kubelet.log.rotate()
        await trio.sleep(3)
        scene.say(4)
        await trio.sleep(3)
        scene.kubelet.is_away = True
        scene.kubelet.cut()
        scene.say(5)
        await trio.sleep(3)
        scene.kubelet.log.rotate()
        scene.say(6)
        scene.kubelet.is_away = False
        await trio.sleep(5)
        scene.end()
    assert scene.texts == words(1, 4, 6)
    assert [(gap.begin[17:19], gap.end[17:19], gap.certain) for gap in scene.gaps] == [
        ("21", "27", False),
        ("27", "33", True),
    ]


async def test_a_file_put_away_while_its_gap_is_told_is_told_too(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Between the read that missed the mark and the next one the file may be another once more."""
    async with opened(tmp_path) as scene:
        scene.start()
        scene.say(1)
        await trio.sleep(3)
        scene.kubelet.is_away = True
        scene.kubelet.cut()
        scene.kubelet.log.rotate()
        scene.say(2)
        await trio.sleep(3)
        scene.kubelet.is_away = False
        while not scene.gaps:  # noqa: ASYNC110 - it tells nobody
            await trio.sleep(0.001)
        scene.say(3)
        scene.kubelet.log.rotate()
        await trio.sleep(0.005)
        scene.say(4)
        await trio.sleep(3)
        scene.end()
    assert scene.texts == words(1, 4)
    (first, second) = scene.gaps
    assert (first.certain, second.certain) == (True, False)
    assert first.end == second.begin
    assert second.end == next(
        entry.stamp for entry in scene.got if isinstance(entry, LogLine) and entry.text == b"line 4"
    )


async def test_a_log_first_opened_late_may_have_lost_its_beginning(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Where the first file may have been put away before anybody came, that is said."""
    async with opened(tmp_path) as scene:
        scene.kubelet.is_away = True
        scene.start()
        scene.say(1)
        await trio.sleep(30)
        scene.kubelet.log.rotate()
        scene.say(2)
        scene.kubelet.is_away = False
        await trio.sleep(10)
        scene.end()
    assert scene.texts == words(2)
    assert [(gap.why, gap.certain) for gap in scene.gaps] == [("OpenedLate", False)]


async def test_a_silent_stream_is_opened_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A stream on which nothing comes may have been cut without a word: after five minutes it is opened again."""
    async with opened(tmp_path) as scene:
        scene.start()
        scene.say(1)
        await trio.sleep(1000)
        assert sum(follow for follow, _ in scene.kubelet.reads) in (3, 4)
        scene.say(2)
        await trio.sleep(1)
        scene.end()
    assert scene.texts == words(1, 2)


async def test_a_late_log_of_half_a_line_may_have_lost_its_beginning(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The same where all that is left is a last line without its end."""
    async with opened(tmp_path) as scene:
        scene.kubelet.is_away = True
        scene.start()
        scene.say(1)
        await trio.sleep(30)
        scene.kubelet.log.rotate()
        scene.kubelet.log.feed("stdout", b"half")
        scene.end()
        scene.kubelet.is_away = False
    assert scene.texts == ["half"]
    assert [(gap.why, gap.certain) for gap in scene.gaps] == [("OpenedLate", False)]


async def test_generators_are_closed(tmp_path: Path, autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """The twin's own streams end with their readers."""
    kubelet = FakeKubelet(nursery, tmp_path)
    kubelet.log.feed("stdout", b"one\n")
    async with aclosing(kubelet.read(follow=True)) as pieces:
        assert await anext(pieces) == b""
        assert (await anext(pieces)).endswith(b"one\n")
    kubelet.log.close()
