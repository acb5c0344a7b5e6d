"""`dev`: the lines to copy fit the tools that are there."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ottoscaler.cli.dev import instructions
from ottoscaler.cli.folders import remove_stale


def lines(*tools: str) -> list[str]:
    """The lines to copy on a machine that has these tools."""
    shown = instructions(7000, Path("/tmp/x/kubeconfig"), set(tools).__contains__).splitlines()
    return [line for line in shown if line.startswith("  ") and "export" not in line]


def test_three_lines_are_there_to_copy() -> None:
    """One line each for kubectl, redis-cli and send."""
    kubectl, redis, send = lines("kubectl", "redis-cli")
    assert kubectl == "  KUBECONFIG=/tmp/x/kubeconfig kubectl get pods -w"
    assert redis == "  redis-cli -p 7000 XADD otto:scale:events '*' type scale_up pod_count 3 task_id task-123"
    assert send.startswith("  KUBECONFIG=/tmp/x/kubeconfig REDIS_URL=redis://127.0.0.1:7000/0 ")
    assert send.endswith("/ottoscaler send scale_up --pods 3 --wait")


def test_missing_tools_are_replaced() -> None:
    """Without kubectl our own command watches, without redis-cli bash speaks to Redis."""
    workers, redis, _ = lines()
    assert workers.endswith("/ottoscaler workers -w")
    assert redis == (
        """  bash -c 'exec 3<>/dev/tcp/127.0.0.1/7000; """
        """echo "XADD otto:scale:events * type scale_up pod_count 3 task_id task-123" >&3; head -2 <&3'"""
    )


def test_ports_are_named_where_they_are_served() -> None:
    """With the doors open there is a line to call by gRPC and one with the address of the metrics."""
    shown = instructions(7000, Path("/tmp/x/kubeconfig"), lambda tool: None, http_port=8, grpc_port=9)
    assert "/ottoscaler call scale-up --server 127.0.0.1:9 --workers 3 --wait" in shown
    assert "http://127.0.0.1:8/metrics" in shown


def test_one_line_leads_every_command_there() -> None:
    """The last line exports where commands are and what they look for, so that those of the README work as they are."""
    *_, line = instructions(7000, Path("/tmp/x/kubeconfig"), lambda tool: None, grpc_port=9).splitlines()
    assert line == (
        f"  export PATH={Path(sys.executable).parent}:$PATH KUBECONFIG=/tmp/x/kubeconfig "
        "REDIS_URL=redis://127.0.0.1:7000/0 OTTOSCALER_SERVER=127.0.0.1:9"
    )


def start_dev(folder: Path, **settings: str) -> tuple[subprocess.Popen[str], str]:
    """A `dev` that has printed its lines, and the line that sends an event."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ottoscaler", "dev"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder), **settings},
    )
    assert process.stdout is not None
    return process, next(line for line in process.stdout if "send scale_up" in line)


@pytest.mark.slow_clock
@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_dev_runs_until_it_is_told_to_end(tmp_path: Path, number: signal.Signals) -> None:
    """`dev` prints its lines when all is ready; Ctrl-C or SIGTERM ends everything, leaves no file, and is a success."""
    process, _ = start_dev(tmp_path)
    children = psutil.Process(process.pid).children(recursive=True)
    assert {child.name().partition("-")[0] for child in children} >= {"valkey"}
    process.send_signal(number)
    _, stderr = process.communicate(timeout=40)
    assert (process.returncode, stderr) == (0, "")
    assert psutil.wait_procs(children, timeout=20)[1] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow_clock
@pytest.mark.process
def test_a_second_ctrl_c_ends_the_drain_now(tmp_path: Path) -> None:
    """While the scaler waits for a worker, another Ctrl-C makes it hand over and leave; everything ends in order."""
    process, line = start_dev(tmp_path, WORKER_COMMAND='["sleep", "61"]', DRAIN_SECONDS="60")
    subprocess.run(line.replace("--wait", ""), shell=True, check=True, stdout=subprocess.DEVNULL, timeout=40)
    assert process.stdout is not None
    next(each for each in process.stdout if "worker created" in each)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    begun = next(each for each in process.stdout if "drain begins" in each)
    assert "another signal ends it now" in begun
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=40)
    assert "drain ends now" in stdout
    assert (process.returncode, stderr) == (0, "")
    assert psutil.wait_procs(children, timeout=20)[1] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow_clock
@pytest.mark.process
def test_the_lines_of_workers_are_seen(tmp_path: Path) -> None:
    """`dev` runs an otto-handler, too, and shows what its workers write; calls by gRPC are answered."""
    process, _ = start_dev(tmp_path, WORKER_COMMAND='["echo", "hello"]', OTTO_AGENT_IMAGE="busybox")
    assert process.stdout is not None
    call = next(line for line in process.stdout if " call scale-up " in line)
    done = subprocess.run(call, shell=True, check=True, capture_output=True, text=True, timeout=40)
    names = done.stdout.split()
    assert len(names) == 3
    export = next(line for line in process.stdout if line.startswith("  export "))
    plain = subprocess.run(f"{export}ottoscaler status", shell=True, capture_output=True, text=True, timeout=40)
    assert (plain.returncode, plain.stderr) == (0, "")
    wanted = {f"{name} | hello" for name in names}
    for line in process.stdout:
        wanted.discard(line.strip())
        if not wanted:
            break
    file = tmp_path / "two.yaml"
    file.write_text(
        "stages: [{stage_id: a, type: test, worker_count: 1}, {stage_id: b, worker_count: 1, depends_on: [a]}]"
    )
    ours, server = call.split(" call ")[0], call.split("--server ")[1].split()[0]
    for words in (f"pipeline {file}", "status --state succeeded"):
        line = f"{ours} call {words} --server {server}"
        done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=40)
        assert done.returncode == 0, done.stderr
    assert done.stderr == "5 workers, 0 pending, 0 running, 5 succeeded, 0 failed, 0 terminated\n"
    file.unlink()
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=40)
    assert (process.returncode, stderr) == (0, "")


@pytest.mark.slow_clock
@pytest.mark.process
def test_a_handler_that_ends_ends_dev(tmp_path: Path) -> None:
    """A killed otto-handler is said, and everything ends in order, as when any other part of it ends."""
    process, _ = start_dev(tmp_path)
    children = psutil.Process(process.pid).children(recursive=True)
    next(child for child in children if "handler" in child.cmdline()).kill()
    _, stderr = process.communicate(timeout=40)
    assert process.returncode == 1
    assert stderr.startswith("ottoscaler: handler ended (exit code -9)")
    assert psutil.wait_procs(children, timeout=20)[1] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow_clock
@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_what_a_killed_dev_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """`kill -9` of dev ends its programs; its folder is removed when another starts, one in use is not."""
    process, _ = start_dev(tmp_path)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate(timeout=40)
    assert psutil.wait_procs(children, timeout=20)[1] == []
    (stale,) = tmp_path.iterdir()
    one, _ = start_dev(tmp_path)
    (used,) = tmp_path.iterdir()
    assert used != stale
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(tmp_path))
        (tmp_path / "ottoscaler-of-somebody-else").mkdir()
        remove_stale("ottoscaler-")
    assert len(list(tmp_path.iterdir())) == 2
    one.terminate()
    one.communicate(timeout=40)
    assert [file.name for file in tmp_path.iterdir()] == ["ottoscaler-of-somebody-else"]
