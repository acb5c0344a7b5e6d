"""`check`: one line per finding, each failure with its mend."""

import pytest

from ottoscaler import signals
from ottoscaler.cli import main
from ottoscaler.cli.check import NEEDED, WANTED, Finding, ask_api, judge_report, show_all
from ottoscaler.stream.base import ServerReport

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
