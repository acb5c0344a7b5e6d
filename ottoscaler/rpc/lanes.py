"""How many calls are answered at a time, and how fast one client may call.

Each sort of call has a lane with places of its own, so that calls which wait can never take those of health checks and
short calls. What finds no place is refused at once, instead of being queued. Calls that are over in no time take their
place when their message is there; the few whose message is slow wait for it elsewhere.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict

from ottoscaler.rpc.door import TooMany

MOST_CLIENTS = 10_000
"""Clients whose pace is remembered."""


class Lane:
    """Places for one sort of call: `limit` of them at a time, `share` of these for one client.

    `hall`: where calls are that still have to bring their message; without one they are in the lane from the beginning.
    """

    def __init__(self, name: str, limit: int, hall: Lane | None = None) -> None:
        self.name = name
        self.limit = limit
        self.share = (limit + 1) // 2  # so that the others still get in
        self.hall = hall
        self._in_use = Counter[str]()

    def enter(self, client: str) -> None:
        """Take one place for a client. Raises `TooMany` where there is none, or none for this client."""
        if self._in_use.total() >= self.limit:
            raise TooMany(f"{self.limit} {self.name} calls are being answered, which is the limit")
        if self._in_use[client] >= self.share:
            raise TooMany(
                f"{self.share} {self.name} calls of {client} are being answered, which is the limit of one client"
            )
        self._in_use[client] += 1

    def leave(self, client: str) -> None:
        """Give the place back."""
        self._in_use[client] -= 1
        if not self._in_use[client]:
            del self._in_use[client]


class Place:
    """The place of one call, which moves with it. What moves it raises `TooMany`."""

    def __init__(self, lane: Lane, client: str) -> None:
        self._lane = lane
        self._client = client
        self._held: Lane | None = None
        if lane.hall is None:
            self._move(lane)

    def wait(self) -> None:
        """The message is still to come."""
        self._move(self._lane.hall or self._lane)

    def go_on(self) -> None:
        """The message is there."""
        self._move(self._lane)

    def leave(self) -> None:
        """The call is over."""
        self._move(None)

    def _move(self, lane: Lane | None) -> None:
        if lane is self._held:
            return
        if self._held is not None:
            self._held.leave(self._client)
        self._held = None
        if lane is not None:
            lane.enter(self._client)
            self._held = lane


class Pace:
    """A token bucket for each client: `per_second` calls, as many at once; 0: no limit."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client: tokens, when they were counted

    def take(self, client: str) -> None:
        """Count one call. Raises `TooMany` where the client has none left."""
        if not self._per_second:
            return
        now = time.monotonic()
        tokens, counted = self._buckets.pop(client, (float(self._per_second), now))
        tokens = min(float(self._per_second), tokens + (now - counted) * self._per_second)
        is_enough = tokens >= 1
        self._buckets[client] = (tokens - is_enough, now)
        if len(self._buckets) > MOST_CLIENTS:
            self._buckets.popitem(last=False)
        if not is_enough:
            raise TooMany(f"more than {self._per_second} calls a second from {client}", 1 / self._per_second)
