"""How parts are kept running: crashes are counted and survived, hopeless parts end loudly, others notice nothing."""

import logging

import pytest
import trio

from ottoscaler.backoff import Backoff
from ottoscaler.errors import FixYourCall
from ottoscaler.metrics import REGISTRY
from ottoscaler.supervisor import Supervisor, Unrecoverable

BACKOFF = Backoff(1.0, 4.0, jitter=0.0)


class Flaky:
    """A part that crashes before, at or after its start, a number of times, then runs until cancelled."""

    def __init__(self, crashes: int, *, before_started: bool = False, every: float = 0.0) -> None:
        self.crashes = crashes
        self.before_started = before_started
        self.every = every
        self.starts: list[float] = []

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Crash as told."""
        self.starts.append(trio.current_time())
        if len(self.starts) <= self.crashes and self.before_started:
            raise ValueError("no start")
        task_status.started()
        await trio.sleep(self.every)
        if len(self.starts) <= self.crashes:
            raise ValueError("a bug")
        await trio.sleep_forever()


@pytest.mark.parametrize("before_started", [True, False])
async def test_a_crash_is_logged_counted_and_survived(
    before_started: bool, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A part that crashes is started again after a growing backoff, wherever it crashed; the traceback is logged once
    a crash.
    """
    part, supervisor = Flaky(3, before_started=before_started), Supervisor(5, BACKOFF)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run, "flaky", part.run)
        await trio.sleep(20)
        nursery.cancel_scope.cancel()
    assert [round(at - part.starts[0]) for at in part.starts] == [0, 1, 3, 7]
    assert supervisor.crashes == {"flaky": 3}
    logged = [record for record in caplog.records if record.getMessage() == "a part crashed"]
    assert len(logged) == 3
    assert all(record.levelno == logging.ERROR and record.exc_info for record in logged)


async def test_other_parts_are_untouched(autojump_clock: trio.testing.MockClock) -> None:
    """While one part crashes and comes back, its neighbour runs on without a restart."""
    flaky, steady, supervisor = Flaky(2), Flaky(0), Supervisor(5, BACKOFF)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run, "steady", steady.run)
        assert REGISTRY.get_sample_value("ottoscaler_part_crashes_total", {"part": "steady"}) == 0, "before any crash"
        await nursery.start(supervisor.run, "flaky", flaky.run)
        await trio.sleep(20)
        nursery.cancel_scope.cancel()
    assert (len(steady.starts), len(flaky.starts)) == (1, 3)


async def test_five_crashes_in_a_minute_are_too_many(autojump_clock: trio.testing.MockClock) -> None:
    """A part that crashes as often as allowed within a minute ends with an error that names it and its last crash."""
    supervisor = Supervisor(5, BACKOFF)
    with pytest.raises(Unrecoverable, match=r"flaky crashed 5 times within 60 s, last by ValueError\('a bug'\)"):
        await supervisor.run("flaky", Flaky(99).run)


@pytest.mark.parametrize("is_grouped", [False, True])
async def test_what_no_restart_mends_ends_the_process_at_once(
    is_grouped: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """An error that somebody has to mend is not tried again: its sentence ends the process, with exit code 2."""
    starts = 0

    async def part(*, task_status: trio.TaskStatus[None]) -> None:
        nonlocal starts
        starts += 1
        task_status.started()
        await trio.sleep(1)
        error = FixYourCall("key otto:x is a string")
        raise ExceptionGroup("of its nursery", [ExceptionGroup("deeper", [error])]) if is_grouped else error

    supervisor = Supervisor(5, BACKOFF)
    with pytest.raises(Unrecoverable, match=r"^key otto:x is a string$") as raised:
        await supervisor.run("part", part)
    assert (starts, raised.value.exit_code, supervisor.ended) == (1, 2, {"part"})


async def test_rare_crashes_go_on_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    """Crashes that are spread over time never add up, and the backoff begins anew."""
    part, supervisor = Flaky(20, every=50.0), Supervisor(5, BACKOFF)
    with trio.move_on_after(3000):
        await supervisor.run("flaky", part.run)
    assert supervisor.crashes["flaky"] == 20


async def test_a_part_that_returns_is_not_started_again(autojump_clock: trio.testing.MockClock) -> None:
    """Returning is not crashing."""

    async def brief(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()

    supervisor = Supervisor(5, BACKOFF)
    await supervisor.run("brief", brief)
    assert not supervisor.crashes
