"""The promise about pipelines: their stages are started once, and every change is told to whoever asks, in order.

A pipeline is an event of a lane of its own. Its stages are to it what workers are to a scale_up: by index from 1, with
outcomes and stop marks; the event that a stage became stands where a worker's pod does. News are numbered from 1,
written in the script that makes the change, and kept until a day after the pipeline's end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ottoscaler.stream.base import Claim


@dataclass(frozen=True, slots=True)
class News:
    """Entries to be told, and how many were told `before`: what was told already is not told again."""

    before: int
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """News that a reader did not know, a page of them; `is_over` = there are no more and will be none."""

    texts: tuple[str, ...]
    is_over: bool


class Pipelines(ABC):
    """What a stream offers to pipelines and to those who follow them."""

    @abstractmethod
    async def start_stage(self, claim: Claim, index: int, pairs: Sequence[tuple[str, str]], news: News) -> str | None:
        """Add the event of a stage, once, and tell of it; its id. Empty: nothing was added, for the stage has ended or
        bears a stop mark; None = the pipeline is not ours.
        """

    @abstractmethod
    async def read_news(self, known: Mapping[str, int]) -> dict[str, Told]:
        """What each of these pipelines told beyond the number of news that its reader knows."""
