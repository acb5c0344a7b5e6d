"""One log under random harm: cuts, absences, rotations, slow receivers, new owners, and pods that go with their logs.
Nothing is lost without a gap.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.localcluster.logs import format_stamp
from ottoscaler.logs.mark import Gap, Mark
from tests.logs.test_following import Scene

SEEDS = range(150)


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


class Worker:
    """What it wrote, and when."""

    def __init__(self, scene: Scene) -> None:
        self.stamps: list[str] = []
        self.is_rotated = self.is_gone = False
        self._scene = scene

    def say(self, count: int) -> None:
        """So many lines more."""
        written = len(self.stamps)
        self._scene.say(*range(written, written + count))
        self.stamps += [self._now()] * count

    def end(self, *, is_polite: bool) -> None:
        """A last line, with or without its end, and then nothing; nobody was told yet."""
        self._scene.kubelet.log.feed("stdout", b"line %d%s" % (len(self.stamps), b"\n" if is_polite else b""))
        self.stamps.append(self._now())
        self._scene.kubelet.log.close()

    def _now(self) -> str:
        return format_stamp(int(self._scene.kubelet.now() * 1e9))


async def live(scene: Scene, worker: Worker, owner: Owner, dice: random.Random) -> None:
    """A worker's life with harm in it."""
    await trio.sleep(1)
    scene.start()
    for _ in range(dice.randrange(5, 40)):
        match dice.choice(
            ["say"] * 6 + ["mark"] * 3 + ["cut", "end", "away", "back", "rotate", "slow", "fast", "die", "wait"]
        ):
            case "say":
                worker.say(dice.randrange(1, 20))
            case "mark":
                owner.note()
            case "cut":
                scene.kubelet.cut()
            case "end":
                scene.kubelet.cut(is_polite=True)
            case "away":
                scene.kubelet.is_away = True
                scene.kubelet.cut()
            case "back":
                scene.kubelet.is_away = False
            case "rotate" if scene.got and trio.current_time() > 5:  # earlier is a window that docs/logs.md names
                scene.kubelet.log.rotate()
                worker.is_rotated = True
            case "slow":
                scene.slow = dice.choice([0.1, 3.0])
            case "fast":
                scene.slow = 0.0
            case "die":
                owner.die()
        await trio.sleep(dice.choice([0.0, 0.001, 0.3, 2.0, 30.0]))
    scene.slow, scene.kubelet.is_away = 0.0, False


async def end(scene: Scene, worker: Worker, owner: Owner, dice: random.Random) -> None:
    """The last seconds: streams end just before the container's, whose news come late; perhaps the pod goes with it."""
    for _ in range(dice.randrange(4)):
        await trio.sleep(dice.choice([0.0, 0.01, 0.1, 0.4, 1.5]))
        scene.kubelet.cut(is_polite=dice.random() < 0.8)
        worker.say(dice.randrange(3))
    await trio.sleep(dice.choice([0.0, 0.01, 0.1, 0.4, 1.5]))
    worker.end(is_polite=dice.random() < 0.7)
    ended, at_once = float(int(scene.kubelet.now())), dice.random() < 0.3
    for _ in range(dice.randrange(3)):
        await trio.sleep(dice.choice([0.0, 0.01, 0.02, 0.3]))
        scene.kubelet.cut(is_polite=True)
    await trio.sleep(dice.choice([0.0, 0.01, 0.1, 0.5, 3.0, 20.0]))
    if not at_once:
        scene.show(exit_code=0, finished_at=ended)
        await trio.sleep(dice.choice([0.0, 0.005, 0.02, 0.04, 0.4]))
    if worker.is_gone:
        scene.kubelet.is_gone = True
    scene.show(gone=worker.is_gone, exit_code=0, finished_at=ended)
    with trio.fail_after(600):
        await owner.ended.wait()


@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_is_lost_in_silence(tmp_path: Path, autojump_clock: MockClock, seed: int) -> None:
    """Every line comes, in the file's order, or a gap covers it; only rotations, late openings and pods that go make
    gaps; lines come again only after a new owner began at an older mark.
    """
    dice = random.Random(seed)
    async with trio.open_nursery() as nursery:
        scene = Scene(nursery, tmp_path)
        scene.skew = dice.uniform(-0.9, 0.9)
        owner, worker = Owner(scene, dice), Worker(scene)
        nursery.start_soon(owner.follow)
        worker.is_gone = dice.random() < 0.5
        await live(scene, worker, owner, dice)
        await end(scene, worker, owner, dice)
        nursery.cancel_scope.cancel(reason="the test is over")
    judge(scene, worker)


def judge(scene: Scene, worker: Worker) -> None:
    """Which lines came, and where the others are."""
    numbers = [int(text.split()[1]) for text in scene.texts]
    gaps = [entry for entry in scene.got if isinstance(entry, Gap)]
    for number in set(range(len(worker.stamps))) - set(numbers):
        stamp = worker.stamps[number]
        assert any(gap.begin <= stamp <= (gap.end or "9") for gap in gaps), (number, stamp, gaps)
    explained = {"OpenedLate"} | ({"LogRotated"} if worker.is_rotated else set())
    explained |= {"PodGone", "EndNotRead"} if worker.is_gone else set()
    assert {gap.why for gap in gaps} <= explained
    assert gaps or len(set(numbers)) == len(worker.stamps)
    new = [number for at, number in enumerate(numbers) if number not in numbers[:at]]
    assert new == sorted(new)
