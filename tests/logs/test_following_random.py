"""One log under random harm: cuts, absences, rotations, slow receivers, new owners. Nothing is lost without a gap."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.logs.lines import LogLine
from ottoscaler.logs.mark import Gap, Mark
from tests.logs.test_following import Scene

SEEDS = range(100)


class Owner:
    """Who follows at present; a new one begins at a mark that may be older than what was handed on."""

    def __init__(self, scene: Scene, dice: random.Random) -> None:
        self.scene = scene
        self.dice = dice
        self.marks: list[Mark] = [Mark()]
        self.scope = trio.CancelScope()
        self.ended = trio.Event()

    async def follow(self) -> None:
        """Follow until the log is over, from one owner to the next."""
        while True:
            with trio.CancelScope() as self.scope:
                await self.scene.follow(self.marks[-1])
                break
        self.ended.set()

    def note(self) -> None:
        """The mark reaches Redis."""
        self.marks.append(self.scene.following.position)

    def die(self) -> None:
        """`kill -9`: another one goes on from the last mark."""
        self.scope.cancel(reason="killed by the test")


async def live(scene: Scene, owner: Owner, dice: random.Random) -> tuple[int, list[int]]:
    """A worker's life with harm in it; how many lines it wrote, and before which of them the log was rotated."""
    written, rotations = 0, []
    await trio.sleep(1)
    scene.start()
    for _ in range(dice.randrange(5, 40)):
        match dice.choice(
            ["say"] * 6 + ["mark"] * 3 + ["cut", "away", "back", "rotate", "slow", "fast", "die", "wait"]
        ):
            case "say":
                count = dice.randrange(1, 20)
                scene.say(*range(written, written + count))
                written += count
            case "mark":
                owner.note()
            case "cut":
                scene.kubelet.cut()
            case "away":
                scene.kubelet.is_away = True
                scene.kubelet.cut()
            case "back":
                scene.kubelet.is_away = False
            case "rotate" if scene.got:  # what is rotated within 2 s of the first line nobody can know of
                scene.kubelet.log.rotate()
                rotations.append(written)
            case "slow":
                scene.slow = dice.choice([0.1, 3.0])
            case "fast":
                scene.slow = 0.0
            case "die":
                owner.die()
        await trio.sleep(dice.choice([0.0, 0.001, 0.3, 2.0, 30.0]))
    scene.slow, scene.kubelet.is_away = 0.0, False
    scene.kubelet.log.feed("stdout", b"line %d" % written)
    scene.end()
    with trio.fail_after(600):
        await owner.ended.wait()
    return written + 1, rotations


@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_is_lost_in_silence(tmp_path: Path, autojump_clock: MockClock, seed: int) -> None:
    """Every line comes, in the file's order, or a gap covers it; only rotations and late openings make gaps; lines come
    again only after a new owner began at an older mark.
    """
    dice = random.Random(seed)
    async with trio.open_nursery() as nursery:
        scene = Scene(nursery, tmp_path)
        owner = Owner(scene, dice)
        nursery.start_soon(owner.follow)
        written, rotations = await live(scene, owner, dice)
        nursery.cancel_scope.cancel(reason="the test is over")
    numbers = [int(text.split()[1]) for text in scene.texts]
    missing = set(range(written)) - set(numbers)
    gaps = [entry for entry in scene.got if isinstance(entry, Gap)]
    assert rotations or all(gap.why == "OpenedLate" for gap in gaps)
    first = dict(reversed(list(zip(numbers, _lines(scene), strict=True))))
    for number in missing:
        before = max((other for other in first if other < number), default=None)
        after = min((other for other in first if other > number), default=None)
        begin = first[before].stamp if before is not None else ""
        end = first[after].stamp if after is not None else "9"
        assert any((gap.begin or "") <= end and (gap.end or "9") >= begin for gap in gaps), (number, gaps)
    assert not missing or rotations
    new = [number for at, number in enumerate(numbers) if number not in numbers[:at]]
    assert new == sorted(new)


def _lines(scene: Scene) -> list[LogLine]:
    return [entry for entry in scene.got if isinstance(entry, LogLine)]
