"""What tests of whole commands share: the twin in the place of Redis."""

import pytest

from ottoscaler import signals
from ottoscaler.cli import reach
from ottoscaler.stream.memory import MemoryServer, MemoryStream


class Opened:
    """What a command opens."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    async def __aenter__(self) -> MemoryStream:
        return MemoryStream(self._server, "cli")

    async def __aexit__(self, *_: object) -> None:
        """Nothing to close."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> MemoryServer:
    """The twin that every command finds in the place of Redis; signals are left alone."""
    server = MemoryServer(clock=lambda: 0.0, started_at=1_756_659_802.0)
    monkeypatch.setattr(reach, "open_stream_of", lambda settings: Opened(server))
    monkeypatch.setattr(signals, "restore_signals", lambda: None)
    return server
