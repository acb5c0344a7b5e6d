"""Who may call: tokens and their roles, TLS and mutual TLS, files that change, and what the log says of refusals."""

from __future__ import annotations

import hashlib
import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio
import trustme
from trio.testing import MockClock

from ottoscaler.errors import SettingsError
from ottoscaler.rpc.access import Access, bind_address, is_local
from ottoscaler.rpc.http2.peers import Peer, Refusals
from ottoscaler.rpc.lanes import Pace
from ottoscaler.rpc.tls import load_certificates
from ottoscaler.rpc.tokens import Tokens
from ottoscaler.rpc.v1 import pipeline_pb2, scaling_pb2
from tests.rpc.stage import call, open_channel, open_door, refusal, settings_with

Code = grpc.StatusCode
ONE = scaling_pb2.ScaleRequest(worker_count=1)
STATUS = scaling_pb2.WorkerStatusRequest()


def entry(name: str, token: str, roles: str) -> str:
    """One line of a file of tokens."""
    return f"- {{name: {name}, sha256: {hashlib.sha256(token.encode()).hexdigest()}, roles: [{roles}]}}\n"


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata that shows a token."""
    return (("authorization", f"Bearer {token}"),)


@pytest.fixture
def tokens_file(tmp_path: Path) -> Path:
    """A file with one token for each role: `Scale-1` and `Read-1`."""
    file = tmp_path / "tokens.yaml"
    file.write_text(entry("handler", "Scale-1", "scale") + entry("board", "Read-1", "read"))
    return file


def refusals(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The facts of what was logged as refused."""
    return [vars(record)["facts"] for record in caplog.records if record.message == "call refused"]


