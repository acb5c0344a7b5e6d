"""Short seeded chaos in the suite; `tests/chaos/light.py` says what is done and judged."""

import logging
from collections.abc import Iterator

import pytest

from tests.chaos.light import run
from tests.chaos.light_verdict import judge


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


@pytest.mark.parametrize("seed", [3, 11])
def test_a_seed_plays_the_same_run_again(seed: int) -> None:
    """Whoever looks for a fault sees it again: the same harm, requests to the API, runs and ends, at the same times."""
    first, again = run(seed), run(seed)
    assert again.harm == first.harm
    assert again.world.writes == first.world.writes
    assert again.world.runs == first.world.runs
    assert (again.results, again.dead) == (first.results, first.dead)
