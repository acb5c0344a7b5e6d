"""Who may call: what each call must pass before anything of it is read."""

from __future__ import annotations

from ipaddress import ip_address

from ottoscaler.errors import SettingsError
from ottoscaler.log import log
from ottoscaler.rpc.answers import NotAllowed, NotKnown
from ottoscaler.rpc.http2.heads import Head
from ottoscaler.rpc.lanes import Pace
from ottoscaler.rpc.tokens import EXPECTED, Role, Tokens
from ottoscaler.settings import Settings


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
    host = address.rpartition(":")[0] if address.count(":") == 1 or "]:" in address else address
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Access:
    """The rules for callers. Raises `SettingsError` where the tokens cannot be read at the start."""

    def __init__(self, settings: Settings) -> None:
        self._pace = Pace(settings.grpc_calls_per_second)
        path = settings.grpc_tokens_file
        try:
            self._tokens = Tokens(path) if path else None
        except ValueError as error:
            words = f"the file {error}".removesuffix(f", expected {EXPECTED}")
            raise SettingsError([f"GRPC_TOKENS_FILE is {path!r}, expected {EXPECTED}: {words}"]) from error

    def admit(self, host: str, head: Head, role: Role) -> str:
        """Let a call of an address in; returns the caller's name, empty without tokens.

        Raises `TooMany`, `NotKnown` or `NotAllowed`.
        """
        self._pace.take(host)
        if self._tokens is None:
            return ""
        given = _bearer(head.get("authorization"))
        token = self._tokens.find(given)
        if token is None:
            raise NotKnown("this token is not known" if given else "a token is missing: authorization: Bearer TOKEN")
        if not token.has_role(role):
            raise NotAllowed(f"{token.name} has not the role {role}")
        return token.name


def _bearer(authorization: str) -> str:
    """The token of that header, which is empty where there is none, or more than one."""
    kind, _, token = authorization.partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""
