"""Connections that are refused before there is a call: each is closed, and logged once with its peer and the reason."""

from __future__ import annotations

import re
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from ottoscaler.rpc.http2 import listening
from tests.rpc.stage import Scene, open_door

pytestmark = pytest.mark.slow_clock


def refused(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """What the log says of refused connections."""
    return [vars(record)["facts"] for record in caplog.records if record.message == "connection refused"]


async def heard_until_closed(scene: Scene, said: bytes, tls: ssl.SSLContext | None = None) -> tuple[str, bytes]:
    """Say something on a new connection: its own address, and what came until the door closed it."""
    with trio.fail_after(20):
        plain = await trio.open_tcp_stream("127.0.0.1", scene.port)
        host, port = plain.socket.getsockname()[:2]
        stream: trio.abc.Stream = plain
        if tls is not None:
            stream = trio.SSLStream(plain, tls, server_hostname="localhost", https_compatible=True)
        heard = b""
        try:
            await stream.send_all(said)
            while piece := await stream.receive_some():
                heard += piece
        except trio.BrokenResourceError:
            pass
        finally:
            await trio.aclose_forcefully(plain)
    return f"{host}:{port}", heard


@pytest.mark.parametrize(
    ("said", "kind", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "PREFACE", "it does not speak HTTP/2: b'GET / HT'"),
        (b"\xff" * 100, "PREFACE", r"it does not speak HTTP/2: b'\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff'"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 1000, "PROTOCOL", "it does not speak HTTP/2"),
    ],
    ids=["http/1.1", "bytes", "frames"],
)
async def test_what_is_no_http2_is_logged_with_its_peer(
    said: bytes, kind: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Another protocol, or none, on the port: closed at once, and a line says who it was and how it began."""
    async with open_door() as scene:
        peer, _ = await heard_until_closed(scene, said)
        for _ in range(5):
            await heard_until_closed(scene, said)
        assert await scene.health() == 1
    fact, rest = refused(caplog)
    assert rest["not_logged"] == 5
    assert (fact["peer"], fact["code"]) == (peer, kind)
    assert re.fullmatch(reason, fact["reason"])


class Authority:
    """A server's certificate, and what clients show."""

    def __init__(self, folder: Path) -> None:
        self.ca, self.cert, self.key, self.root = trustme.CA(), folder / "crt", folder / "key", folder / "ca"
        issued = self.ca.issue_cert("localhost")
        self.key.write_bytes(issued.private_key_pem.bytes())
        self.cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        self.ca.cert_pem.write_to_path(str(self.root))

    def client(self, by: trustme.CA | None = None, days: int = 1, alpn: str = "h2") -> ssl.SSLContext:
        """A client that trusts the server and shows a certificate by `by`."""
        context = ssl.create_default_context(cadata=self.ca.cert_pem.bytes().decode())
        context.set_alpn_protocols([alpn])
        if by is not None:
            until = datetime.now(UTC) + timedelta(days=days)
            by.issue_cert("me", not_before=until - timedelta(days=10), not_after=until).configure_cert(context)
        return context


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("plain", "the handshake failed: .*, as where a client speaks plain text"),
        ("none", r"the handshake failed: .*peer did not return a certificate"),
        ("wrong", r"the handshake failed: .*certificate verify failed: (unable to get local issuer|self.signed).*"),
        ("expired", r"the handshake failed: .*certificate verify failed: certificate has expired"),
        ("alpn", r"it does not offer HTTP/2 \(ALPN\)"),
    ],
)
async def test_a_failed_handshake_is_logged_with_its_peer(
    case: str, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Plain text, no certificate, one of another authority or an expired one, and a client that does not want HTTP/2:
    each is a line with its peer and with what OpenSSL says of it.
    """
    authority = Authority(tmp_path)
    clients: dict[str, ssl.SSLContext | None] = {
        "plain": None,
        "none": authority.client(),
        "wrong": authority.client(trustme.CA()),
        "expired": authority.client(authority.ca, days=-1),
        "alpn": authority.client(authority.ca, alpn="http/1.1"),
    }
    files: dict[str, Any] = {"tls_cert": authority.cert, "tls_key": authority.key, "tls_client_ca": authority.root}
    async with open_door(**files) as scene:
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        peer, _ = await heard_until_closed(scene, preface, clients[case])
    (fact,) = refused(caplog)
    assert (fact["peer"], fact["code"]) == (peer, "TLS")
    assert re.fullmatch(reason, fact["reason"]), fact["reason"]


@pytest.mark.parametrize(
    ("case", "alert"),
    [("none", "CERTIFICATE_REQUIRED"), ("wrong", "UNKNOWN_CA"), ("expired", "CERTIFICATE_EXPIRED")],
)
async def test_a_client_is_told_what_is_wrong_with_its_certificate(case: str, alert: str, tmp_path: Path) -> None:
    """The alert of TLS reaches a client that has sent its first request along, as all do."""
    authority = Authority(tmp_path)
    client = {
        "none": authority.client(),
        "wrong": authority.client(trustme.CA()),
        "expired": authority.client(authority.ca, days=-1),
    }[case]

    def connect(port: int) -> str:
        with (
            socket.create_connection(("127.0.0.1", port), 5) as plain,
            client.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            secured.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(30_000))
            with pytest.raises(ssl.SSLError) as told:
                secured.recv(100)
        return str(told.value.reason)

    files: dict[str, Any] = {"tls_cert": authority.cert, "tls_key": authority.key, "tls_client_ca": authority.root}
    async with open_door(**files) as scene:
        assert alert in await trio.to_thread.run_sync(connect, scene.port)


async def test_a_client_that_does_not_trust_the_door_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that refuses the door's certificate says so, and that is in the log."""
    authority = Authority(tmp_path)

    def connect(port: int) -> str:
        with socket.create_connection(("127.0.0.1", port), 5) as plain:
            host, own_port = plain.getsockname()
            with pytest.raises(ssl.SSLCertVerificationError):
                ssl.create_default_context().wrap_socket(plain, server_hostname="localhost")
        return f"{host}:{own_port}"

    async with open_door(tls_cert=authority.cert, tls_key=authority.key) as scene:
        peer = await trio.to_thread.run_sync(connect, scene.port)
        with trio.fail_after(20):
            while not refused(caplog):  # noqa: ASYNC110  the log tells nobody
                await trio.sleep(0.01)
    (fact,) = refused(caplog)
    assert fact["peer"] == peer
    assert re.fullmatch("the handshake failed: .*unknown ca.*", fact["reason"])


async def test_a_client_that_says_nothing_is_closed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that does not begin HTTP/2 in time is closed and logged; one that is closed by its client is not."""
    monkeypatch.setattr(listening, "GREETING_SECONDS", 0.2)
    async with open_door() as scene:
        with socket.create_connection(("127.0.0.1", scene.port), 20):
            pass
        peer, heard = await heard_until_closed(scene, b"PRI * HT")
        assert heard == b""
    (fact,) = refused(caplog)
    assert (fact["peer"], fact["code"], fact["reason"]) == (peer, "SILENT", "it did not begin HTTP/2 within 0.2 s")
