"""What `dlq` changes, batch by batch: replaying, dropping and restoring, each call repeated while Redis is away."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from ottoscaler.cli.counting import counting
from ottoscaler.cli.letters import read_letters
from ottoscaler.errors import OttoscalerError

if TYPE_CHECKING:
    from ottoscaler.stream.base import Stream
    from ottoscaler.stream.dead_letters import Letter, Replayed

T = TypeVar("T")
BATCH = 50
ATTEMPTS = 5
WHY_NOT = {
    "empty": "its entry was trimmed from the stream before anybody read it",
    "unreadable": "its field entry is not in the form that Ottoscaler writes",
    "too_many": "it has more than 3900 fields, which one command cannot add",
    "newer": "it was written by a newer version; replay it once all replicas are upgraded",
    "missing": "there is no such dead letter",
}


class NotReplayed(OttoscalerError):
    """Dead letters that cannot become events again; one sentence per line."""


def not_replayed(name: str, answer: "Replayed") -> str:
    """The sentence on a letter that cannot become an event; empty where it can, or is one already."""
    why = WHY_NOT.get(answer.how)
    return f"the dead letter {name} cannot be replayed: {why}" if why else ""


async def replay_many(stream: "Stream", ids: Sequence[str]) -> tuple[int, list[str]]:
    """Replay, showing how far it is; how many are events now, and a sentence on each that cannot become one. One that
    somebody else dropped meanwhile is neither.
    """
    done, problems = 0, list[str]()
    with counting("replayed", len(ids)) as count:
        for batch in _batches(ids):
            answers = await persistent(stream.replay_dead_letters, batch)
            for letter_id, answer in zip(batch, answers, strict=True):
                if answer.how != "missing" and (problem := not_replayed(letter_id, answer)):
                    problems.append(problem)
                done += answer.how in ("here", "before")
            count(len(batch))
    return done, problems


async def drop_many(stream: "Stream", ids: Sequence[str]) -> None:
    """Drop, showing how far it is."""
    with counting("dropped", len(ids)) as count:
        for batch in _batches(ids):
            await persistent(stream.drop_dead_letters, batch)
            count(len(batch))


async def restore_many(stream: "Stream", letters: "Sequence[Letter]") -> dict[str, int]:
    """Write those whose event has no dead letter; how many were `here`, `there`, `replayed` and `ended`."""
    counts: dict[str, int] = {}
    known: set[str] = set()
    after = "0"
    with counting("restored", len(letters)) as count:
        for batch in _batches(letters):
            async for page in read_letters(stream, after):
                after = page[-1][0]
                known.update(fields.get("event_id", "") for _, fields in page)
            fresh = [letter for letter in batch if letter.event_id not in known]
            answers = await persistent(stream.restore_dead_letters, fresh, after)
            for how in [answer.how for answer in answers] + ["there"] * (len(batch) - len(fresh)):
                counts[how] = counts.get(how, 0) + 1
            count(len(batch))
    return counts


async def persistent(call: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """The answer of a call that may be repeated; Unavailable after a few tries."""
    import trio

    from ottoscaler.errors import Unavailable

    for attempt in range(1, ATTEMPTS):
        with contextlib.suppress(Unavailable):
            return await call(*arguments)
        await trio.sleep(0.2 * 2**attempt)
    return await call(*arguments)


def letters(count: int) -> str:
    """`1 dead letter`, `2 dead letters`."""
    return f"{count} dead letter{'' if count == 1 else 's'}"


def _batches(things: Sequence[T]) -> Iterator[Sequence[T]]:
    return (things[at : at + BATCH] for at in range(0, len(things), BATCH))
