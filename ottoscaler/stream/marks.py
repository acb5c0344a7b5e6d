"""The promise about log marks: how far the logs of an event's workers are done with, beside the event's progress.

A mark is text of the caller's, one per worker and attempt, that replaces the one before. It is written under the claim
like everything else, and the next owner finds it in the progress.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ottoscaler.stream.base import Claim


@dataclass(frozen=True, slots=True)
class Marking:
    """The marks of one event to write: per worker index, attempt and text."""

    claim: Claim
    marks: tuple[tuple[int, int, str], ...]


def mark_field(index: int, attempt: int) -> str:
    """The field of the progress that holds a worker's mark."""
    return f"l:{index}:{attempt}"


class Marks(ABC):
    """The part of `Stream` that keeps marks; failures as there."""

    @abstractmethod
    async def write_marks(self, markings: Sequence[Marking]) -> list[bool]:
        """Write marks; per event whether it is still ours."""
