"""Who is at the other end, and the log of those who were refused: each with its peer, never with a token."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import trio

from ottoscaler.log import log

QUIET_SECONDS = 60.0
"""A refusal is logged at once; of those that repeat it their number, at the end of each such time."""
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


class _Kind(NamedTuple):
    """What is taken for the same refusal."""

    words: str
    host: str
    rpc: str
    code: str
    about: str


class _Held:
    """The newest of those that were not written, and how many they are."""

    def __init__(self) -> None:
        self.count = 0
        self.peer: Peer
        self.reason = ""


class Refusals:
    """Writes the first of a kind down, and of its repeats how many they were. `run` must be running for that."""

    def __init__(self) -> None:
        self._held: OrderedDict[_Kind, _Held] = OrderedDict()

    def note_call(self, peer: Peer, rpc: str, code: str, reason: str, about: str = "") -> None:
        """A call was refused; `about` is one of a few words for who called, or why it was not let in."""
        self._note(_Kind("call refused", peer.host, rpc, code, about), peer, reason)

    def note_connection(self, peer: Peer, kind: str, reason: str) -> None:
        """A connection was refused, or ended for what came over it; `kind` is one of a few words."""
        about = reason if kind == "TLS" else ""  # OpenSSL has a few sentences; others quote what came
        self._note(_Kind("connection refused", peer.host, "", kind, about), peer, reason)

    async def run(self) -> None:
        """Tell every minute what was not written in it, until cancelled; `tell` after that tells the rest."""
        while True:
            await trio.sleep(QUIET_SECONDS)
            self.tell()

    def tell(self) -> None:
        """Write how many more there were of each kind; what has not come again is new when it does."""
        held, self._held = self._held, OrderedDict()
        for kind, more in held.items():
            if more.count:
                _write(kind, more.peer, more.reason, more.count)
                self._held[kind] = _Held()

    def _note(self, kind: _Kind, peer: Peer, reason: str) -> None:
        if (held := self._held.get(kind)) is not None:
            held.count, held.peer, held.reason = held.count + 1, peer, reason
            return
        _write(kind, peer, reason, 0)
        self._held[kind] = _Held()
        if len(self._held) > MOST_REFUSALS:
            oldest, more = self._held.popitem(last=False)
            if more.count:
                _write(oldest, more.peer, more.reason, more.count)


def _write(kind: _Kind, peer: Peer, reason: str, not_logged: int) -> None:
    log.warning(
        kind.words,
        peer=str(peer),
        rpc=kind.rpc or None,
        code=kind.code,
        reason=reason,
        not_logged=not_logged or None,
        is_change=True,  # repeats are left out here already
    )
