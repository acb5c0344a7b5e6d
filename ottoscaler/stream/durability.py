"""When what was recorded would survive a `kill -9` of Redis: facts about the server, and one shared wait.

WAITAOF counts the writes of its own connection only and blocks it, so it runs on a connection of its own, behind a
marker write; the append-only file is in order, so a marker on disk means that everything recorded before is on disk.
One round answers everybody who asked before it began.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import trio
from redis.exceptions import ResponseError

from ottoscaler.parsing import RedisAddress
from ottoscaler.stream.link import Exchange, Link
from ottoscaler.stream.safekeeping import ServerReport

BLIND_WAIT = 3.0  # seconds: where the server cannot tell, everysec has synced by then
ROUND_MS = 1000  # longest WAITAOF, then it is asked again
Way = Literal["none", "waitaof", "blind"]


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What INFO and CONFIG say; None where they do not."""

    version: str
    append_only: bool | None
    fsync: str | None
    eviction: str | None

    @property
    def way(self) -> Way:
        """How to wait until a write is durable."""
        if not self.append_only or self.fsync in ("always", "no"):
            return "none"
        return "waitaof"

    def report(self) -> ServerReport:
        """The facts, with a sentence on what they promise."""
        return ServerReport(self.version, self.append_only, self.fsync, self.eviction, _promise(self))


def _promise(facts: ServerFacts) -> str:
    if not facts.append_only:
        return "no append-only file: a crash of Redis loses what it accepted since its last snapshot"
    match facts.fsync:
        case "always":
            return "append-only file, fsync always: what was acknowledged survives a crash of Redis"
        case "everysec":
            return (
                "append-only file, fsync everysec: a crash of Redis loses up to about a second of what it acknowledged"
            )
        case "no":
            return "append-only file, fsync no: a crash of the machine loses what the kernel had not written yet"
        case _:
            return "append-only file, fsync unknown (CONFIG GET is not permitted): count on losing a second at a crash"


def read_facts(exchange: Exchange) -> ServerFacts:
    """Ask the server."""
    lines = exchange("INFO").decode().splitlines()
    info = dict(line.split(":", 1) for line in lines if ":" in line)
    try:
        setting = exchange("CONFIG", "GET", "appendfsync")
    except ResponseError:  # not permitted
        setting = []
    name = "Valkey" if "valkey_version" in info else "Redis"
    append_only = info.get("aof_enabled")
    return ServerFacts(
        version=f"{name} {info.get('valkey_version') or info.get('redis_version', '?')}",
        append_only=None if append_only is None else append_only == "1",
        fsync=setting[1].decode() if len(setting) == 2 else None,
        eviction=info.get("maxmemory_policy"),
    )


class Durability:
    """The shared wait. `marker` is the key of the marker write."""

    def __init__(self, address: RedisAddress, marker: str, *, timeout: float) -> None:
        self._link = Link(address, timeout=ROUND_MS / 1000 + timeout, greet=self._learn_facts)
        self._marker = marker
        self._facts = ServerFacts("", append_only=False, fsync=None, eviction=None)
        self._is_blind = False
        self._round = trio.Lock()
        self._begun = 0
        self._ended = 0

    async def wait(self) -> None:
        """Return when everything this process recorded before the call is as durable as the server can make it."""
        asked_in = self._begun
        async with self._round:
            if self._ended > asked_in:  # a round that began after the question has ended
                return
            self._begun += 1
            this_round = self._begun
            way = await self._sync()
            if way != "blind":
                self._ended = this_round
        if way == "blind":
            await trio.sleep(BLIND_WAIT)
            await self.connect()

    @property
    def connects(self) -> int:
        """How often the connection was opened: after a crash of Redis it is another, whoever waited meanwhile."""
        return self._link.connects

    async def connect(self) -> None:
        """Open the connection, if it is not open."""
        await self._link.run(lambda exchange: None)

    def disconnect(self) -> None:
        """Close the connection."""
        self._link.disconnect()

    def _learn_facts(self, exchange: Exchange) -> None:
        self._facts = read_facts(exchange)
        self._is_blind = False

    async def _sync(self) -> Way:
        rounds = 0
        while True:
            way = await self._link.run(self._ask)
            rounds += 1
            if way != "again":
                return way
            if self._facts.fsync is None and rounds >= BLIND_WAIT:  # the policy may be `no`, which never syncs
                return "none"

    def _ask(self, exchange: Exchange) -> Way | Literal["again"]:
        if self._is_blind or self._facts.way == "none":
            return "blind" if self._is_blind else "none"
        exchange("SET", self._marker, "1", "PX", 60_000)
        try:
            synced = exchange("WAITAOF", 1, 0, ROUND_MS)
        except ResponseError:  # before Redis 7.2, or not permitted
            self._is_blind = True
            return "blind"
        return "waitaof" if synced[0] >= 1 else "again"
