"""Reads that wait for entries, on a connection of their own, and end at once when cancelled.

A cancel sends CLIENT UNBLOCK over another connection, again every 20 ms: sent before the read reached Redis it does
nothing. When Redis does not answer either, the link shuts the socket down.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import trio

from ottoscaler.errors import Unavailable
from ottoscaler.parsing import RedisAddress
from ottoscaler.stream.link import Exchange, Link

LONGEST_BLOCK = 1.0  # seconds; below the socket's timeout, so that a server that is gone is noticed
UNBLOCK_EVERY = 0.02  # seconds


class Reader:
    """One connection for waiting reads. `timeout` (seconds) is how long an answer may take beyond the wait."""

    def __init__(self, address: RedisAddress, *, timeout: float) -> None:
        self._link = Link(address, timeout=LONGEST_BLOCK + timeout, greet=self._learn_client_id)
        self._control = Link(address, timeout=timeout, grace=0.0)
        self._client_id = 0

    async def read(self, *words: str | int, streams: tuple[str, ...], block_seconds: float) -> Any:
        """XREAD or XREADGROUP (`words` up to COUNT, then `streams`); None or [[stream, entries]].

        Waits no longer than `LONGEST_BLOCK`: the caller asks again.
        """
        block = int(min(block_seconds, LONGEST_BLOCK) * 1000)
        wait = ("BLOCK", block) if block > 0 else ()
        return await self._link.run(lambda exchange: exchange(*words, *wait, "STREAMS", *streams), self._unblock)

    def disconnect(self) -> None:
        """Close both connections."""
        self._link.disconnect()
        self._control.disconnect()

    def _learn_client_id(self, exchange: Exchange) -> None:
        self._client_id = exchange("CLIENT", "ID")

    async def _unblock(self) -> None:
        while True:
            with suppress(Unavailable):  # then the socket is shut down instead
                await self._control.command("CLIENT", "UNBLOCK", self._client_id)
            await trio.sleep(UNBLOCK_EVERY)
