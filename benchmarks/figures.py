"""A measured number beside its aim, and the statistics that make one number of many."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

Show = Callable[[str], None]
"""Told in a few words what is going on right now."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number: `aim` is the most (where `more_is_better`: the least) that was wanted, None = for information."""

    name: str
    value: float
    unit: str
    aim: float | None = None
    more_is_better: bool = False

    @property
    def is_met(self) -> bool | None:
        """Whether the aim is reached; None where there is none."""
        if self.aim is None:
            return None
        return self.value >= self.aim if self.more_is_better else self.value <= self.aim


@dataclass(frozen=True, slots=True)
class Result:
    """What one benchmark found: figures, the parameters they hold for, and what a reader should know of the run."""

    figures: Sequence[Figure]
    parameters: dict[str, Any]
    notes: Sequence[str] = ()


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of all do not exceed (nearest rank); NaN of nothing."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def median_figures(rounds: Iterable[Sequence[Figure]]) -> list[Figure]:
    """Of each figure the median over rounds, which all have the same ones in the same order."""
    return [
        replace(same[0], value=statistics.median(figure.value for figure in same)) for same in zip(*rounds, strict=True)
    ]
