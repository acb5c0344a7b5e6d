"""The fixture that runs the chosen tests of this folder side by side."""

from __future__ import annotations

import pytest

from tests.process.together import Outcomes, run_together


@pytest.fixture(scope="session")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """How each chosen test of this folder ended."""
    return run_together(request.session.items, tmp_path_factory.mktemp("process"))
