"""A scaler that leaves while logs are forwarded."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import trio
from trio.testing import MockClock

from ottoscaler.logs.forwarding import CALLS, HandlerReceiver
from ottoscaler.rpc.v1.worker_logs_pb2 import WorkerStatusNotification
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from tests.logs.house import FakeHandler, LoggedWorld
from tests.logs.receiver import FakeReceiver
from tests.logs.test_away import keeper_of
from tests.spine.scaler import Scaler
from tests.spine.world import Plan


async def test_a_drain_writes_how_far_each_log_is(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What the handler has had of each log when the process is gone is what the next owner finds noted."""
    world, handler = LoggedWorld(tmp_path, lambda labels: Plan(duration=30), 300), FakeHandler(FakeReceiver(), [])
    server = MemoryServer(started_at=1_760_000_000.0)
    scaler = Scaler(world, server, "one", drain_seconds="0")
    scaler.open_keeper = partial(keeper_of, world, handler)
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        nursery.start_soon(scaler.run)
        await trio.sleep(1)
        await MemoryStream(server, "producer").add_event([("type", "scale_up"), ("pod_count", "3")], "t")
        await trio.sleep(10.13)
        scaler.drain.request("SIGTERM")
        await trio.sleep(5)
        (progress,) = server.progress.values()
        assert progress["owner"] == ""
        for name in world.logs:
            mark = json.loads(progress[f"l:{name.split('-')[2]}:1"])
            assert mark["line"] == handler.numbers(name)[-1]
        world.close()
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_no_state_is_told_after_the_hand_over(autojump_clock: MockClock) -> None:
    """A state that waits for its turn at a slow handler is told by the next owner alone, or it might come after later
    ones.
    """
    handler = FakeHandler(FakeReceiver(), [])
    receiver = HandlerReceiver(handler, trio.lowlevel.checkpoint)
    async with trio.open_nursery() as nursery:
        for number in range(CALLS + 4):
            state = WorkerStatusNotification(worker_id=f"otto-agent-{number}").SerializeToString()
            nursery.start_soon(receiver.tell, state)
        await trio.sleep(0.005)  # a call takes twice as long
        receiver.suspend()
        await trio.sleep(60)
        nursery.cancel_scope.cancel(reason="the test is over")
    assert len(handler.told) == CALLS
