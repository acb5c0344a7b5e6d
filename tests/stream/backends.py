"""The keepers of the stream as the contract suite sees them: the twin, and real servers behind the same few verbs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Protocol

import trio

from ottoscaler.parsing import RedisAddress
from ottoscaler.stream.base import Stream
from ottoscaler.stream.entry_id import format_id, parse_id
from ottoscaler.stream.keys import Keys
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from ottoscaler.stream.redis import RedisStream
from ottoscaler.stream.retention import Retention
from tests.stream.servers import Server

KEEP_ALL = Retention(trim="off")
TIMEOUT = 20.0  # seconds: generous, for a machine that is busy
Field = tuple[str | bytes, str | bytes]


class Backend(Protocol):
    """What a test may do from outside."""

    keys: Keys
    lease: float

    def open(self, session: str, retention: Retention = KEEP_ALL) -> Stream:
        """A session's stream."""

    def add(self, *pairs: Field) -> str:
        """Add an entry to the event stream, as a foreign producer does."""

    def skip_ahead(self) -> None:
        """Let all ids from now on be of the year 5138, as after a producer's entry with an id of its own."""

    def trim(self, keep: int) -> None:
        """Trim the event stream, as a producer's MAXLEN does."""

    def pending(self) -> set[str]:
        """Entries that were delivered to our group and not acknowledged."""

    def set_back(self) -> None:
        """Let the group deliver every entry again, as an operator's XGROUP SETID does."""

    def flush(self) -> None:
        """Empty everything."""

    def disown(self, event_id: str, owner: str) -> None:
        """Let an event belong to a session that there is not."""

    def set_version(self, event_id: str, version: int) -> None:
        """Let another version have written an event's progress, with a field that we do not know."""

    def add_group(self, name: str) -> None:
        """Another consumer group on the event stream."""

    def deliver(self, group: str, count: int) -> None:
        """Deliver entries to another group."""

    def acknowledge(self, group: str, event_id: str) -> None:
        """Acknowledge an entry of another group."""

    def empty_results(self) -> None:
        """Trim all results away by hand."""

    async def wait_blocked(self, number: int) -> None:
        """Return when so many reads wait."""

    def open_unreachable(self, session: str) -> Stream:
        """A stream whose server is away."""

    def contents(self) -> dict[str, Any]:
        """Every key and its value."""


class MemoryBackend:
    """The twin. `retention` of the first session opened holds for all, as the server keeps it."""

    lease = 3.0

    def __init__(self, keys: Keys, **options: Any) -> None:
        self.keys = keys
        self.server = MemoryServer(keys, started_at=1_756_659_802.0, **options)

    def open(self, session: str, retention: Retention = KEEP_ALL) -> MemoryStream:
        """A session's stream."""
        self.server.retention = retention
        return MemoryStream(self.server, session)

    def add(self, *pairs: Field) -> str:
        """Add an entry to the event stream."""
        return self.server.add_entry(pairs)

    def skip_ahead(self) -> None:
        """Let all ids from now on be of the year 5138."""
        self.server.events.last = (99_999_999_999_999, 0)

    def trim(self, keep: int) -> None:
        """Trim the event stream."""
        self.server.events.trim(keep)

    def pending(self) -> set[str]:
        """Entries that were delivered to our group and not acknowledged."""
        return set(map(format_id, self.server.group().pending))

    def set_back(self) -> None:
        """Let the group deliver every entry again."""
        self.server.group().last = (0, 0)

    def flush(self) -> None:
        """Empty everything."""
        self.server.flush()

    def disown(self, event_id: str, owner: str) -> None:
        """Let an event belong to a session that there is not."""
        former = self.server.progress[event_id]["owner"]
        self.server.held[former].discard(event_id)
        self.server.progress[event_id]["owner"] = owner

    def set_version(self, event_id: str, version: int) -> None:
        """Let another version have written an event's progress."""
        self.server.progress[event_id] |= {"v": str(version), "a:x": "?"}

    def add_group(self, name: str) -> None:
        """Another consumer group on the event stream."""
        self.server.add_group(name)

    def deliver(self, group: str, count: int) -> None:
        """Deliver entries to another group."""
        self.server.events.deliver(group, "other", count)

    def acknowledge(self, group: str, event_id: str) -> None:
        """Acknowledge an entry of another group."""
        self.server.events.acknowledge(group, parse_id(event_id))

    def empty_results(self) -> None:
        """Trim all results away by hand."""
        self.server.results.trim(0)

    async def wait_blocked(self, number: int) -> None:
        """Return when so many reads wait."""
        await trio.sleep(0.1)

    def open_unreachable(self, session: str) -> Stream:
        """A stream whose server is away."""
        self.server.weather = "refusing"
        return self.open(session)

    def contents(self) -> dict[str, Any]:
        """Every key and its value."""
        return self.server.as_keys()


