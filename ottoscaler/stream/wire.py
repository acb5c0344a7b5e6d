"""Sockets to Redis that another thread can end: redis-py's connections, with a second handle on their socket.

A thread that waits for Redis sits in a system call. `Breaker.shut` ends that call at once, in whatever phase it is:
connecting, in the TLS handshake, or waiting for an answer.
"""

from __future__ import annotations

import inspect
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, cast

from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as NotConnected
from redis.retry import Retry

from ottoscaler.parsing import RedisAddress

# Client identification off: some servers know no CLIENT SETINFO, or do not permit it. The option's name has changed.
HAS_DRIVER_INFO = "driver_info" in inspect.signature(AbstractConnection.__init__).parameters
ANONYMOUS: dict[str, Any] = {"driver_info": None} if HAS_DRIVER_INFO else {"lib_name": None, "lib_version": None}
Addresses = Sequence[tuple[int, Any]]  # family and socket address, resolved


class Breaker:
    """A second handle on the socket that is in use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._handle: socket.socket | None = None
        self._is_shut = False

    def watch(self, sock: socket.socket) -> None:
        """Hold a handle on this socket; ConnectionAbortedError when `shut` came first."""
        with self._lock:
            self._release()
            if self._is_shut:
                raise ConnectionAbortedError("the call was cancelled while it connected")
            self._handle = sock.dup()

    def arm(self) -> None:
        """A new call begins: forget an earlier `shut`."""
        with self._lock:
            self._is_shut = False

    def shut(self) -> None:
        """Make whoever waits on the socket return at once, now or when it opens one."""
        with self._lock:
            self._is_shut = True
            if self._handle is not None:
                with suppress(OSError):  # it was closed already
                    self._handle.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Close the handle."""
        with self._lock:
            self._release()

    def _release(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None


class TcpConnection(Connection):
    """TCP to addresses that were resolved before: a name server that is silent could not be interrupted here."""

    breaker: Breaker
    addresses: Addresses = ()

    def _connect(self) -> socket.socket:
        failure: OSError = OSError("the name has no address")
        for family, address in self.addresses:
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                return _opened(sock, address, self.breaker, self.socket_connect_timeout, self.socket_timeout)
            except OSError as error:
                failure = error
                sock.close()
        raise failure


class TlsConnection(SSLConnection, TcpConnection):
    """TLS over such a connection."""


class UnixConnection(UnixDomainSocketConnection):
    """A Unix domain socket."""

    breaker: Breaker
    addresses: Addresses = ()
    host = ""  # it has none, but redis-py's base class asks for one

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            return _opened(sock, self.path, self.breaker, self.socket_connect_timeout, self.socket_timeout)
        except OSError:
            sock.close()
            raise


class RedisConnection(Protocol):
    """What we use of redis-py's connections, which say less about their types."""

    breaker: Breaker
    addresses: Addresses
    _sock: socket.socket | None

    def connect(self) -> None:
        """Open it, and log in."""

    def disconnect(self) -> None:
        """Close it."""

    def send_command(self, *words: str | bytes | int | float) -> None:
        """Send one command."""

    def read_response(self) -> Any:
        """Wait for one answer."""

    def can_read(self, timeout: float) -> bool:
        """Whether there is something to read within `timeout` seconds."""


def _opened(
    sock: socket.socket, address: Any, breaker: Breaker, connect_timeout: float | None, timeout: float | None
) -> socket.socket:
    breaker.watch(sock)
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.settimeout(connect_timeout)
    sock.connect(address)
    sock.settimeout(timeout)
    return sock


class PasswordFile(CredentialProvider):
    """A password that is read anew at each login: it may have changed since the last."""

    def __init__(self, username: str | None, file: str) -> None:
        self._username = username
        self._file = Path(file)

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """What follows AUTH; the line end behind a password is none of it. Its error is redis-py's, which then closes
        the socket.
        """
        try:
            password = self._file.read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
            raise NotConnected(f"REDIS_PASSWORD_FILE {str(self._file)!r} cannot be read ({reason})") from error
        return (self._username, password) if self._username else (password,)


def make_connection(address: RedisAddress, breaker: Breaker, timeout: float) -> RedisConnection:
    """A connection that is not open yet. It repeats nothing and says nothing of the client that it is."""
    wishes: dict[str, Any] = {
        "db": address.db or 0,
        "username": address.username,
        "password": address.password.reveal() if address.password else None,
        "protocol": 2,
        **ANONYMOUS,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
    }
    if address.password_file:
        login = {"username": None, "password": None}
        wishes |= login | {"credential_provider": PasswordFile(address.username, address.password_file)}
    kind: Any  # redis-py's constructors have no types
    match address.scheme:
        case "unix":
            kind, wishes = UnixConnection, wishes | {"path": address.path}
        case "rediss":
            kind, wishes = TlsConnection, wishes | {"host": address.host, "port": address.port} | _tls(address.options)
        case _:
            kind, wishes = TcpConnection, wishes | {"host": address.host, "port": address.port}
    connection = cast(RedisConnection, kind(**wishes))
    connection.breaker = breaker
    return connection


def _tls(options: dict[str, str]) -> dict[str, Any]:
    check = options.get("ssl_check_hostname", "true").lower() in ("1", "true", "yes", "on")
    return {**options, "ssl_check_hostname": check}
