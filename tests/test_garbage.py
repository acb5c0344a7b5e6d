"""Searching for garbage less often: what stood before is left out, what comes is still found, and it ends."""

from __future__ import annotations

import gc
import weakref

from ottoscaler.garbage import SEARCHES, searching_less


class Knot:
    """Something that only the search for garbage finds once it is dropped."""

    def __init__(self) -> None:
        self.itself = self


def test_what_stands_is_left_out_and_what_comes_is_found() -> None:
    """In the block nothing old is looked through, new garbage is found, and afterwards all is as it was."""
    before = gc.get_threshold()
    with searching_less():
        assert gc.get_threshold() == SEARCHES
        assert gc.get_freeze_count() > 1000
        dropped = weakref.ref(Knot())
        gc.collect()
        assert dropped() is None
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)
