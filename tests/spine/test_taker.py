"""The taking loop: what it was lent is looked after once, however long that takes."""

import trio
from trio.testing import MockClock

from ottoscaler.stream.base import Closing, Fence
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from tests.spine.scaler import Scaler
from tests.spine.stage import NAMESPACE
from tests.spine.world import World, lost


async def test_a_due_fence_is_deleted_by_one_task_while_the_api_is_away(autojump_clock: MockClock) -> None:
    """A fence is lent again every 10 s while its pod cannot be deleted; the tries do not add up."""
    world, server = World(), MemoryServer()
    producer = MemoryStream(server, "producer")
    await producer.open_group("0", NAMESPACE)
    await producer.add_event([("type", "nonsense")], "token")
    (entry,) = await producer.read(1, 1.0)
    await producer.close(Closing(entry.id, "dlq", (), fences=(Fence("otto-agent-1-1-0", "", 1),)))
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        scaler = Scaler(world, server, "only")
        scaler.kube.fail = lambda verb, name: lost(verb) if verb == "delete" else None
        nursery.start_soon(scaler.run)
        await trio.sleep(200)
        tries = len(world.writes)
        await trio.sleep(20)
        assert 10 <= len(world.writes) - tries <= 30
        scaler.kube.fail = lambda verb, name: None
        await trio.sleep(20)
        assert await producer.list_fences() == []
        nursery.cancel_scope.cancel(reason="the test is over")
