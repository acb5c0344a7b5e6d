"""How many calls are answered at a time, and how fast one client may call.

gRPC gives every call a thread of a pool for as long as it lasts. Each sort of call has a lane: a pool of its own, so
that calls which wait can never take the threads of health checks and short calls. A lane takes fewer calls than its
pool has threads; the rest of the threads refuses what is too much, at once, instead of letting it queue.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from ottoscaler.rpc.door import TooMany

SPARE_THREADS = 4
"""Of each pool, for refusals."""
MOST_CLIENTS = 10_000
"""Clients whose pace is remembered."""


class Lane:
    """A pool for one sort of call; `limit` of them at a time, `share` of these for one client (0: all)."""

    def __init__(self, name: str, limit: int, share: int = 0) -> None:
        self.name = name
        self.limit = limit
        self.share = share or limit
        self.pool = ThreadPoolExecutor(limit + SPARE_THREADS, thread_name_prefix=f"grpc-{name}")
        self._in_use = Counter[str]()
        self._lock = threading.Lock()

    @contextmanager
    def room(self, client: str) -> Iterator[None]:
        """Hold one place of the lane for a client. Raises `TooMany` where there is none, or none for this client."""
        with self._lock:
            if self._in_use.total() >= self.limit:
                raise TooMany(f"{self.limit} {self.name} calls are being answered, which is the limit")
            if self._in_use[client] >= self.share:
                raise TooMany(
                    f"{self.share} {self.name} calls of {client} are being answered, which is the limit of one client"
                )
            self._in_use[client] += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_use[client] -= 1
                if not self._in_use[client]:
                    del self._in_use[client]

    def close(self) -> None:
        """Let the threads end with what they are doing; waits for nothing."""
        self.pool.shutdown(wait=False, cancel_futures=True)


class Pace:
    """A token bucket for each client: `per_second` calls, as many at once; 0: no limit."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client: tokens, when they were counted
        self._lock = threading.Lock()

    def take(self, client: str) -> None:
        """Count one call. Raises `TooMany` where the client has none left."""
        if not self._per_second:
            return
        now = time.monotonic()
        with self._lock:
            tokens, counted = self._buckets.pop(client, (float(self._per_second), now))
            tokens = min(float(self._per_second), tokens + (now - counted) * self._per_second)
            is_enough = tokens >= 1
            self._buckets[client] = (tokens - is_enough, now)
            if len(self._buckets) > MOST_CLIENTS:
                self._buckets.popitem(last=False)
        if not is_enough:
            raise TooMany(f"more than {self._per_second} calls a second from {client}", 1 / self._per_second)