@pytest.mark.slow_clock
async def test_each_token_may_do_what_its_roles_say(tokens_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`scale` may do all, `read` only ask; no token, a wrong one and a wrong role are told apart, and logged."""
    async with open_door(tokens_file=tokens_file) as scene:
        await call(scene.stub.ScaleUp, ONE, metadata=bearer("Scale-1"))
        await call(scene.stub.GetWorkerStatus, STATUS, metadata=bearer("Scale-1"))
        await call(scene.stub.GetWorkerStatus, STATUS, metadata=bearer("Read-1"))
        asked = len(scene.door.asked)
        for rpc in (scene.stub.ScaleUp, scene.stub.ScaleDown):
            error = await refusal(rpc, ONE, metadata=bearer("Read-1"))
            assert (error.code(), error.details()) == (Code.PERMISSION_DENIED, "board has not the role scale")
        stream = scene.stub.ExecutePipeline(pipeline_pb2.PipelineRequest(), metadata=bearer("Read-1"))
        assert (await refusal(lambda timeout: next(stream))).code() == Code.PERMISSION_DENIED
        error = await refusal(scene.stub.ScaleUp, ONE)
        assert (error.code(), error.details()) == (
            Code.UNAUTHENTICATED,
            "a token is missing: authorization: Bearer TOKEN",
        )
        error = await refusal(scene.stub.GetWorkerStatus, STATUS, metadata=bearer("Secret-Wrong-1"))
        assert (error.code(), error.details()) == (Code.UNAUTHENTICATED, "this token is not known")
        error = await refusal(scene.stub.ScaleUp, ONE, metadata=(*bearer("Scale-1"), *bearer("Read-1")))
        assert error.code() == Code.UNAUTHENTICATED, "of two tokens none counts"
        assert len(scene.door.asked) == asked
        assert await scene.health() == 1
    found = refusals(caplog)
    assert {(fact["rpc"], fact["code"]) for fact in found} == {
        ("ScaleUp", "PERMISSION_DENIED"),
        ("ScaleDown", "PERMISSION_DENIED"),
        ("ExecutePipeline", "PERMISSION_DENIED"),
        ("ScaleUp", "UNAUTHENTICATED"),
        ("GetWorkerStatus", "UNAUTHENTICATED"),
    }
    assert all(fact["peer"].startswith("127.0.0.1:") for fact in found)
    assert not [word for word in ("Secret-Wrong-1", "Read-1", "Scale-1") if word in str(found)]


@pytest.mark.slow_clock
async def test_repeated_refusals_are_logged_once(tokens_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A client that goes on with a wrong token fills no log; the rest is told when the door closes."""
    async with open_door(tokens_file=tokens_file) as scene:
        for _ in range(20):
            await refusal(scene.stub.ScaleUp, ONE, metadata=bearer("wrong"))
    assert [fact.get("not_logged") for fact in refusals(caplog)] == [None, 19]


@pytest.mark.slow_clock
async def test_one_refusal_hides_no_other_of_the_same_address(
    tokens_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No token, a wrong one, one without the role, and what is wrong with the call of one that may: a line for each."""
    tokens_file.write_text(tokens_file.read_text() + entry("other", "Read-2", "read"))
    wrong = scaling_pb2.ScaleRequest(metadata={"wait": "soon"})
    async with open_door(tokens_file=tokens_file) as scene:
        await refusal(scene.stub.ScaleUp, ONE)
        for token in ("Wrong", "Read-1", "Read-2"):
            await refusal(scene.stub.ScaleUp, ONE, metadata=bearer(token))
        await refusal(scene.stub.ScaleUp, wrong, metadata=bearer("Scale-1"))
    assert [fact["reason"].partition(":")[0] for fact in refusals(caplog)] == [
        "a token is missing",
        "this token is not known",
        "board has not the role scale",
        "other has not the role scale",
        "metadata[\"wait\"] is 'soon', expected accepted or completed",
    ]


async def test_what_is_not_written_is_told_each_minute(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The first at once, of those behind it their number when the minute is over, and a late one as a first."""
    refused = Refusals()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused.run)
        await trio.sleep(0.25)
        for number in range(200):
            refused.note_call(Peer("10.0.0.7", number), "ScaleUp", "UNAUTHENTICATED", f"why {number}")
            await trio.sleep(0.5)
        await trio.sleep(1000)
        refused.note_call(Peer("10.0.0.7", 1), "ScaleUp", "UNAUTHENTICATED", "late")
        nursery.cancel_scope.cancel(reason="the test is over")
    told = [(fact["peer"], fact["reason"], fact.get("not_logged")) for fact in refusals(caplog)]
    assert told[0] == ("10.0.0.7:0", "why 0", None)
    assert told[1][:2] == ("10.0.0.7:119", "why 119")
    assert [more for _, _, more in told] == [None, 119, 80, None]


async def test_many_addresses_do_not_fill_the_memory(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a thousand kinds the oldest makes room, and what was not written of it is told then."""
    refused = Refusals()
    for _ in range(2):
        refused.note_connection(Peer("first", 1), "SILENT", "why")
    for number in range(1000):
        refused.note_connection(Peer(f"10.0.0.{number}", 1), "SILENT", "why")
    assert len(refused._held) == 1000
    assert [vars(record)["facts"].get("not_logged") for record in caplog.records].count(1) == 1


def test_tokens_are_read_again_and_refused_while_they_cannot_be(
    tokens_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A changed file counts at the next call; a broken or missing one refuses everybody, which is logged once."""
    caplog.set_level(logging.INFO, "ottoscaler")
    tokens = Tokens(str(tokens_file))
    assert (tokens.find("Scale-1") or pytest.fail("unknown")).name == "handler"
    tokens_file.write_text(entry("handler", "Scale-2", "scale"))
    assert tokens.find("Scale-1") is None
    assert tokens.find("Scale-2") is not None
    tokens_file.write_text("- {name: handler, sha256: short, roles: [scale]}")
    assert [tokens.find("Scale-2") for _ in range(3)] == [None] * 3
    tokens_file.unlink()
    assert tokens.find("Scale-2") is None
    tokens_file.write_text(entry("handler", "Scale-2", "scale"))
    assert tokens.find("Scale-2") is not None
    said = [record.message for record in caplog.records]
    assert said.count("every call is refused: the tokens are not known") == 2
    assert said.count("tokens read again") == 2


def test_a_secret_that_kubernetes_swaps_behind_a_link_is_noticed(tmp_path: Path) -> None:
    """A mounted Secret changes by renaming a link to its folder: same path, same size, another file."""
    for number in (1, 2):
        (tmp_path / f"v{number}").mkdir()
        (tmp_path / f"v{number}" / "tokens").write_text(entry("handler", f"Scale-{number}", "scale"))
    os.utime(tmp_path / "v1" / "tokens", (1, 1))
    os.utime(tmp_path / "v2" / "tokens", (1, 1))
    (tmp_path / "data").symlink_to("v1")
    tokens = Tokens(str(tmp_path / "data" / "tokens"))
    (tmp_path / "new").symlink_to("v2")
    (tmp_path / "new").rename(tmp_path / "data")
    assert tokens.find("Scale-1") is None
    assert tokens.find("Scale-2") is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tokens: []",
        "- {name: a, sha256: 00, roles: [scale]}",
        "- {name: a, roles: [scale]}",
        f"- {{name: a, sha256: {'0' * 64}, roles: [admin]}}",
        f"- {{name: a, sha256: {'a' * 64}, roles: []}}",
        f"- {{name: a, sha256: {'a' * 64}, roles: [read], token: x}}",
        entry("a", "x", "read") * 2,
        "[",
    ],
)
def test_a_file_of_tokens_that_is_wrong_ends_the_start(tmp_path: Path, text: str) -> None:
    """What cannot be read at the start is a problem of the settings, not a door that refuses all."""
    file = tmp_path / "tokens.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=r"GRPC_TOKENS_FILE is '.*tokens.yaml', expected a YAML list of") as caught:
        Access(settings_with(tokens_file=file))
    assert str(caught.value).count("a YAML list") == 1


