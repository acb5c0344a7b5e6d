"""A Redis that crashes and forgets what it had not written to its disk, as with `appendfsync everysec`, and as a
failover to a replica does that had not received it yet.
"""

from __future__ import annotations

import copy
from typing import Any

import trio

from ottoscaler.errors import Unavailable
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from ottoscaler.stream.memory_log import Log

KEPT = {"keys", "retention", "changed", "lose_answer_of", "add_entry"}
"""What of a server is no part of its memory."""


class CrashingRedis:
    """A server that can crash. Between `lose_from_now` and `crash` nothing reaches its disk."""

    def __init__(self, server: MemoryServer) -> None:
        self.restarts = 0
        self._server = server
        self._disk: dict[str, Any] | None = None
        self._crashed = trio.Event()

    @property
    def is_losing(self) -> bool:
        """Whether it is about to crash."""
        return self._disk is not None

    def lose_from_now(self) -> None:
        """What is written from now on will have been forgotten."""
        memory = {name: value for name, value in vars(self._server).items() if _is_memory(name)}
        self._disk, self._crashed = copy.deepcopy(memory), trio.Event()

    def crash(self) -> None:
        """All is as it was on the disk, and nothing is answered yet."""
        assert self._disk is not None
        for name, value in self._disk.items():
            stands = getattr(self._server, name)
            if isinstance(stands, Log):
                vars(stands).update(vars(value))
            else:
                setattr(self._server, name, value)
        self._disk, self.restarts = None, self.restarts + 1
        self._server.weather = "refusing"
        self._crashed.set()

    def keep_all(self) -> None:
        """It does not crash after all."""
        self._disk = None
        self._crashed.set()

    async def wait_durable(self) -> None:
        """Return at once where it is not about to crash, which comes first otherwise. Raises Unavailable."""
        if self._disk is not None:
            restarts = self.restarts
            await self._crashed.wait()
            if self.restarts != restarts:
                raise Unavailable("Redis has crashed", address="memory://")


class CrashingStream(MemoryStream):
    """One session's view of it."""

    def __init__(self, server: MemoryServer, session: str, redis: CrashingRedis) -> None:
        super().__init__(server, session)
        self._redis = redis

    @property
    def restarts(self) -> int:
        """With each crash the connections are others."""
        return self._redis.restarts

    async def wait_durable(self) -> None:
        """Wait for the disk, once the server answers."""
        await self._call("wait_durable", lambda: None)
        await self._redis.wait_durable()


def _is_memory(name: str) -> bool:
    return name not in KEPT and not name.startswith("_")
