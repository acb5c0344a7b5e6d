"""`check`: one line per finding, each failure with its mend."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest
import trio
import trustme

from ottoscaler import signals
from ottoscaler.cli import main
from ottoscaler.cli.check import (
    NEEDED,
    WANTED,
    Finding,
    ask_api,
    judge_report,
    look_at_grpc,
    look_at_handler,
    look_at_policy,
    look_at_ports,
    show_all,
)
from ottoscaler.cli.playground import find_free_port
from ottoscaler.otto_handler.server import open_otto_handler
from ottoscaler.otto_handler.store import Printed
from ottoscaler.settings import Settings, load_settings
from ottoscaler.stream.key_types import SCATTERED
from ottoscaler.stream.safekeeping import ServerReport

ADDRESS = "redis://localhost:6379/0"


def lines(findings: list[Finding]) -> list[str]:
    """What would be printed."""
    return [str(finding) for finding in findings]


def test_a_server_that_loses_nothing_is_fine() -> None:
    """With fsync always and no eviction there is nothing to warn of."""
    report = ServerReport("Valkey 9.1.2", True, "always", "noeviction", "what was acknowledged survives")
    assert lines(judge_report(ADDRESS, report)) == [
        "ok    redis        redis://localhost:6379/0 answers: Valkey 9.1.2",
        "ok    persistence  what was acknowledged survives",
    ]


def test_what_a_server_may_lose_is_a_warning() -> None:
    """A weaker persistence and an eviction policy work, and are named with their mend."""
    report = ServerReport("Redis 7.0.15", True, "everysec", "allkeys-lru", "a crash loses about a second")
    findings = judge_report(ADDRESS, report)
    assert lines(findings) == [
        "ok    redis        redis://localhost:6379/0 answers: Redis 7.0.15",
        "warn  persistence  a crash loses about a second; appendonly yes with appendfsync always loses nothing",
        "warn  eviction     maxmemory-policy is allkeys-lru: a full Redis may drop our keys; set it to noeviction",
    ]
    assert show_all(findings, lambda line: None) == 0


def test_nobody_is_told_to_delete_events() -> None:
    """On a cluster the stream's name is what is wrong, and the key may hold events: only another name is advised."""
    stranger = f"key otto:scale:events {SCATTERED}"
    findings = judge_report(ADDRESS, ServerReport("Valkey 9.1.2", True, "always", None, "", (stranger,)))
    assert lines(findings)[2:] == [f"FAIL  keys         {stranger}; set another REDIS_STREAM"]


def test_a_key_that_is_not_ours_fails() -> None:
    """A key of another type under one of our names is named with its type, what was expected, and the mend."""
    stranger = "key otto:scale:events is a string, expected a stream or nothing"
    findings = judge_report(ADDRESS, ServerReport("Valkey 9.1.2", True, "always", None, "", (stranger,)))
    assert lines(findings)[2:] == [f"FAIL  keys         {stranger}; set another REDIS_STREAM, or delete that key"]
    assert show_all(findings, lambda line: None) == 1


@pytest.mark.parametrize(
    ("version", "verdict"),
    [("Redis 6.0.16", "FAIL"), ("Redis 6.2.0", "ok"), ("Redis 10.0", "ok"), ("Valkey 7.2.5", "ok"), ("?", "ok")],
)
def test_redis_must_be_new_enough(version: str, verdict: str) -> None:
    """Before 6.2 the commands that we need are missing."""
    assert judge_report(ADDRESS, ServerReport(version, True, "always", None, ""))[0].verdict == verdict


