"""Who may call: what each call must pass before anything of it is read, and the log of those that did not pass."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from urllib.parse import unquote

import grpc

from ottoscaler.errors import SettingsError
from ottoscaler.log import log
from ottoscaler.rpc.answers import NotAllowed, NotKnown
from ottoscaler.rpc.lanes import Pace
from ottoscaler.rpc.tokens import EXPECTED, Role, Tokens
from ottoscaler.settings import Settings

QUIET_SECONDS = 60.0
"""A refusal that repeats (same client, same reason) is logged once in this time, with how often it came."""
MOST_REFUSALS = 1000
LOOPBACK = ("127.", "localhost", "::1")


def bind_address(settings: Settings, is_encrypted: bool) -> str:
    """Host and port to listen at. In plain text, and not allowed to be: on this machine only, and the log says so."""
    host = settings.grpc_host.strip("[]")
    if not is_encrypted and not settings.grpc_insecure and not is_local(host):
        log.warning(
            "the gRPC door listens on 127.0.0.1 only: without GRPC_TLS_CERT its calls are plain text, which "
            "GRPC_INSECURE=true allows",
            asked=host,
        )
        host = "127.0.0.1"
    return f"[{host}]:{settings.grpc_port}" if ":" in host else f"{host}:{settings.grpc_port}"


def is_local(address: str) -> bool:
    """Whether only this machine reaches an address (host, or host and port)."""
    return address.lstrip("[").startswith(LOOPBACK)


def client_of(peer: str) -> str:
    """The address in what gRPC calls a peer: `ipv4:10.0.0.7:50312` → `10.0.0.7`, `ipv6:%5B::1%5D:50312` → `::1`."""
    kind, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else unquote(peer)


class Access:
    """The rules for callers. Raises `SettingsError` where the tokens cannot be read at the start."""

    def __init__(self, settings: Settings) -> None:
        self._pace = Pace(settings.grpc_calls_per_second)
        path = settings.grpc_tokens_file
        try:
            self._tokens = Tokens(path) if path else None
        except ValueError as error:
            raise SettingsError([f"GRPC_TOKENS_FILE is {path!r}, expected {EXPECTED}: the file {error}"]) from error

    def admit(self, context: grpc.ServicerContext, role: Role) -> str:
        """Let a call in; returns the caller's name for the log, empty without tokens.

        Raises `TooMany`, `NotKnown` or `NotAllowed`.
        """
        self._pace.take(client_of(context.peer()))
        if self._tokens is None:
            return ""
        given = _bearer(context)
        token = self._tokens.find(given)
        if token is None:
            raise NotKnown("this token is not known" if given else "a token is missing: authorization: Bearer TOKEN")
        if not token.has_role(role):
            raise NotAllowed(f"{token.name} has not the role {role}")
        return token.name


def _bearer(context: grpc.ServicerContext) -> str:
    """The token of a call's metadata; empty where there is none, or more than one."""
    found = [value for name, value in context.invocation_metadata() if name == "authorization"]
    given = found[0] if len(found) == 1 else ""
    kind, _, token = (given if isinstance(given, str) else given.decode("latin-1")).partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


class Refusals:
    """The log of refused calls: each with its peer, never with a token, and repeats only now and then."""

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[str, str, str], tuple[float, int]] = OrderedDict()  # when logged, how many since
        self._lock = threading.Lock()

    def note(self, peer: str, rpc: str, code: str, message: str) -> None:
        """Log one refusal, or count it to those that the next line mentions."""
        key, now = (client_of(peer), rpc, code), time.monotonic()
        with self._lock:
            logged, since = self._last.pop(key, (-QUIET_SECONDS, 0))
            is_due = now - logged >= QUIET_SECONDS
            self._last[key] = (now, 0) if is_due else (logged, since + 1)
            if len(self._last) > MOST_REFUSALS:
                self._last.popitem(last=False)
        if is_due:
            log.warning("call refused", peer=peer, rpc=rpc, code=code, reason=message, not_logged=since or None)
