"""Two hours of a simulated day; `python -m tests.proof.day` plays all of it."""

import logging

from tests.proof.day import play


def test_a_day_leaves_nothing_behind_and_its_stages_sum_up() -> None:
    """Traffic, faults and a rollout: every event has one end, nothing grows or is left, and each stage was told what
    went through it.
    """
    logging.disable(logging.CRITICAL)
    try:
        day = play(seed=7, hours=2)
    finally:
        logging.disable(logging.NOTSET)
    assert day.rollouts == 1
    assert len(day.harm) > 3
    assert len(day.run.world.runs) > 50
