"""How long to wait between tries: a value that a caller hands in; the sleeping is elsewhere."""

import random as _random
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays in seconds that begin at `initial` and grow by `factor` up to `maximum`.

    `jitter` is the share of each delay that chance may take off, from 0 (none) to 1 (all of it), so that many who
    lost the same server do not come back at the same instant.
    """

    initial: float
    maximum: float
    factor: float = 2.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        if not (0 < self.initial <= self.maximum and self.factor >= 1 and 0 <= self.jitter <= 1):
            raise ValueError(f"{self!r}: expected 0 < initial <= maximum, factor >= 1, jitter from 0 to 1")

    def delays(self, random: Callable[[], float] = _random.random) -> Iterator[float]:
        """Endless delays; `random` gives numbers from 0 to 1. A new iterator begins at `initial` again."""
        delay = self.initial
        while True:
            yield delay * (1 - self.jitter * random())
            delay = min(self.maximum, delay * self.factor)
