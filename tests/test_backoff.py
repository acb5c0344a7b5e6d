"""The delays between tries."""

from itertools import islice

import pytest

from ottoscaler.backoff import Backoff


def test_delays_double_up_to_the_maximum() -> None:
    """Without jitter the delays are initial, twice that, and so on, and stay at the maximum."""
    delays = Backoff(0.5, 3, jitter=0).delays()
    assert list(islice(delays, 5)) == [0.5, 1, 2, 3, 3]


def test_jitter_takes_off_at_most_its_share() -> None:
    """With jitter 0.5 chance takes off up to half of a delay and never adds to it."""
    assert list(islice(Backoff(1, 4).delays(lambda: 1.0), 3)) == [0.5, 1, 2]
    assert list(islice(Backoff(1, 4).delays(lambda: 0.0), 3)) == [1, 2, 4]


def test_a_new_iterator_begins_again() -> None:
    """One Backoff serves many outages: each iterator starts at the initial delay."""
    backoff = Backoff(1, 8, jitter=0)
    assert list(islice(backoff.delays(), 3)) == list(islice(backoff.delays(), 3)) == [1, 2, 4]


@pytest.mark.parametrize(
    ("initial", "maximum", "factor", "jitter"), [(0, 1, 2, 0), (2, 1, 2, 0), (1, 2, 0.5, 0), (1, 2, 2, 2)]
)
def test_values_that_cannot_work_are_refused(initial: float, maximum: float, factor: float, jitter: float) -> None:
    """A backoff that would never wait, or shrink, is refused when it is made."""
    with pytest.raises(ValueError, match="expected 0 < initial"):
        Backoff(initial, maximum, factor, jitter)
