"""The fuzzed policy, briefly; `python -m tests.proof.policy_fuzz` plays a hundred thousand requests."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from ottoscaler.policy import Policy
from tests.proof.policy_fuzz import Beyond, play


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of log lines tell nobody anything."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_no_request_makes_a_pod_beyond_the_policy() -> None:
    """Of 2,000 hostile events hundreds pass and hundreds are refused by the policy, each as its pods deserve."""
    ends = play(7, 2_000)
    assert ends["accepted"] > 300
    assert ends["PolicyRefused"] > 300
    assert ends["pods sent"] > 10


@pytest.mark.parametrize("part", ["_images", "_commands", "_ceilings"])
def test_a_policy_with_a_hole_is_found_out(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge sees pods that a policy lets pass which forgets one of its duties."""
    monkeypatch.setattr(Policy, part, lambda self, asked: iter(()))
    with pytest.raises(Beyond):
        play(7, 2_000)