@pytest.mark.parametrize(
    ("values", "is_encrypted", "address", "is_said"),
    [
        ({"host": "0.0.0.0", "insecure": "false"}, False, "127.0.0.1:9090", True),
        ({"host": "::", "insecure": "false"}, False, "127.0.0.1:9090", True),
        ({"host": "0.0.0.0"}, False, "0.0.0.0:9090", False),
        ({"host": "0.0.0.0", "insecure": "false"}, True, "0.0.0.0:9090", False),
        ({"host": "::"}, False, "[::]:9090", False),
        ({"host": "::1", "insecure": "false"}, False, "[::1]:9090", False),
        ({"host": "localhost", "insecure": "false"}, False, "localhost:9090", False),
        ({"host": "127.8.9.1", "insecure": "false"}, False, "127.8.9.1:9090", False),
        ({"host": "localhost.example.com", "insecure": "false"}, False, "127.0.0.1:9090", True),
        ({"host": "127.example.com", "insecure": "false"}, False, "127.0.0.1:9090", True),
        ({"host": "::1.example.com", "insecure": "false"}, False, "127.0.0.1:9090", True),
    ],
)
def test_plain_text_stays_on_this_machine_unless_allowed(
    values: dict[str, str], is_encrypted: bool, address: str, is_said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Without TLS and without GRPC_INSECURE=true only 127.0.0.1 is listened on, and the log says so."""
    assert bind_address(settings_with(**values), is_encrypted) == address
    assert ("listens on 127.0.0.1 only" in caplog.text) == is_said


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:9090", True),
        ("127.0.0.1", True),
        ("[::1]:9090", True),
        ("::1", True),
        ("localhost:9090", True),
        ("localhost.example.com:9090", False),
        ("127.example.com", False),
        ("[::]:9090", False),
        ("0.0.0.0:9090", False),
    ],
)
def test_local_is_what_only_this_machine_reaches(address: str, expected: bool) -> None:
    """A loopback address, or the name localhost, and no name that only begins like one."""
    assert is_local(address) == expected


def test_a_client_has_its_pace_and_no_other_pays_for_it() -> None:
    """Calls beyond the number per second are refused, for this client alone; 0 is no limit."""
    pace = Pace(3)
    for _ in range(3):
        pace.take("a")
    with pytest.raises(Exception, match="more than 3 calls a second from a"):
        pace.take("a")
    pace.take("b")
    for _ in range(1000):
        Pace(0).take("a")


# TLS


class Certificates:
    """An authority, and files of what it issues."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = trustme.CA()
        self.cert, self.key, self.client_ca = folder / "tls.crt", folder / "tls.key", folder / "ca.crt"
        self.ca.cert_pem.write_to_path(str(self.client_ca))
        self.serve(self.ca)

    def serve(self, ca: trustme.CA) -> None:
        """Put a new certificate for localhost, issued by `ca`, in place of the server's."""
        issued = ca.issue_cert("localhost")
        self.key.write_bytes(issued.private_key_pem.bytes())
        self.cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))

    def client(self, ca: trustme.CA | None = None, by: trustme.CA | None = None, days: int = 1) -> Any:
        """Credentials that trust `ca` (this one by default) and, with `by`, show a certificate by it."""
        root = (ca or self.ca).cert_pem.bytes()
        if by is None:
            return grpc.ssl_channel_credentials(root)
        until = datetime.now(UTC) + timedelta(days=days)
        issued = by.issue_cert("client", not_before=until - timedelta(days=10), not_after=until)
        chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
        return grpc.ssl_channel_credentials(root, issued.private_key_pem.bytes(), chain)

    def settings(self, *, mutual: bool = False) -> dict[str, Any]:
        """The GRPC_ settings of these files."""
        return {"tls_cert": self.cert, "tls_key": self.key, **({"tls_client_ca": self.client_ca} if mutual else {})}


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    """Fresh ones."""
    return Certificates(tmp_path)


