"""Short aimed chaos in the suite; `tests/chaos/aimed.py` says what is done, and light chaos judges it."""

import pytest

from tests.chaos.aimed import run
from tests.chaos.aimed_verdict import judge_aimed
from tests.chaos.test_light import quiet as quiet


@pytest.mark.parametrize("first", range(0, 72, 18))
def test_every_promise_holds_when_harm_meets_in_one_moment(first: int) -> None:
    """Two or three harms at exact steps of one small piece of work: all ends well, and no worker runs twice."""
    for seed in range(first, first + 18):
        made = run(seed)
        try:
            judge_aimed(made)
        except AssertionError as broken:
            broken.add_note(f"seed {seed}, harm {made.harm}")
            raise


def test_an_aimed_seed_plays_the_same_run_again() -> None:
    """Whoever looks for a fault sees it again, step by step."""
    for seed in (4, 9):
        first, again = run(seed), run(seed)
        assert again.harm == first.harm
        assert (again.world.writes, again.world.runs) == (first.world.writes, first.world.runs)
        assert (again.results, again.dead) == (first.results, first.dead)
