"""The client over real sockets: cancelled at any phase it stays usable; TLS, certificates, proxies as configured."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial

import pytest
import trio
import trustme

from ottoscaler.errors import Ambiguous, Unavailable, WritesSuspended
from ottoscaler.kube.access import Access, ClientCertificate, Trust
from ottoscaler.kube.client import Kube, open_kube
from ottoscaler.secret import Secret

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n"
BODY = b'{"ok": 123}'
EVENT = b'{"type":"ADDED","object":{"metadata":{"name":"p"}}}\n'
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(EVENT), EVENT)

Serve = Callable[[trio.SocketStream], Awaitable[None]]


class Server:
    """A server of a few lines: reads a request, answers as far as `answer` goes, and counts who waits for the rest."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.stuck = 0

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One connection, until the client leaves."""
        try:
            while head := await self._read(stream):
                self.requests.append(head)
                await stream.send_all(self.answer)
                if self.answer != OK + BODY:
                    self.stuck += 1
                    await stream.receive_some(1)
                    return
        except trio.BrokenResourceError:
            return

    async def _read(self, stream: trio.abc.Stream) -> bytes:
        data = bytearray()
        while b"\r\n\r\n" not in data:
            chunk = await stream.receive_some(65536)
            if not chunk:
                return b""
            data += chunk
        return bytes(data)


def anything_goes() -> None:
    """A lease that never runs out."""


@asynccontextmanager
async def served(server: Server, serve: Serve | None = None) -> AsyncIterator[int]:
    """Serve on a free port of this machine."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(partial(trio.serve_listeners, serve or server.serve, [listener]))
        yield port
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def client(port: int, may_write: Callable[[], None] = anything_goes) -> AsyncIterator[Kube]:
    """A plain client of that port with two connections."""
    async with open_kube(Access(server=f"http://127.0.0.1:{port}"), may_write=may_write, in_flight=2) as kube:
        yield kube


PHASES = {
    "before the answer": b"",
    "in the answer's headers": OK[:20],
    "before the body": OK,
    "in the body": OK + BODY[:4],
}


@pytest.mark.parametrize("phase", PHASES)
async def test_a_cancelled_request_leaves_the_client_usable(phase: str) -> None:
    """Cancelled again and again at this phase, the client still has all its connections for the next requests."""
    server = Server(PHASES[phase])
    async with served(server) as port, client(port) as kube:
        for _ in range(5):
            stuck = server.stuck
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(kube.get_pod, "otto", "p")
                while server.stuck < stuck + 2:
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel(reason="the test cuts here")
        server.answer = OK + BODY
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(kube.get_pod, "otto", "p")
    assert len([head for head in server.requests if head.startswith(b"GET")]) == 14


async def test_a_cancelled_handshake_leaves_the_client_usable() -> None:
    """Cut while TLS is being agreed on, the next request opens a connection of its own."""
    ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1", key_type=trustme.KeyType.ECDSA).configure_cert(context)
    server = Server(OK + BODY)
    silent = True
    accepted = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        if silent:
            accepted.set()
            await stream.receive_some(10_000)
            await trio.sleep_forever()
        await server.serve(trio.SSLStream(stream, context, server_side=True))

    async with served(server, serve) as port:
        access = Access(server=f"https://127.0.0.1:{port}", trust=Trust(ca=ca.cert_pem.bytes().decode()))
        async with open_kube(access, may_write=anything_goes, in_flight=1) as kube:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(kube.get_pod, "otto", "p")
                await accepted.wait()
                nursery.cancel_scope.cancel(reason="the test cuts here")
            silent = False
            with trio.fail_after(20):
                assert await kube.get_pod("otto", "p") == {"ok": 123}


async def test_a_refused_lease_sends_no_byte() -> None:
    """What may_write raises comes out as it is, nothing reaches the server, and the next write is sent."""
    refusals = [WritesSuspended("the lease ran out")]

    def may_write() -> None:
        if refusals:
            raise refusals.pop()

    server = Server(OK + BODY)
    async with served(server) as port, client(port, may_write) as kube:
        with pytest.raises(WritesSuspended):
            await kube.create_pod("otto", {})
        assert server.requests == []
        await kube.create_pod("otto", {})
    assert len(server.requests) == 1


