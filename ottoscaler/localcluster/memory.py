"""Memory limits by sampling: a group whose processes use more than its limit is killed, as the kernel would.

What is sampled is the resident set, summed over the group. Where that is above the limit and the platform can
say it (Linux), pages shared between processes are then counted once: the proportional set decides. Only groups
with a limit are looked at, and never for more than a twentieth of the time.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass

import psutil
import trio

from ottoscaler.localcluster.process import ContainerProcess

_RESTRAINT = 20  # how many times as long as it looked it sleeps


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
            began = time.perf_counter()
            for group, members in group_members(set(self._watched)).items():
                watched = self._watched[group]
                if resident_bytes(members) > watched.limit and proportional_bytes(members) > watched.limit:
                    watched.process.kill(out_of_memory=True)
            await trio.sleep(max(self._interval, _RESTRAINT * (time.perf_counter() - began)))


def group_members(groups: set[int]) -> dict[int, list[psutil.Process]]:
    """The living processes of each of these process groups."""
    members: dict[int, list[psutil.Process]] = {}
    for pid in psutil.pids():
        try:
            group = os.getpgid(pid)
            if group in groups:
                members.setdefault(group, []).append(psutil.Process(pid))
        except (psutil.Error, OSError):  # it ended while we looked
            continue
    return members


def resident_bytes(members: list[psutil.Process]) -> int:
    """The sum of their resident sets, shared pages counted for each."""
    total = 0
    for process in members:
        with suppress(psutil.Error):
            total += process.memory_info().rss
    return total


def proportional_bytes(members: list[psutil.Process]) -> int:
    """The same with each shared page divided by those who share it; resident sets where that is not known."""
    total = 0
    for process in members:
        with suppress(psutil.Error):
            info = process.memory_full_info()
            total += getattr(info, "pss", info.rss)
    return total
