"""`ottoscaler localcluster` as a command: the ready line, the end by a signal, and mistakes in the call."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml

pytestmark = [pytest.mark.process, pytest.mark.slow_clock]

COMMAND = [sys.executable, "-m", "ottoscaler", "localcluster"]


def _is_running(marker: str) -> bool:
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if marker.encode() in words:
            return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all(tmp_path: Path, number: int) -> None:
    """One ready line; pods run; a signal ends the command with 0 within a second or so, and its pods' processes."""
    kubeconfig, marker = tmp_path / "kubeconfig", f"64738{os.getpid():07}{int(number):03}"
    command = [*COMMAND, "--kubeconfig", str(kubeconfig), "--data", str(tmp_path / "data")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as cluster:
        assert cluster.stdout is not None
        assert re.search(r"\bready\b", cluster.stdout.readline())
        config = yaml.safe_load(kubeconfig.read_text())
        ca = tmp_path / "data" / "authority.pem"
        headers = {"authorization": f"Bearer {config['users'][0]['user']['token']}"}
        container = {"name": "c", "image": "busybox", "command": ["sleep", marker]}
        pod = {"metadata": {"name": "p"}, "spec": {"containers": [container]}}
        url = config["clusters"][0]["cluster"]["server"] + "/api/v1/namespaces/default/pods"
        trust = ssl.create_default_context(cafile=str(ca))
        assert httpx.post(url, json=pod, headers=headers, verify=trust, timeout=30).status_code == 201
        deadline = time.monotonic() + 30
        while not _is_running(marker) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert _is_running(marker)
        cluster.send_signal(number)
        out, errors = cluster.communicate(timeout=30)
    assert (cluster.returncode, out, errors) == (0, "", "")
    deadline = time.monotonic() + 20
    while _is_running(marker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _is_running(marker)


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    """What is no port or delay is refused with 2, a port that is taken with 1: in one line."""
    for flag, expected in (("--port", "a port"), ("--start-delay", "a number of seconds from 0 to 3600")):
        wrong = subprocess.run([*COMMAND, flag, "x"], capture_output=True, text=True, timeout=40, check=False)
        assert wrong.returncode == 2
        assert f"'x': expected {expected}" in wrong.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [*COMMAND, "--port", port, "--data", str(tmp_path)]
        busy = subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)
    assert busy.returncode == 1
    assert busy.stderr == f"ottoscaler localcluster: --port is {port}, expected one that is free on 127.0.0.1\n"
    for flag, place in (("--data", tmp_path / "file" / "x"), ("--kubeconfig", tmp_path)):
        (tmp_path / "file").touch()
        command = [*COMMAND, flag, str(place)]
        wrong = subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)
        assert wrong.returncode == 1
        assert re.fullmatch(rf"ottoscaler localcluster: {place}: [\w ]+\n", wrong.stderr), wrong.stderr
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}.*"))
