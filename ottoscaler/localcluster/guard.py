"""The guard: a small process beside the kubelet that outlives it for a moment, and kills what it left.

It waits for its standard input to end, which the kubelet's end brings about whatever ends it, signal 9 included.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import trio

from ottoscaler.localcluster import strays

_ENDS_WITHIN = 5.0  # seconds


class Guard:
    """The guard process of one kubelet; started at most once, ends with the kubelet however that ends."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._process: trio.Process | None = None
        self._starting = trio.Lock()

    async def ensure_started(self) -> None:
        """Start the guard if it does not run yet (30 ms of another core, once)."""
        async with self._starting:
            if self._process is None:
                self._process = await trio.lowlevel.open_process(
                    [sys.executable, "-m", strays.__name__, str(self._root)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is meant for the kubelet alone
                )

    async def close(self) -> None:
        """Let the guard do its work now and wait for its end, a few seconds at most."""
        if self._process is None:
            return
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _ENDS_WITHIN):
            assert self._process.stdin is not None
            await self._process.stdin.aclose()
            await self._process.wait()
        if self._process.returncode is None:
            self._process.kill()
