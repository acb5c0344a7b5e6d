"""The port: who connects, TLS, and the preface of HTTP/2; what does not get through that is logged with its peer."""

from __future__ import annotations

import errno
import resource
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from ottoscaler.errors import SettingsError
from ottoscaler.log import log
from ottoscaler.rpc.http2.peers import Peer, Refusals, peer_of
from ottoscaler.rpc.http2.streams import PREFACE

GREETING_SECONDS = 10.0
"""For the handshake of TLS and the preface."""
ALERT_SECONDS = 1.0
"""For a client to take it that its handshake failed."""
MOST_CONNECTIONS = 4000
"""Or half of the files that this process may open, if that is less: the rest has other uses. One address may have half
of the connections.
"""
FILES = 2 * MOST_CONNECTIONS
BACKLOG = 1024
READ_BYTES = 16 << 10
Converse = Callable[[trio.abc.Stream, Peer, bytes], Awaitable[None]]
Dismiss = Callable[[str, str], bool]
Secure = Callable[[], ssl.SSLContext]


class _Refused(Exception):
    """This connection is none of ours."""

    def __init__(self, kind: str, reason: str) -> None:
        self.kind = kind
        super().__init__(reason)


class Entrance:
    """What each connection passes first; `handle` is for `trio.serve_listeners`.

    `secure` gives what TLS goes by, for each handshake; None: plain text.
    `dismiss` closes the connection that has had no call for the longest, of one address or of all (empty), with the
    reason for the log; False: there is none.
    """

    def __init__(self, secure: Secure | None, refusals: Refusals, converse: Converse, dismiss: Dismiss) -> None:
        self._secure = secure
        self._refusals = refusals
        self._converse = converse
        self._dismiss = dismiss
        self._most = min(MOST_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._share = (self._most + 1) // 2
        self._open = Counter[str]()
        self._greeting: dict[trio.CancelScope, str] = {}  # in the order in which they came

    async def handle(self, plain: trio.SocketStream) -> None:
        """One connection, from its first byte to its end."""
        try:
            peer = peer_of(plain)
        except OSError:
            return  # it is gone already
        self._open[peer.host] += 1
        try:
            self._find_room(peer.host)
            stream, first = await self._greet(plain, peer.host)
            if first is not None:
                await self._converse(stream, peer, first)
        except _Refused as refused:
            self._refusals.note_connection(peer, refused.kind, str(refused))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except Exception as error:  # noqa: BLE001  whatever it is, the other connections go on
            log.error("a connection broke", peer=str(peer), error=error)
        finally:
            self._open[peer.host] -= 1
            if not self._open[peer.host]:
                del self._open[peer.host]

    def _find_room(self, host: str) -> None:
        """Where this connection is one too many, close one without calls, or one that has not begun HTTP/2."""
        if self._open[host] > self._share:
            of, words = host, f"{self._share} connections of {host} are open, which is the limit of one address"
        elif self._open.total() > self._most:
            of, words = "", f"{self._most} connections are open, which is the limit"
        else:
            return
        silent = (scope for scope, whose in self._greeting.items() if of in ("", whose))
        if self._dismiss(of, f"it had no call for the longest: {words}"):
            return
        if (oldest := next(silent, None)) is None:
            raise _Refused("CONNECTIONS", words)
        oldest.cancel(reason=words)
        del self._greeting[oldest]

    async def _greet(self, plain: trio.SocketStream, host: str) -> tuple[trio.abc.Stream, bytes | None]:
        """The connection and what came behind the preface; None where the client has closed it."""
        with trio.move_on_after(GREETING_SECONDS) as greeting:
            self._greeting[greeting] = host
            try:
                stream = plain if self._secure is None else await _shake_hands(plain, self._secure())
                return stream, await _read_preface(stream)
            finally:
                self._greeting.pop(greeting, None)
        if trio.current_time() < greeting.deadline:
            raise _Refused("CONNECTIONS", "it had not begun HTTP/2 when there was no room for another one")
        raise _Refused("SILENT", f"it did not begin HTTP/2 within {GREETING_SECONDS:g} s")


async def _shake_hands(plain: trio.SocketStream, context: ssl.SSLContext) -> trio.abc.Stream:
    secured = trio.SSLStream(plain, context, server_side=True, https_compatible=True)
    try:
        await secured.do_handshake()
    except trio.BrokenResourceError as error:
        if isinstance(error.__cause__, ssl.SSLError) and not isinstance(error.__cause__, ssl.SSLEOFError):
            await _send_alert(plain, secured)
            raise _Refused("TLS", _words_of(error.__cause__)) from error
        raise
    if secured.selected_alpn_protocol() != "h2":
        raise _Refused("TLS", "it does not offer HTTP/2 (ALPN)")
    return secured


async def _send_alert(plain: trio.SocketStream, secured: trio.SSLStream[trio.SocketStream]) -> None:
    """Tell the client why; it hears that only if what it has sent meanwhile is read before the end."""
    alert = secured._outgoing.read()  # Trio keeps what OpenSSL has to say of its failure, and does not send it
    with trio.move_on_after(ALERT_SECONDS), suppress(trio.BrokenResourceError):
        await plain.send_all(alert)
        await plain.send_eof()
        while await plain.receive_some(READ_BYTES):
            pass


def _words_of(error: ssl.SSLError) -> str:
    """What OpenSSL says, without the line of its source, and what that may mean."""
    words = str(error).rpartition(" (_ssl.c")[0] or str(error)
    is_plain = error.reason in ("HTTP_REQUEST", "WRONG_VERSION_NUMBER", "UNSUPPORTED_PROTOCOL", "RECORD_LAYER_FAILURE")
    return f"the handshake failed: {words}{', as where a client speaks plain text' if is_plain else ''}"


async def _read_preface(stream: trio.abc.Stream) -> bytes | None:
    came = b""
    while len(came) < len(PREFACE):
        piece = await stream.receive_some(READ_BYTES)
        if not piece:
            return None
        came += piece
        if not PREFACE.startswith(came[: len(PREFACE)]):
            raise _Refused("PREFACE", f"it does not speak HTTP/2: {came[:8]!r}")
    return came[len(PREFACE) :]


def raise_file_limit() -> None:
    """Let this process open as many files as all connections need, where it may. Never fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # macOS has a lower bound of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def open_listeners(address: str) -> list[trio.SocketListener]:
    """Listen at `host:port`. Raises `SettingsError` where that cannot be."""
    host, _, port = address.rpartition(":")
    try:
        if host in ("0.0.0.0", "[::]"):
            return [_listen_everywhere(host.strip("[]"), int(port))]
        return await trio.open_tcp_listeners(int(port), host=host.strip("[]"), backlog=BACKLOG)
    except OSError as error:
        words = error.strerror or str(error)
        problem = f"GRPC_PORT is '{port}', expected a port that is free on {host} (gRPC cannot listen there: {words})"
        raise SettingsError([problem]) from error


def _listen_everywhere(host: str, port: int) -> trio.SocketListener:
    """All addresses of this machine, IPv6 and IPv4 alike where it has both; no other process may share the port."""
    try:
        opened = socket.socket(socket.AF_INET6)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        return _listen(opened, "::", port)
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL) or ":" in host:
            raise
    return _listen(socket.socket(socket.AF_INET), host, port)


def _listen(opened: socket.socket, host: str, port: int) -> trio.SocketListener:
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        opened.listen(BACKLOG)
        return trio.SocketListener(trio.socket.from_stdlib_socket(opened))
    except BaseException:
        opened.close()
        raise
