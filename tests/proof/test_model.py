"""The model, briefly; `pytest tests/proof --hypothesis-profile=proof` takes it further."""

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.proof.machine import BRIEF, ScalerMachine


@pytest.mark.timeout(
    0 if settings.get_current_profile_name() == "proof" else 300
)  # time for finding the shortest story
def test_whatever_happens_every_promise_holds() -> None:
    """However events, time, kills, drains, outages and harm to pods come together, nothing is lost, twice or left."""
    is_long = settings.get_current_profile_name() == "proof"
    run_state_machine_as_test(ScalerMachine, settings=settings() if is_long else BRIEF)
