"""Dead letters in Redis: a part of `RedisStream`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from ottoscaler.stream.answers import text
from ottoscaler.stream.dead_letters import DeadLetters, Letter, Replayed, Restored
from ottoscaler.stream.keys import Keys
from ottoscaler.stream.link import Link

T = TypeVar("T")
PAGE = 50  # letters handled by one script call: an entry of 100 kB in base64 takes it some milliseconds


class RedisDeadLetters(DeadLetters):
    """What a stream in Redis offers about dead letters."""

    _keys: Keys
    _calls: Link

    async def _call(self, name: str, **arguments: Any) -> Any:
        raise NotImplementedError  # RedisStream has it

    async def replay_dead_letters(self, letter_ids: Sequence[str]) -> list[Replayed]:
        """Turn dead letters into events again."""
        answers: list[Replayed] = []
        for at in range(0, len(letter_ids), PAGE):
            raws = await self._call("replay", ids=letter_ids[at : at + PAGE])
            answers += (_answer(("how", "event_id"), raw, Replayed) for raw in raws)
        return answers

    async def drop_dead_letters(self, letter_ids: Sequence[str]) -> int:
        """Remove dead letters for good."""
        dropped = 0
        for at in range(0, len(letter_ids), PAGE):
            dropped += await self._calls.command("XDEL", self._keys.dead_letters, *letter_ids[at : at + PAGE])
        return dropped

    async def restore_dead_letters(self, letters: Sequence[Letter], after: str) -> list[Restored]:
        """Write dead letters whose event has none."""
        answers: list[Restored] = []
        for at in range(0, len(letters), PAGE):
            rows = [
                (letter.event_id, letter.former_id, [part for pair in letter.pairs for part in pair])
                for letter in letters[at : at + PAGE]
            ]
            raws = await self._call("restore", letters=rows, after=after)
            answers += (_answer(("how", "letter_id"), raw, Restored) for raw in raws)
        return answers

    async def dead_letter_of(self, event_id: str) -> str | None:
        """The id of the dead letter of an event."""
        ending = await self._calls.command("GET", self._keys.done(event_id))
        target, _, entry_id = text(ending or b"").partition(" ")
        return entry_id if target == "dlq" else None


def _answer(names: tuple[str, str], raw: Sequence[bytes], kind: type[T]) -> T:
    return msgspec.convert(dict(zip(names, map(text, raw), strict=True)), kind)
