"""Dead letters in the in-memory twin: a part of `MemoryStream`, and its scripts as plain functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from ottoscaler.events import load_entry
from ottoscaler.outcomes import newer_version
from ottoscaler.stages import request_id_of
from ottoscaler.stream.dead_letters import DeadLetters, Letter, Replayed, Restored
from ottoscaler.stream.entry_id import parse_id
from ottoscaler.stream.memory_requests import pass_request
from ottoscaler.stream.memory_state import MemoryServer

T = TypeVar("T")
DAY = 86_400_000  # ms
MOST = 3900  # pairs
REPLAY_OF = b"otto.replay_of"


class MemoryDeadLetters(DeadLetters):
    """What the stream in memory offers about dead letters."""

    _server: MemoryServer

    async def _call(self, name: str, script: Callable[[], T]) -> T:
        raise NotImplementedError  # MemoryStream has it

    async def replay_dead_letters(self, letter_ids: Sequence[str]) -> list[Replayed]:
        """Turn dead letters into events again."""
        return await self._call("replay", lambda: [replay(self._server, letter_id) for letter_id in letter_ids])

    async def drop_dead_letters(self, letter_ids: Sequence[str]) -> int:
        """Remove dead letters for good."""
        return await self._call("drop_dead_letters", lambda: drop(self._server, letter_ids))

    async def restore_dead_letters(self, letters: Sequence[Letter], after: str) -> list[Restored]:
        """Write dead letters whose event has none."""
        return await self._call("restore", lambda: restore_all(self._server, letters, after))

    async def dead_letter_of(self, event_id: str) -> str | None:
        """The id of the dead letter of an event."""
        ending = await self._call("dead_letter_of", lambda: self._server.ending(event_id))
        target, _, entry_id = (ending or "").partition(" ")
        return entry_id if target == "dlq" else None


def replay(server: MemoryServer, letter_id: str) -> Replayed:
    """Turn one dead letter into an event again."""
    if event_id := _link(server, letter_id):
        return Replayed("before", event_id)
    letter = server.dead_letters.entries.get(parse_id(letter_id))
    if letter is None:
        return Replayed("missing")
    fields = dict(letter)
    if newer_version({name.decode(): value.decode(errors="replace") for name, value in fields.items() if name == b"v"}):
        return Replayed("newer")
    try:
        pairs = load_entry(fields[b"entry"].decode())
        former = fields[b"event_id"]
    except (msgspec.DecodeError, ValueError, TypeError, KeyError):
        return Replayed("unreadable")
    if not pairs or len(pairs) > MOST:
        return Replayed("too_many" if pairs else "empty")
    kept = (pair for pair in pairs if pair[0] != REPLAY_OF)
    event_id = server.add_entry((*kept, (REPLAY_OF, former)))
    pass_request(server, former.decode(), event_id, _request_of(dict(pairs)))
    server.remember(server.replayed, letter_id, event_id, DAY)
    _remember_ending(server, former.decode(), letter_id)
    server.dead_letters.delete(parse_id(letter_id))
    return Replayed("here", event_id)


def _request_of(fields: Mapping[bytes, bytes]) -> str:
    """Under which request id its sender asked for it: that of a pipeline is in its text."""
    if (request_id := fields.get(b"otto.request_id")) is not None:
        return request_id.decode(errors="replace")
    try:
        pipeline = msgspec.json.decode(fields.get(b"otto.pipeline", b"{}"))
    except ValueError:
        return ""
    pipeline_id = pipeline.get("pipeline_id") if isinstance(pipeline, dict) else None
    return request_id_of(pipeline_id) if isinstance(pipeline_id, str) else ""


def drop(server: MemoryServer, letter_ids: Sequence[str]) -> int:
    """Remove dead letters; how many there were."""
    before = len(server.dead_letters)
    for letter_id in letter_ids:
        server.dead_letters.delete(parse_id(letter_id))
    return before - len(server.dead_letters)


def restore_all(server: MemoryServer, letters: Sequence[Letter], after: str) -> list[Restored]:
    """Write dead letters whose event has none behind `after`."""
    written = server.dead_letters.after(parse_id(after), len(server.dead_letters))
    there = {value.decode() for _, pairs in written for name, value in pairs if name == b"event_id"}
    return [_restore(server, letter, there) for letter in letters]


def _restore(server: MemoryServer, letter: Letter, there: set[str]) -> Restored:
    target, _, last_id = (server.ending(letter.event_id) or "").partition(" ")
    if letter.event_id in there:
        return Restored("there")
    if target == "results":
        return Restored("ended")
    if _link(server, letter.former_id) or (last_id and _link(server, last_id)):
        return Restored("replayed")
    letter_id = server.dead_letters.add([(n.encode(), v.encode()) for n, v in letter.pairs], server.now())
    _remember_ending(server, letter.event_id, letter_id)
    there.add(letter.event_id)
    server.wake()
    return Restored("here", letter_id)


def _link(server: MemoryServer, letter_id: str) -> str:
    event_id, until = server.replayed.get(letter_id, ("", 0))
    return event_id if until > server.now() else ""


def _remember_ending(server: MemoryServer, event_id: str, letter_id: str) -> None:
    server.done.pop(event_id, None)  # leaves its place, so that places stay in order of expiry
    server.remember(server.done, event_id, f"dlq {letter_id}", DAY)
