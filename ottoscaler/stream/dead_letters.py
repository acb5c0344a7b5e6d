"""The promise about dead letters: what people do with refused events, each one script and safe to repeat.

A dead letter is an entry of its own stream. Its own id is its name here; the event that it is of is a field. Replaying
turns it into an event again; while the link from one to the other is kept, for a day, nothing replays it twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of one dead letter: `here` = an event since this call, `before` = since an earlier one; both with
    the event's id. Else it is as it was: `missing` = there is none of that id, `empty` = its entry was trimmed away
    before anybody read it, `unreadable` = its entry is not in the form that we write, `newer` = a newer version wrote
    it, `too_many` = more fields than a script can add.
    """

    how: Literal["here", "before", "missing", "empty", "unreadable", "newer", "too_many"]
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter to put back: its event, all its pairs, and the id that it had."""

    event_id: str
    former_id: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of a `Letter`: `here` = written under the id given; nothing was written where `there` is one of its
    event, where its event was `replayed` within a day, or has `ended` with a result.
    """

    how: Literal["here", "there", "replayed", "ended"]
    letter_id: str = ""


class DeadLetters(ABC):
    """What a stream offers to people who look after dead letters. Reading them is `Stream.read_entries("dlq", …)`."""

    @abstractmethod
    async def replay_dead_letters(self, letter_ids: Sequence[str]) -> list[Replayed]:
        """Add each one's entry to the event stream again, byte for byte and in order, with `otto.replay_of` = the
        event that it was (in place of any that it had), and remove the dead letter; per letter all of it or nothing.
        A request id that means the event means the new one from then on.
        """

    @abstractmethod
    async def drop_dead_letters(self, letter_ids: Sequence[str]) -> int:
        """Remove dead letters for good; how many of them were there."""

    @abstractmethod
    async def restore_dead_letters(self, letters: Sequence[Letter], after: str) -> list[Restored]:
        """Write dead letters whose event has none. The caller has read those up to `after` (`0` = none) and gives
        only letters of other events; what was written behind it is looked at here.
        """

    @abstractmethod
    async def dead_letter_of(self, event_id: str) -> str | None:
        """The id of the dead letter of an event that was refused, replayed or restored within the last day, whether
        it is still there or not.
        """
