"""The part that forwards logs crashes and is begun again: no line is missing, and no pod has gone meanwhile."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.logs.house import House, open_house
from tests.logs.receiver import FakeAnswer
from tests.logs.test_keeping import names, run_event
from tests.spine.world import Plan


def watch_deletes(house: House) -> list[tuple[str, int]]:
    """Pods as they are deleted, and how many of their lines had arrived by then."""
    deleted: list[tuple[str, int]] = []
    delete = house.stage.kube.delete_pod

    async def note_and_delete(namespace: str, name: str, **words: Any) -> Any:
        deleted.append((name, len(set(house.handler.numbers(name)))))
        return await delete(namespace, name, **words)

    house.stage.kube.delete_pod = note_and_delete  # type: ignore[method-assign]  # looks on the way
    return deleted


def crash_at(house: House, *counts: int) -> list[float]:
    """Let the part crash when so many entries have come; when it did."""
    crashes: list[float] = []

    def judge(entry: bytes) -> FakeAnswer:
        if len(crashes) < len(counts) and len(house.handler.receiver.got) >= counts[len(crashes)]:
            crashes.append(trio.current_time())
            raise RuntimeError("a bug of the part")
        return FakeAnswer()

    house.handler.receiver.judge = judge
    return crashes


@pytest.mark.parametrize("delay", [0.001, 0.2])
async def test_a_crash_loses_no_line_and_lets_no_pod_go(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, delay: float
) -> None:
    """With running workers and with ended ones whose lines wait: all logs go on at their marks, repeated is only what
    was not acknowledged, pods and event wait, and the room is free at the end.
    """
    caplog.set_level(logging.CRITICAL)
    async with open_house(tmp_path, plan=Plan(duration=20), lines=100, restarts=3) as house:
        deleted, crashes = watch_deletes(house), crash_at(house, 60, 150, 290)
        house.handler.receiver.delay = delay
        await run_event(house, 3)
        assert len(crashes) == 3
        assert sorted(deleted) == [(name, 100) for name in names(house)]
        receiver = house.handler.receiver
        acknowledged = {entry: at for at, entry, _ in receiver.taken}
        repeated = {entry for _, entry in receiver.got if sum(entry == other for _, other in receiver.got) > 1}
        assert [at for at, entry in receiver.got if entry in repeated and at > acknowledged[entry]] == []
        for name in names(house):
            assert house.handler.states(name) == ["CREATED", "RUNNING", "COMPLETED"]
        assert house.handler.gaps == []
        assert house.keeper.room.workers == house.keeper.room.spooled == 0


async def test_a_worker_that_comes_while_the_part_is_down_is_followed(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Events of that time wait, and their logs come when the part runs again; one left meanwhile takes no room."""
    caplog.set_level(logging.CRITICAL)
    async with open_house(tmp_path, restarts=5) as house:
        crash_at(house, 1, 1, 1, 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_event, house, 1)
            while house.keeper._nursery is not None or not house.world.logs:  # noqa: ASYNC110 - nothing says so
                await trio.sleep(0.01)
            late = await house.stage.add(type="scale_up", pod_count=1)
            with trio.move_on_after(0.05):
                await house.stage.work(late).run()
            assert house.keeper._nursery is None
            assert house.keeper.room.workers == 1
            await run_event(house, 2)
        whole = [name for name in names(house) if late.event_id not in name]
        assert [len(set(house.handler.numbers(name))) for name in whole] == [10] * 3
        assert house.handler.gaps == []
        assert house.keeper.room.workers == 0


async def test_a_log_whose_grace_ends_while_the_part_is_down_is_given_up(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A crash makes no event wait longer than the grace, and its gap is sent when the part runs again."""
    caplog.set_level(logging.CRITICAL)
    async with open_house(tmp_path, grace=2.0, restarts=9) as house:
        crash_at(house, *[1] * 7)
        took = await run_event(house, 1)
        assert took < 6
        await trio.sleep(30)
        assert set(house.handler.gaps) == {"GraceOver"}