async def test_an_unanswered_create_is_ambiguous_and_a_refused_connection_is_not() -> None:
    """Sent and cut: nobody knows. Nobody listening: surely not done, and the system's own words say why."""

    async def cut(stream: trio.SocketStream) -> None:
        await stream.receive_some(10_000)
        await stream.aclose()

    async with served(Server(b""), cut) as port, client(port) as kube:
        with pytest.raises(Ambiguous, match="broke off"):
            await kube.create_pod("otto", {})
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with client(unused.getsockname()[1]) as kube:
            with pytest.raises(
                Unavailable, match=r"cannot be reached \(create of pod otto/\): Connection refused"
            ) as caught:
                await kube.create_pod("otto", {})
            with pytest.raises(Unavailable, match=r"cannot be reached \(version of the server\): Connection refused"):
                await kube.version()
    assert type(caught.value) is Unavailable


async def test_leaving_an_open_watch_closes_it() -> None:
    """A reader that leaves after the first event, or is cancelled waiting for the next, ends the connection."""
    server = Server(CHUNKED)
    async with served(server) as port, client(port) as kube:
        async with aclosing(kube.watch_pods("otto", "a=b", 5)) as events:
            async for event in events:
                assert event.object == {"metadata": {"name": "p"}}
                break
        with trio.move_on_after(0.05) as scope:
            async with aclosing(kube.watch_pods("otto", "a=b", 5)) as events:
                async for _ in events:
                    pass
        assert scope.cancelled_caught
    assert server.stuck == 2


async def test_tls_shows_the_client_certificate_and_asks_for_the_other_name() -> None:
    """The CA is checked against tls-server-name, which is also asked for; the client certificate is shown."""
    ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("kube.example.org", key_type=trustme.KeyType.ECDSA).configure_cert(context)
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    asked: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    leaf = ca.issue_cert("me@example.org", key_type=trustme.KeyType.ECDSA)
    shown = ClientCertificate(leaf.cert_chain_pems[0].bytes().decode(), Secret(leaf.private_key_pem.bytes().decode()))
    server = Server(OK + BODY)

    async def serve(stream: trio.SocketStream) -> None:
        try:
            await server.serve(trio.SSLStream(stream, context, server_side=True))
        except trio.BrokenResourceError:
            return

    pem = ca.cert_pem.bytes().decode()
    async with served(server, serve) as port:
        address = f"https://127.0.0.1:{port}"
        access = Access(server=address, trust=Trust(ca=pem, server_name="kube.example.org"), certificate=shown)
        async with open_kube(access, may_write=anything_goes) as kube:
            assert await kube.get_pod("otto", "p") == {"ok": 123}
        async with open_kube(Access(server=address, trust=Trust(ca=pem)), may_write=anything_goes) as kube:
            with pytest.raises(Unavailable, match=r"certificate verify failed|CERTIFICATE_VERIFY_FAILED"):
                await kube.get_pod("otto", "p")
    assert asked[0] == "kube.example.org"


async def test_a_proxy_is_used_when_configured_and_never_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY of the environment has no say; proxy-url of the kubeconfig has."""
    server, proxy = Server(OK + BODY), Server(OK + BODY)
    async with served(server) as port, served(proxy) as proxy_port:
        proxy_url = f"http://127.0.0.1:{proxy_port}"
        monkeypatch.setenv("HTTP_PROXY", proxy_url)
        monkeypatch.setenv("ALL_PROXY", proxy_url)
        async with client(port) as kube:
            await kube.version()
        assert (len(server.requests), len(proxy.requests)) == (1, 0)
        access = Access(server=f"http://127.0.0.1:{port}", proxy_url=proxy_url)
        async with open_kube(access, may_write=anything_goes) as kube:
            await kube.version()
        assert (len(server.requests), len(proxy.requests)) == (1, 1)
