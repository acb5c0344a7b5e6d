"""How often Python searches for garbage while the service runs."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

SEARCHES = (5_000, 10, 10)
"""Garbage is searched for after so many new objects, and among older ones after so many such searches."""


@contextmanager
def searching_less() -> Iterator[None]:
    """Search for garbage less often, and not in what the start has made, for it lives as long as we do: pods and lines
    come and go by the thousand, which makes Python search often, and to look through all takes up to 60 ms in which
    nothing moves.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*SEARCHES)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
