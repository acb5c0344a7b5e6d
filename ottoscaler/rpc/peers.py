"""Who is at the other end, and the log of those who were refused: each with its peer, never with a token."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import NamedTuple

import trio

from ottoscaler.log import log

QUIET_SECONDS = 60.0
"""A refusal that repeats (same address, same kind) is logged once in this time, with how often it came."""
MOST_REFUSALS = 1000


class Peer(NamedTuple):
    """The address of a client, and the port that its connection comes from."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def peer_of(stream: trio.SocketStream) -> Peer:
    """Who has connected. Raises OSError where it is gone already."""
    host, port = stream.socket.getpeername()[:2]
    return Peer(host.removeprefix("::ffff:"), port)  # IPv4 on a socket for both


class Refusals:
    """Writes refusals down, and repeats only now and then."""

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[str, str, str], tuple[float, int]] = OrderedDict()  # when logged, how many since

    def note_call(self, peer: Peer, rpc: str, code: str, reason: str) -> None:
        """A call was refused."""
        self._note("call refused", peer, rpc, code, reason)

    def note_connection(self, peer: Peer, kind: str, reason: str) -> None:
        """A connection was refused, or ended for what came over it; `kind` is one of a few words."""
        self._note("connection refused", peer, None, kind, reason)

    def _note(self, words: str, peer: Peer, rpc: str | None, code: str, reason: str) -> None:
        key, now = (peer.host, rpc or "", code), time.monotonic()
        logged, since = self._last.pop(key, (-QUIET_SECONDS, 0))
        is_due = now - logged >= QUIET_SECONDS
        self._last[key] = (now, 0) if is_due else (logged, since + 1)
        if len(self._last) > MOST_REFUSALS:
            self._last.popitem(last=False)
        if is_due:
            log.warning(words, peer=str(peer), rpc=rpc, code=code, reason=reason, not_logged=since or None)
