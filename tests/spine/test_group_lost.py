"""What the rings make of a Redis that has forgotten everything: whoever notices first, it is no crash of a part."""

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.stream.base import GroupLost
from ottoscaler.stream.memory import MemoryServer
from tests.spine.scaler import Scaler
from tests.spine.world import World


@pytest.mark.parametrize("call", ["read", "tend", "sweep", "list_fences"])
async def test_whoever_notices_it_ends_the_rings_in_peace(
    call: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A part that meets the lost group, in a nursery of its own or not, ends this life of the service: no part counts
    as crashed, and no traceback is logged.
    """
    world, server = World(), MemoryServer()

    async def forgotten(*args: object, **kwargs: object) -> None:
        raise GroupLost("the group is gone")

    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        scaler = Scaler(world, server, "only")
        with trio.fail_after(60):
            await scaler.run(lambda scaler: setattr(scaler.stream, call, forgotten))
        assert not scaler.rings._supervisor.crashes
        nursery.cancel_scope.cancel(reason="the test is over")
    assert not [record for record in caplog.records if record.exc_info]
