"""Contract of the stream: the list of later deletes. Runs against every keeper."""

from __future__ import annotations

import pytest
import trio

from ottoscaler.stream.base import Closing, Fence
from tests.stream.backends import Backend
from tests.stream.steps import begin, claim, open_session

pytestmark = pytest.mark.slow_clock


async def test_fences_are_lent(backend: Backend, clock: trio.abc.Clock) -> None:
    """A fence is given out when it is due, to one process for ten seconds, and forgotten when dropped. Its time is
    counted from the close on, by the clock of Redis.
    """
    one, era = await open_session(backend, "one")
    event_id = await begin(backend, one)
    fences = Fence("pod-1", "uid-1", 0), Fence("pod-2", "uid-2", 3_600_000)
    await one.close(Closing(event_id, "results", (("v", "1"),), claim(event_id, "one"), fences))
    due, later = await one.list_fences()
    assert (due.name, later.name, later.due - due.due) == ("pod-1", "pod-2", 3_600_000)
    assert due.due >= era.created
    assert (await one.tend(0, 0, expire=False, audit=False)).fences == (due,)
    assert (await one.tend(0, 0, expire=False, audit=False)).fences == ()
    await one.drop_fences([due, later])
    assert backend.keys.fences not in backend.contents()


async def test_all_fences_of_a_close_count_from_one_time(backend: Backend, clock: trio.abc.Clock) -> None:
    """However long the script takes; before Redis 7 its clock goes on meanwhile."""
    one, _ = await open_session(backend, "one")
    event_id = await begin(backend, one)
    fences = tuple(Fence(f"pod-{number}", f"uid-{number}", 3_600_000) for number in range(1000))
    await one.close(Closing(event_id, "results", (("v", "1"),), claim(event_id, "one"), fences))
    assert len({fence.due for fence in await one.list_fences()}) == 1