@pytest.mark.slow_clock
async def test_tls_serves_who_trusts_it_and_nobody_in_plain_text(certificates: Certificates) -> None:
    """A client that trusts the authority is served; another authority and plain text are not, and nothing breaks."""
    async with open_door(credentials=certificates.client(), **certificates.settings()) as scene:
        await call(scene.stub.ScaleUp, ONE)
        other = certificates.client(trustme.CA())
        for credentials in (other, None):
            with open_channel(scene.port, credentials) as channel:
                ready = grpc.channel_ready_future(channel)
                with pytest.raises(grpc.FutureTimeoutError):
                    await trio.to_thread.run_sync(ready.result, 0.5)
                ready.cancel()
        await call(scene.stub.ScaleUp, ONE)


@pytest.mark.slow_clock
async def test_mutual_tls_serves_certificates_of_its_authority_only(certificates: Certificates) -> None:
    """No certificate, one of another authority and an expired one are refused at the handshake."""
    good = certificates.client(by=certificates.ca)
    async with open_door(credentials=good, **certificates.settings(mutual=True)) as scene:
        await call(scene.stub.ScaleUp, ONE)
        none = certificates.client()
        wrong = certificates.client(by=trustme.CA())
        expired = certificates.client(by=certificates.ca, days=-1)
        for credentials in (none, wrong, expired):
            with open_channel(scene.port, credentials) as channel:
                stub: Any = channel.unary_unary("/ottoscaler.v1.OttoscalerService/ScaleUp")
                error = await refusal(stub, ONE.SerializeToString(), timeout=20)
                assert error.code() == Code.UNAVAILABLE
        assert len(scene.door.asked) == 1
        await call(scene.stub.ScaleUp, ONE)


@pytest.mark.slow_clock
async def test_a_new_certificate_is_served_without_a_restart(
    certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """The next handshake has the new certificate; a half-done change leaves the old one, and says so."""
    caplog.set_level(logging.INFO, "ottoscaler")
    async with open_door(credentials=certificates.client(), **certificates.settings()) as scene:
        await call(scene.stub.ScaleUp, ONE)

        async def succeeds(credentials: Any) -> None:
            with open_channel(scene.port, credentials) as channel:
                stub: Any = channel.unary_unary("/ottoscaler.v1.OttoscalerService/ScaleUp")
                await call(stub, ONE.SerializeToString(), timeout=20)

        old_key = certificates.key.read_bytes()
        successor = trustme.CA()
        certificates.serve(successor)
        new_key = certificates.key.read_bytes()
        certificates.key.write_bytes(old_key)
        await succeeds(certificates.client())
        assert "the certificate is kept as it was" in caplog.text
        certificates.key.write_bytes(new_key)
        await succeeds(certificates.client(successor))
        assert "certificate read again" in caplog.text


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({"tls_cert": "/c"}, "GRPC_TLS_CERT is '/c', expected GRPC_TLS_KEY with it"),
        ({"tls_key": "/k"}, "GRPC_TLS_KEY is '/k', expected GRPC_TLS_CERT with it"),
        ({"tls_client_ca": "/a"}, "GRPC_TLS_CLIENT_CA is '/a', expected GRPC_TLS_CERT and GRPC_TLS_KEY with it"),
        ({"tls_cert": "/none", "tls_key": "/none"}, "expected a certificate that can be served: .*No such file"),
    ],
)
def test_settings_of_tls_that_do_not_fit_end_the_start(given_: dict[str, str], expected: str) -> None:
    """Half of the files, or files that are not there, are problems of the settings."""
    with pytest.raises(SettingsError, match=expected):
        load_certificates(settings_with(**given_))


def test_a_key_of_another_certificate_ends_the_start(certificates: Certificates) -> None:
    """gRPC itself would say nothing and refuse every handshake."""
    certificates.key.write_bytes(trustme.CA().issue_cert("localhost").private_key_pem.bytes())
    with pytest.raises(SettingsError, match="are not a certificate and its key"):
        load_certificates(settings_with(**certificates.settings()))
    certificates.key.write_text("garbage")
    with pytest.raises(SettingsError, match="are not a certificate and its key"):
        load_certificates(settings_with(**certificates.settings()))


def test_an_authority_without_certificates_ends_the_start(certificates: Certificates) -> None:
    """An empty client authority would let in nobody, or everybody."""
    certificates.client_ca.write_text("")
    with pytest.raises(SettingsError, match="has no certificates"):
        load_certificates(settings_with(**certificates.settings(mutual=True)))
