"""Who we are, as a bearer token: given, in a file that rotates, or from a plugin (see `exec_plugin`).

`token()` is asked before every request and is cheap; after a 401 it is asked with `fresh`, so that a token that was
rotated or revoked is replaced once before anybody hears of it.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import trio

from ottoscaler.errors import Unavailable
from ottoscaler.secret import Secret

REREAD_SECONDS = 60.0
"""Kubelets renew tokens long before they end, so a minute is often enough (client-go has the same)."""


class Credentials(Protocol):
    """A source of bearer tokens."""

    async def token(self, *, fresh: bool = False) -> Secret | None:
        """The token to send, None for none; with `fresh` whatever was kept is asked for again."""

    def certify(self, context: ssl.SSLContext) -> None:
        """Let `context` show the client certificate that came with the last token, where there is a new one."""


class NoCredentials:
    """No token: anonymous, or known by a client certificate alone."""

    async def token(self, *, fresh: bool = False) -> Secret | None:
        """None, always."""
        return None

    def certify(self, context: ssl.SSLContext) -> None:
        """Nothing: these come without a certificate."""

    def __repr__(self) -> str:
        return "no token"


@dataclass(frozen=True, slots=True)
class StaticToken(NoCredentials):
    """One token, given once."""

    value: Secret = field(repr=False)

    async def token(self, *, fresh: bool = False) -> Secret | None:
        """The token as it was given."""
        return self.value


class TokenFile(NoCredentials):
    """A token in a file that somebody else renews; read again after a minute, and when the API says it is bad."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._token: Secret | None = None
        self._read_at = 0.0

    def __repr__(self) -> str:
        return f"token in {self.path}"

    async def token(self, *, fresh: bool = False) -> Secret | None:
        """The file's token; Unavailable where it cannot be read and none was read before."""
        now = trio.current_time()
        if fresh or self._token is None or now - self._read_at >= REREAD_SECONDS:
            self._read(now)
        return self._token

    def _read(self, now: float) -> None:
        """Read the file in place: it is small and in memory (a kubelet's tmpfs), a thread would cost more."""
        try:
            text = self.path.read_text().strip()
        except OSError as error:
            if self._token is None:
                raise Unavailable(f"{self.path}: {error.strerror}, expected a token") from error
            return
        if text:
            self._token, self._read_at = Secret(text), now
        elif self._token is None:
            raise Unavailable(f"{self.path} is empty, expected a token")
