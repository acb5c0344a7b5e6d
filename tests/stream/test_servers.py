"""Which servers the contract suite runs against here."""

from __future__ import annotations

import pytest

from tests.stream.servers import BINARIES


@pytest.mark.parametrize("kind", BINARIES)
def test_a_server_of_each_kind_is_here(kind: str) -> None:
    """Valkey 9 always takes part in the contract suite; other servers where they are installed."""
    if BINARIES[kind]() is None:
        assert kind != "valkey9"
        pytest.skip(f"{kind}: no such server is installed here; the contract suite runs without it")