class RedisBackend:
    """A real server; each backend has a stream name of its own."""

    lease = 0.4
    _numbers = itertools.count()

    def __init__(self, server: Server) -> None:
        self.server = server
        self.address = server.address
        self.keys = Keys(f"test{next(self._numbers)}:events", "ottoscaler")
        self._opened: list[RedisStream] = []

    @classmethod
    def at(cls, address: RedisAddress) -> RedisBackend:
        """A keeper at an address where perhaps nobody is."""
        backend = cls.__new__(cls)
        backend.address, backend.keys, backend._opened = address, Keys("test:events", "ottoscaler"), []
        return backend

    def open(self, session: str, retention: Retention = KEEP_ALL, timeout: float = TIMEOUT) -> RedisStream:
        """A session's stream."""
        stream = RedisStream(self.address, self.keys, session, retention=retention, timeout=timeout)
        self._opened.append(stream)
        return stream

    def disconnect(self) -> None:
        """Close all connections of the streams that were opened."""
        for stream in self._opened:
            stream.disconnect()

    def add(self, *pairs: Field) -> str:
        """Add an entry to the event stream."""
        words = [part for pair in pairs for part in pair]
        return str(self.server.command("XADD", self.keys.stream, "*", *words).decode())

    def skip_ahead(self) -> None:
        """Let all ids from now on be of the year 5138."""
        entry_id = self.server.command("XADD", self.keys.stream, "99999999999999-0", "from", "afar")
        self.server.command("XDEL", self.keys.stream, entry_id)

    def trim(self, keep: int) -> None:
        """Trim the event stream."""
        self.server.command("XTRIM", self.keys.stream, "MAXLEN", keep)

    def pending(self) -> set[str]:
        """Entries that were delivered to our group and not acknowledged."""
        found = self.server.command("XPENDING", self.keys.stream, self.keys.group, "-", "+", 1000)
        return {entry_id.decode() for entry_id, *_ in found}

    def set_back(self) -> None:
        """Let the group deliver every entry again."""
        self.server.command("XGROUP", "SETID", self.keys.stream, self.keys.group, "0")

    def flush(self) -> None:
        """Empty everything."""
        self.server.command("FLUSHALL")

    def disown(self, event_id: str, owner: str) -> None:
        """Let an event belong to a session that there is not."""
        former = self.server.command("HGET", self.keys.progress(event_id), "owner")
        self.server.command("SREM", self.keys.held(former.decode()), event_id)
        self.server.command("HSET", self.keys.progress(event_id), "owner", owner)

    def set_version(self, event_id: str, version: int) -> None:
        """Let another version have written an event's progress."""
        self.server.command("HSET", self.keys.progress(event_id), "v", version, "a:x", "?")

    def add_group(self, name: str) -> None:
        """Another consumer group on the event stream."""
        self.server.command("XGROUP", "CREATE", self.keys.stream, name, "0", "MKSTREAM")

    def deliver(self, group: str, count: int) -> None:
        """Deliver entries to another group."""
        words = ("GROUP", group, "other", "COUNT", count, "STREAMS", self.keys.stream, ">")
        self.server.command("XREADGROUP", *words)

    def acknowledge(self, group: str, event_id: str) -> None:
        """Acknowledge an entry of another group."""
        self.server.command("XACK", self.keys.stream, group, event_id)

    def empty_results(self) -> None:
        """Trim all results away by hand."""
        self.server.command("XTRIM", self.keys.results, "MAXLEN", 0)

    async def wait_blocked(self, number: int) -> None:
        """Return when so many reads wait."""
        with trio.fail_after(TIMEOUT):
            while b"blocked_clients:%d\r\n" % number not in self.server.command("INFO", "clients"):  # noqa: ASYNC110
                await trio.sleep(0.01)

    def open_unreachable(self, session: str) -> Stream:
        """A stream whose server is away."""
        self.address = RedisAddress(scheme="unix", path=f"{self.server.path}-nobody", db=0)
        return self.open(session)

    def contents(self) -> dict[str, Any]:
        """Every key and its value."""
        found = self.server.command("KEYS", f"{self.keys.prefix}:*")
        return {key.decode(): self._value(key) for key in found}

    def _value(self, key: bytes) -> Any:
        command = self.server.command
        match command("TYPE", key).decode():
            case "hash":
                return _paired([part.decode() for part in command("HGETALL", key)])
            case "set":
                return {member.decode() for member in command("SMEMBERS", key)}
            case "zset":
                flat = command("ZRANGE", key, 0, -1, "WITHSCORES")
                return {name.decode(): int(float(score)) for name, score in _paired(flat).items()}
            case "stream":
                return [tuple(_paired(flat).items()) for _, flat in command("XRANGE", key, "-", "+")]
            case _:
                return command("GET", key).decode()


def _paired(flat: Sequence[Any]) -> dict[Any, Any]:
    return {flat[at]: flat[at + 1] for at in range(0, len(flat), 2)}
