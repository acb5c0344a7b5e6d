"""What a failing start leaves for `kubectl describe pod`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ottoscaler.cli import main
from ottoscaler.termination_log import MAX_BYTES, write_termination_log

WRONG = "REDIS_PORT is 'x', expected a whole number from 1 to 65535"


def test_a_wrong_setting_is_left_as_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands on stderr also stands there, in place of what another start left."""
    file = tmp_path / "termination-log"
    file.write_text("what the start before said, which was longer than what is said now, by quite a lot of words")
    monkeypatch.setenv("TERMINATION_LOG", str(file))
    monkeypatch.setenv("REDIS_PORT", "x")
    assert main(["serve"]) == 2
    assert file.read_text() == WRONG


def test_without_the_file_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of a container there is none, and the start fails as it would."""
    monkeypatch.setenv("TERMINATION_LOG", str(tmp_path / "none"))
    write_termination_log("words")
    assert list(tmp_path.iterdir()) == []


def test_no_more_is_written_than_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many problems are cut at a character, not within one."""
    file = tmp_path / "termination-log"
    file.touch()
    monkeypatch.setenv("TERMINATION_LOG", str(file))
    write_termination_log("x" + "ä" * MAX_BYTES)
    assert file.read_text("utf-8") == "x" + "ä" * ((MAX_BYTES - 1) // 2)


@pytest.mark.process
def test_a_start_that_reaches_no_redis_says_so(tmp_path: Path) -> None:
    """A real process whose Redis stays away leaves a sentence that names it."""
    file = tmp_path / "termination-log"
    file.touch()
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\n"
        "contexts: [{name: c, context: {cluster: c}}]\n"
        "current-context: c\n"
    )
    ours = {"REDIS_URL": "redis://127.0.0.1:1", "KUBECONFIG": str(kubeconfig), "TERMINATION_LOG": str(file)}
    ours |= {"HTTP_PORT": "0", "GRPC_ENABLED": "false", "STARTUP_TIMEOUT_SECONDS": "0.1"}
    command = (sys.executable, "-m", "ottoscaler", "serve")
    done = subprocess.run(command, capture_output=True, env={**os.environ, **ours}, timeout=20)
    assert done.returncode == 1
    assert "Redis at redis://127.0.0.1:1/0 was not reached within 0.1 s" in file.read_text()
