"""The short form of `make logs-proof`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.logs.lossless import Plan, prove

pytestmark = [pytest.mark.process, pytest.mark.slow_clock]


async def test_no_line_is_lost(tmp_path: Path) -> None:
    """While the scaler and the handler are killed, streams cut and a log rotated: every line, or a gap that says so."""
    verdict = await prove(Plan(seed=7), tmp_path, print)
    print(verdict)
    assert verdict.complaints == []
    assert verdict.received + verdict.missing == 8 * Plan(seed=7).lines
