"""Memory limits by sampling: a group whose processes use more than its limit is killed, as the kernel would.

What is sampled is the resident set, summed over the group; pages shared between its processes count for each,
so a group of many forked processes is killed a little early. Only groups with a limit are looked at.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil
import trio

from ottoscaler.localcluster.process import ContainerProcess


@dataclass(frozen=True, slots=True)
class _Watched:
    process: ContainerProcess
    limit: int


class MemorySampler:
    """Looks every `interval` seconds at all groups that have a limit, and not at all while none has."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._watched: dict[int, _Watched] = {}
        self._somebody = trio.Event()

    def watch(self, process: ContainerProcess, limit: int) -> None:
        """Hold `process` to `limit` bytes, until `forget`."""
        self._watched[process.group] = _Watched(process, limit)
        self._somebody.set()

    def forget(self, process: ContainerProcess) -> None:
        """It has ended, or never had a limit."""
        self._watched.pop(process.group, None)

    async def run(self) -> None:
        """Sample for ever."""
        while True:
            if not self._watched:
                self._somebody = trio.Event()
                await self._somebody.wait()
            for group, used in resident_bytes(set(self._watched)).items():
                watched = self._watched[group]
                if used > watched.limit:
                    watched.process.kill(out_of_memory=True)
            await trio.sleep(self._interval)


def resident_bytes(groups: set[int]) -> dict[int, int]:
    """The resident set in bytes of each of these process groups that lives."""
    used: dict[int, int] = {}
    for pid in psutil.pids():
        try:
            group = os.getpgid(pid)
            if group in groups:
                used[group] = used.get(group, 0) + psutil.Process(pid).memory_info().rss
        except (psutil.Error, OSError):  # it ended while we looked
            continue
    return used
