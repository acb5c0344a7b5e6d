"""What one connection may ask of us beside calls: frames that cost little to send and more to take. Pure."""

from __future__ import annotations

from math import inf

FRAMES_AT_ONCE, FRAMES_PER_SECOND = 4000.0, 500.0
"""Frames without data (PING, SETTINGS, RST_STREAM, WINDOW_UPDATE, empty ones …) and calls that were refused."""
EARNED_FRAMES = 10.0
"""What a message that we sent allows beside these: clients follow some with a PING and a few WINDOW_UPDATEs."""
PING_SECONDS, MOST_STRIKES = 5.0, 2
"""PINGs may come this often while nothing is sent, and sooner a few times only: as in gRPC's core."""


class Frames:
    """A budget that fills by time, and by work done."""

    def __init__(self, now: float) -> None:
        self._left = FRAMES_AT_ONCE
        self._counted = now

    def spend(self, count: int, now: float) -> bool:
        """Take note of so many frames; False: it is too much."""
        self._left = min(FRAMES_AT_ONCE, self._left + (now - self._counted) * FRAMES_PER_SECOND) - count
        self._counted = now
        return self._left >= 0

    def earn(self) -> None:
        """A message was sent."""
        self._left = min(FRAMES_AT_ONCE, self._left + EARNED_FRAMES)


class Pings:
    """https://github.com/grpc/grpc/blob/master/doc/keepalive.md: PINGs count from what we sent last."""

    def __init__(self) -> None:
        self._last = -inf
        self._strikes = 0

    def note(self, now: float) -> bool:
        """A PING came; False: it is one too many."""
        self._strikes += now - self._last < PING_SECONDS
        self._last = now
        return self._strikes <= MOST_STRIKES

    def forget(self) -> None:
        """Headers or data were sent."""
        self._last, self._strikes = -inf, 0
