"""Short seeded chaos in the suite; `tests/chaos/light.py` says what is done and judged."""

import logging
from collections.abc import Iterator

import pytest

from tests.chaos.light import judge, run


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of log lines tell nobody anything."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_every_promise_holds_under_seeded_harm(first: int) -> None:
    """Kills, drains, freezes, outages, lost answers, late creates, deleted and stripped pods: all ends well."""
    for seed in range(first, first + 10):
        made = run(seed)
        try:
            judge(made)
        except AssertionError as broken:
            broken.add_note(f"seed {seed}, harm {made.harm}")
            raise
