"""SIGTERM in every phase: `serve` leaves in time with 0, the pods stay, and the next start finishes it all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from tests.process.bench import NOISE, Bench, Place, wait_until
from tests.process.phases import PHASES
from tests.process.together import together

DRAIN = 0.3
"""The promise is an end within DRAIN_SECONDS + 1 s."""
IMPORTS = 15.0
"""A signal that comes first is acted on when all is imported: 0.3 s on a quiet machine, here up to this long."""
UNSHARE = ("unshare", "--fork", "--pid", "--kill-child")
INSTANTS = (0.0, 0.08, 0.2, 0.35, 0.6)


@together
@pytest.mark.parametrize("phase", PHASES)
async def test_a_signal_in_every_phase(bench: Bench, phase: str) -> None:
    """SIGTERM ends `serve` with 0 in time, whatever it is doing; the next start finishes, and no worker runs twice."""
    async with bench.own_valkey() as valkey, bench.place(valkey=valkey) as place:
        async with place.serve(DRAIN_SECONDS=str(DRAIN)) as first:
            async with PHASES[phase](place):
                first.send(signal.SIGTERM)
                assert await first.end() < DRAIN + 1 + NOISE
        async with place.serve():
            await place.judge()


@together
@pytest.mark.parametrize("prefix", [(), UNSHARE], ids=["usual process", "process 1"])
async def test_a_signal_while_starting(bench: Bench, prefix: Sequence[str]) -> None:
    """SIGTERM at any instant of the start, the first included, ends `serve` with 0 in time, and no event is lost."""
    if prefix and subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        pytest.skip("only root can start a process as number 1 of a namespace here")
    async with bench.place() as place:
        for instant in INSTANTS:
            place.send()
            place.send_bad()
            await start_and_stop(place, prefix, instant)
        place.open_gate()
        async with place.serve():
            await place.judge()


async def start_and_stop(place: Place, prefix: Sequence[str], instant: float) -> None:
    """Start a `serve` whose signals are blocked until it unblocks them itself, and send SIGTERM after so long."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # a new process inherits it
    try:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "ottoscaler", "serve"],
            env={**place.environ, "DRAIN_SECONDS": str(DRAIN)},
            stdout=subprocess.DEVNULL,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    try:
        pid = (await wait_until(lambda: children_of(process.pid)))[0] if prefix else process.pid
        await trio.sleep(instant)
        begin = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        await wait_until(lambda: process.poll() is not None, 40)
        assert process.returncode == 0
        assert time.monotonic() - begin < IMPORTS + DRAIN + 1 + NOISE
    finally:
        process.kill()
        process.wait()


def children_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