class Api:
    """An API that refuses some verbs."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused

    async def version(self) -> str:
        """A fixed one."""
        return "v1.36.0"

    async def review_access(self, namespace: str, verb: str, resource: str, subresource: str = "") -> tuple[bool, str]:
        """Refuse what was named."""
        path = f"{resource}/{subresource}" if subresource else resource
        is_refused = verb in self.refused or f"{verb} {path}" in self.refused
        return not is_refused, "no rule" if is_refused else ""


async def test_every_permission_has_its_line() -> None:
    """Each verb that the scaler needs is asked for; a missing one fails and says what to add."""
    findings = await ask_api(Api("deletecollection"), "https://api", "team-a")
    assert len(findings) == 1 + sum(len(verbs) for _, verbs in (*NEEDED, *WANTED))
    assert lines(findings)[0] == "ok    kubernetes   https://api answers: v1.36.0"
    assert lines(findings)[1] == "ok    permission   create pods in namespace team-a"
    assert lines(findings)[6] == (
        "FAIL  permission   deletecollection pods in namespace team-a is not allowed (no rule); "
        "add the verb deletecollection on pods to the Role of the scaler's account"
    )
    assert show_all(findings, lambda line: None) == 1


async def test_the_right_to_read_warnings_is_a_wish() -> None:
    """Without it the scaler works, so it is a warning that says what is lost."""
    findings = await ask_api(Api("watch events"), "https://api", "team-a")
    assert lines(findings)[-1] == (
        "warn  permission   watch events in namespace team-a is not allowed (no rule): "
        "LivenessFailed and MountFailed cannot be told; "
        "add the verb watch on events to the Role of the scaler's account"
    )
    assert show_all(findings, lambda line: None) == 0


async def test_the_right_to_read_logs_is_a_wish() -> None:
    """Without it no log is forwarded, and all else works."""
    findings = await ask_api(Api("get pods/log"), "https://api", "team-a")
    assert lines([each for each in findings if each.verdict != "ok"]) == [
        "warn  permission   get pods/log in namespace team-a is not allowed (no rule): "
        "logs of workers cannot be forwarded; add the verb get on pods/log to the Role of the scaler's account"
    ]


async def test_the_right_to_read_logs_is_needed_where_they_are_followed() -> None:
    """With somewhere for logs to go, being unable to read them is a failure."""
    findings = await ask_api(Api("get pods/log"), "https://api", "team-a", follows_logs=True)
    assert lines([each for each in findings if each.verdict != "ok"]) == [
        "FAIL  permission   get pods/log in namespace team-a is not allowed (no rule): "
        "logs of workers cannot be forwarded; add the verb get on pods/log to the Role of the scaler's account"
    ]


async def found(look: Callable[[Settings], AsyncIterator[Finding]], **settings: str) -> list[str]:
    """What one look would print."""
    return lines([finding async for finding in look(load_settings({}, settings))])


async def test_a_policy_is_read(tmp_path: Path) -> None:
    """A policy that serve would refuse is named with its file; without one nothing is said."""
    file = tmp_path / "policy.yaml"
    file.write_text("version: 1\n")
    assert await found(look_at_policy) == []
    assert await found(look_at_policy, POLICY_FILE=str(file)) == [f"ok    policy       {file} can be used"]
    file.write_text("version: 2\nimage: [x]\n")
    bad = await found(look_at_policy, POLICY_FILE=str(file))
    assert len(bad) == 2
    assert all(line.startswith("FAIL  policy       ") and str(file) in line for line in bad)


async def test_the_files_of_grpc_are_read(tmp_path: Path) -> None:
    """All of them are judged at once, unless the door stays shut."""
    wrong = {"GRPC_TOKENS_FILE": "/nowhere/tokens", "GRPC_TLS_CERT": "/nowhere/cert"}
    bad = await found(look_at_grpc, **wrong)
    assert [line.split("'")[0] for line in bad] == [
        "FAIL  grpc         GRPC_TOKENS_FILE is ",
        "FAIL  grpc         GRPC_TLS_CERT is ",
    ]
    assert await found(look_at_grpc, GRPC_ENABLED="false", **wrong) == []
    assert await found(look_at_grpc) == []
    tokens = tmp_path / "tokens.yaml"
    tokens.write_text(f"- {{name: one, sha256: {'a' * 64}, roles: [read]}}\n")
    assert await found(look_at_grpc, GRPC_TOKENS_FILE=str(tokens)) == [f"ok    grpc         {tokens} can be used"]


async def test_ports_are_tried() -> None:
    """A free port is told, one in use is a note, an address of another machine fails."""
    free = find_free_port()
    asked = {"HTTP_HOST": "127.0.0.1", "HTTP_PORT": str(free), "GRPC_ENABLED": "false"}
    assert await found(look_at_ports, **asked) == [f"ok    port         HTTP_PORT {free} on 127.0.0.1 is free"]
    (listener,) = await trio.open_tcp_listeners(free, host="127.0.0.1")
    async with listener:
        assert await found(look_at_ports, **asked) == [
            f"note  port         HTTP_PORT {free} on 127.0.0.1 is in use: by a scaler that runs here, or not"
        ]
    (away,) = await found(look_at_ports, **asked | {"HTTP_HOST": "192.0.2.1"})
    assert away.startswith("FAIL  port         HTTP_HOST is '192.0.2.1', expected an address of this machine (")
    assert await found(look_at_ports, HTTP_PORT="0", GRPC_ENABLED="false") == []


@pytest.mark.parametrize(
    ("http", "grpc", "is_refused"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("0.0.0.0", "0.0.0.0", True),
        ("127.0.0.1", "[::]", True),
        ("127.0.0.2", "127.0.0.1", False),
    ],
)
async def test_two_doors_at_one_port_are_refused(http: str, grpc: str, is_refused: bool) -> None:
    """Each port alone may be free: `serve` opens both, and where the addresses overlap the second one fails."""
    port = str(find_free_port())
    asked = {"HTTP_HOST": http, "HTTP_PORT": port, "GRPC_HOST": grpc, "GRPC_PORT": port, "GRPC_INSECURE": "true"}
    refused = f"FAIL  port         HTTP_PORT and GRPC_PORT are both {port}, expected two ports"
    assert (refused in await found(look_at_ports, **asked)) is is_refused
    for without in ({"GRPC_ENABLED": "false"}, {"HTTP_PORT": "0"}):
        assert refused not in await found(look_at_ports, **asked | without)


async def test_a_grpc_door_that_only_this_machine_reaches_is_a_note() -> None:
    """Plain text that was not allowed is served to this machine only, which may surprise."""
    asked = {"HTTP_PORT": "0", "GRPC_PORT": str(find_free_port())}
    assert (await found(look_at_ports, **asked))[1] == (
        "note  port         gRPC is served on 127.0.0.1 only, as its calls are plain text; "
        "give GRPC_TLS_CERT, or allow it with GRPC_INSECURE=true"
    )
    assert len(await found(look_at_ports, GRPC_INSECURE="true", **asked)) == 1


@pytest.mark.slow_clock
async def test_the_handler_is_asked(tmp_path: Path, nursery: trio.Nursery) -> None:
    """An otto-handler must be reached and speak HTTP/2, by TLS where that is set; without one nothing is asked."""
    assert await found(look_at_handler) == []
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    chain = b"".join(part.bytes() for part in certificate.cert_chain_pems)
    secure = {"OTTO_HANDLER_TLS": "true", "OTTO_HANDLER_CA": str(tmp_path / "ca.pem")}
    mend = "; check OTTO_HANDLER_HOST, OTTO_HANDLER_TLS and OTTO_HANDLER_CA, and that otto-handler runs"
    with (
        open_otto_handler(Printed()) as plain,
        open_otto_handler(Printed(), certificate=(certificate.private_key_pem.bytes(), chain)) as secured,
    ):
        at, at_tls = f"127.0.0.1:{plain.port}", f"localhost:{secured.port}"
        assert await found(look_at_handler, OTTO_HANDLER_HOST=at) == [
            f"ok    handler      otto-handler at {at} answers by HTTP/2"
        ]
        assert await found(look_at_handler, OTTO_HANDLER_HOST=at_tls, **secure) == [
            f"ok    handler      otto-handler at {at_tls} answers by TLS and HTTP/2"
        ]
        for wrong in ({"OTTO_HANDLER_HOST": at} | secure, {"OTTO_HANDLER_HOST": at_tls, "OTTO_HANDLER_TLS": "true"}):
            (bad,) = await found(look_at_handler, **wrong)
            assert bad.startswith(f"FAIL  handler      otto-handler at {wrong['OTTO_HANDLER_HOST']}: ")
            assert bad.endswith(mend)
    (bad,) = await found(look_at_handler, OTTO_HANDLER_HOST=f"127.0.0.1:{find_free_port()}")
    assert bad.startswith("FAIL  handler      otto-handler at 127.0.0.1:")
    assert bad.endswith(mend)


@pytest.mark.slow_clock
async def test_what_is_no_handler_fails(tmp_path: Path, nursery: trio.Nursery) -> None:
    """A server of another protocol is told from an otto-handler, and a file that is no authority is named."""

    async def refuse(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await stream.aclose()

    (listener,) = await nursery.start(partial(trio.serve_tcp, refuse, 0, host="127.0.0.1"))
    address = f"127.0.0.1:{listener.socket.getsockname()[1]}"
    (bad,) = await found(look_at_handler, OTTO_HANDLER_HOST=address)
    assert bad.startswith(f"FAIL  handler      otto-handler at {address}: it does not speak HTTP/2; check ")
    (bad,) = await found(look_at_handler, OTTO_HANDLER_HOST=address, OTTO_HANDLER_CA=__file__)
    assert bad.startswith(f"FAIL  handler      OTTO_HANDLER_CA is '{__file__}', expected certificates in PEM (")


def test_a_retry_policy_is_looked_at(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A cause that does not exist is a wrong setting."""
    monkeypatch.setattr(signals, "restore_signals", lambda: None)
    assert main(["check", "--retry-policy", '{"Evictd": "final"}']) == 1
    assert capsys.readouterr().out == (
        "FAIL  settings     RETRY_POLICY names 'Evictd', expected a cause; did you mean Evicted?\n"
    )


def test_wrong_settings_are_lines_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wrong setting is one failing line, and nothing else is tried."""
    monkeypatch.setattr(signals, "restore_signals", lambda: None)
    assert main(["check", "--redis-port", "x", "--max-workers", "0"]) == 1
    assert capsys.readouterr().out == (
        "FAIL  settings     --redis-port is 'x', expected a whole number from 1 to 65535\n"
        "FAIL  settings     --max-workers is '0', expected a whole number from 1 to 100000\n"
    )
