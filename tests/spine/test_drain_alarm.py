"""The last word of a drain: what cannot be cancelled does not hold up the end, and what is not begun does not wait."""

import subprocess
import sys
import time
from secrets import token_hex

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.stream.memory import MemoryServer, MemoryStream
from tests.spine.scaler import Scaler
from tests.spine.world import Plan, World

HUNG = """
import time, trio
from ottoscaler.drain import Drain

async def main():
    Drain(0.2).request("SIGTERM")
    print("hangs", flush=True)
    time.sleep(300)

trio.run(main)
"""


@pytest.mark.slow_clock
def test_a_hang_that_nothing_can_cancel_ends_with_0_all_the_same() -> None:
    """The kernel's alarm ends the process within a second of the drain's deadline."""
    with subprocess.Popen([sys.executable, "-c", HUNG], stdout=subprocess.PIPE) as hung:
        assert hung.stdout is not None
        hung.stdout.readline()
        began = time.monotonic()
        assert hung.wait(40) == 0
        assert time.monotonic() - began < 0.2 + 1 + 10  # ten seconds for a machine that is busy


async def test_what_is_not_begun_is_offered_at_once(autojump_clock: MockClock) -> None:
    """An event that waits for a slot when a drain begins does not wait for the drain's end; one that runs stays."""
    world, server = World(lambda labels: Plan(duration=9999)), MemoryServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        scaler = Scaler(world, server, "one", drain_seconds="60", max_workers="1")
        nursery.start_soon(scaler.run)
        await trio.sleep(5)
        producer = MemoryStream(server, "producer")
        for _ in range(2):
            await producer.add_event([("type", "scale_up"), ("pod_count", "1")], token_hex(8))
            await trio.sleep(1)
        scaler.drain.request("SIGTERM")
        await trio.sleep(1)
        assert [progress["owner"] for progress in server.progress.values()] == ["one", ""]
        nursery.cancel_scope.cancel()
