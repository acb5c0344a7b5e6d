"""Runs that play the same again: Trio shuffles what it runs next, here from a seed (as hypothesis makes it do)."""

import random

import trio


def schedule_from(seed: int) -> None:
    """Let the next `trio.run` schedule its tasks by this seed, and whatever asks for chance draw it from there."""
    random.seed(seed)
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[attr-defined]  # Trio's own switch for tests
    trio._core._run._r.seed(seed)  # type: ignore[attr-defined]  # the same
