"""`forward`: the command runs as if it were alone, and what it writes reaches the handler, too."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ottoscaler.cli import main
from ottoscaler.otto_handler.behaviour import Behaviour
from ottoscaler.otto_handler.server import OttoHandler, open_otto_handler
from ottoscaler.otto_handler.store import Told

pytestmark = [pytest.mark.process, pytest.mark.slow_clock]
FORWARD = [sys.executable, "-m", "ottoscaler", "forward"]
FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
STOPS = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT}
HELD = {*FAULTS, *STOPS, signal.SIGKILL, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ}


class Stage:
    """A handler in this process and what it took."""

    def __init__(self, handler: OttoHandler, taken: list[dict[str, Any]]) -> None:
        self.handler = handler
        self.taken = taken

    @property
    def environ(self) -> dict[str, str]:
        """What leads there, as a pod has it."""
        return {**os.environ, "OTTO_HANDLER_HOST": f"127.0.0.1:{self.handler.port}", "HOSTNAME": "otto-agent-1"}

    def run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Run to the end."""
        return subprocess.run([*FORWARD, *arguments], capture_output=True, env=self.environ, timeout=30, **options)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start, with pipes."""
        return subprocess.Popen([*FORWARD, *arguments], stdout=-1, stderr=-1, env=self.environ, **options)

    def lines(self, source: str) -> list[str]:
        """The messages of a source, in order."""
        return [record["message"] for record in self.taken if record["source"] == source]


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A handler that takes everything."""
    taken: list[dict[str, Any]] = []
    sink = Told(lambda rpc, record: taken.append(record) if rpc == "StreamLogs" else None)
    with open_otto_handler(sink) as handler:
        yield Stage(handler, taken)


def script(text: str) -> list[str]:
    """The arguments that run a shell script."""
    return ["--", "sh", "-c", text]


def test_output_and_exit_code_are_the_commands(stage: Stage) -> None:
    """stdout, stderr and exit code come through unchanged, byte by byte, and every line reaches the handler."""
    done = stage.run(*script(r"printf 'a\nb\377\n\nlast'; printf 'err\n' >&2; exit 7"))
    assert (done.returncode, done.stdout, done.stderr) == (7, b"a\nb\xff\n\nlast", b"err\n")
    assert stage.lines("stdout") == ["a", "b\\xff", "", "last"]
    assert stage.lines("stderr") == ["err"]
    assert {record["worker_id"] for record in stage.taken} == {"otto-agent-1"}


def test_flags_win_over_the_environment(stage: Stage, tmp_path: Path) -> None:
    """Worker and task can be named; what is behind `--` is the command's."""
    done = stage.run("--worker-id", "w", "--task-id", "t", "--", "echo", "--worker-id", "--", "x")
    assert done.stdout == b"--worker-id -- x\n"
    assert [(record["worker_id"], record["task_id"]) for record in stage.taken] == [("w", "t")]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--", "no-such-command"], 127, "no-such-command: No such file or directory"),
        (["--", "/etc/passwd"], 126, "/etc/passwd: Permission denied"),
        ([], 2, "expected a command behind --, as in: ottoscaler forward -- make test"),
        (["--token-file", "/nowhere", "--", "true"], 2, "--token-file is '/nowhere': No such file or directory"),
    ],
)
def test_what_cannot_be_run_is_one_sentence(
    arguments: list[str], code: int, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The codes are those of a shell."""
    assert main(["forward", *arguments]) == code
    assert capfd.readouterr() == ("", f"ottoscaler forward: {said}\n")


@pytest.mark.parametrize("content", [b"geheim\xff", b"", b"\n", b"one\ntwo", "gehei\u0301m".encode()])
@pytest.mark.parametrize("command", [["forward", "--", "true"], ["handler"]])
def test_a_file_without_a_token_is_one_sentence(
    command: list[str], content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What can be no token is refused at the start; flag and file are named, and what is in it is not shown."""
    file = tmp_path / "token"
    file.write_bytes(content)
    assert main([command[0], "--token-file", str(file), *command[1:]]) == 2
    said = f"--token-file is {str(file)!r}: expected a token in it, one line of visible ASCII characters\n"
    assert capfd.readouterr() == ("", f"ottoscaler {command[0]}: {said}")


def test_signals_pass_through(stage: Stage) -> None:
    """The command gets each signal and may take its time; its own exit code is what counts."""
    names = ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2"]
    traps = "; ".join(f"trap 'n=$((n + 1)); echo {name}' {name}" for name in names)
    process = stage.start(
        *script(f"n=0; {traps}; echo ready; while [ $n -lt 6 ]; do sleep 2 & wait; kill $! 2>/dev/null; done; exit 9")
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    for name in names:
        process.send_signal(signal.Signals[f"SIG{name}"])
        assert process.stdout.readline() == f"{name}\n".encode()
        time.sleep(0.05)  # the shell waits again, mostly: what comes earlier costs it its nap
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (9, b"", b"")
    assert stage.lines("stdout") == ["ready", *names]


def test_no_signal_ends_forward_alone(stage: Stage) -> None:
    """Whatever can be caught is passed on, real-time signals, too; none of the others leaves the command behind."""
    passed = sorted(signal.valid_signals() - HELD)
    text = f"""
import signal, time
came = []
for number in {list(map(int, passed))}:
    signal.signal(number, lambda number, frame: came.append(number))
print("ready", flush=True)
give_up = time.monotonic() + 20
while len(set(came)) < {len(passed) - 1} and time.monotonic() < give_up:
    time.sleep(0.01)
print("all but SIGTERM", flush=True)
while signal.SIGTERM not in came:
    time.sleep(0.01)
print(*sorted(set(came)), flush=True)
"""
    process = stage.start("--", sys.executable, "-c", text)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    for number in [*FAULTS, *(number for number in passed if number != signal.SIGTERM)]:
        process.send_signal(number)
    assert process.stdout.readline() == b"all but SIGTERM\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, b"")
    assert [int(word) for word in out.split()] == passed


def test_a_command_outside_of_the_foreground_gets_what_comes(stage: Stage) -> None:
    """On a terminal, too, a command with a process group of its own gets SIGINT: the terminal does not send it one."""
    text = "import os, signal; os.setpgid(0, 0); signal.signal(2, lambda *_: os._exit(9)); print(1234); signal.pause()"
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [*FORWARD, "--", sys.executable, "-uc", text], stage.environ)
    shown = b""
    while b"1234" not in shown:
        shown += os.read(terminal, 1000)
    os.kill(pid, signal.SIGINT)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    os.close(terminal)


def test_a_signal_of_the_first_instant_passes_through(stage: Stage) -> None:
    """What arrives while we start is held back and then passed on, at whatever moment of the start."""
    processes = [stage.start("--", "sleep", "300") for _ in range(4)]
    for process in processes:
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
    for process in processes:
        process.communicate(timeout=30)
        assert process.returncode in (143, -signal.SIGTERM)  # the latter before Python has begun


def test_a_killed_command_gives_the_shells_code(stage: Stage) -> None:
    """128 + n, where signal n ended it."""
    assert stage.run(*script("kill -KILL $$")).returncode == 137


def test_a_reader_that_leaves_ends_the_command(stage: Stage) -> None:
    """`forward -- yes | head -1` ends as `yes | head -1` does: the command gets SIGPIPE."""
    process = stage.start("--flush-seconds", "0.1", "--", "yes")
    assert process.stdout is not None
    assert process.stdout.readline() == b"y\n"
    process.stdout.close()
    assert process.wait(timeout=30) == 128 + signal.SIGPIPE
    assert process.stderr is not None
    process.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_ends_nothing(stage: Stage) -> None:
    """Output that cannot be written is said once; lines, signals and the exit code go their way."""
    text = "trap 'echo got TERM; exit 7' TERM; echo ready; echo ready >&2; while :; do sleep 0.05; echo x; done"
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen([*FORWARD, *script(text)], stdout=full, stderr=-1, env=stage.environ)
        deadline = time.monotonic() + 30
        while "x" not in stage.lines("stdout") and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
        silent = subprocess.run([*FORWARD, *script("echo more; exit 5")], stdout=full, stderr=full, env=stage.environ)
    said = b"ottoscaler forward: stdout cannot be written any more: No space left on device\n"
    assert (process.returncode, sorted(err.splitlines(keepends=True))) == (7, [said, b"ready\n"])
    assert silent.returncode == 5
    assert (stage.lines("stdout")[0], stage.lines("stdout")[-2:]) == ("ready", ["got TERM", "more"])


def test_a_grandchild_holds_nobody_up(stage: Stage) -> None:
    """When the command has ended nobody waits for what it left running in the background."""
    done = stage.run(*script("sleep 100 & echo done"))  # which is waited for less long
    assert (done.returncode, done.stdout) == (0, b"done\n")


def test_a_handler_that_is_away_is_only_mentioned(stage: Stage) -> None:
    """Without a handler the command runs as ever; one line at the end says how many lines did not arrive, and why."""
    done = stage.run("--handler", "127.0.0.1:1", "--flush-seconds", "0.1", *script("echo a; echo b; exit 3"))
    assert (done.returncode, done.stdout) == (3, b"a\nb\n")
    said = done.stderr.decode()
    assert said.startswith("ottoscaler forward: 2 of 2 lines did not reach otto-handler: otto-handler 127.0.0.1:1 is")
    assert said.count("\n") == 1


def test_a_stalled_handler_slows_nothing(stage: Stage) -> None:
    """500,000 lines pass beside a handler that takes none, and all of them are counted."""
    stage.handler.control.base = Behaviour(stall=True)
    done = stage.run("--flush-seconds", "0.1", "--", "seq", "1", "500000")
    assert done.stdout == "".join(f"{number}\n" for number in range(1, 500_001)).encode()
    assert b"500000 of 500000 lines did not reach otto-handler" in done.stderr


def test_a_handler_that_comes_back_gets_what_was_held_back(stage: Stage) -> None:
    """Lines written while the handler refuses everything arrive when it takes them again, in order and once."""
    stage.handler.control.base = Behaviour(away=True)
    process = stage.start(*script("for n in 1 2 3 4 5; do echo $n; sleep 0.1; done"))
    time.sleep(0.8)
    stage.handler.control.base = Behaviour()
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, b"1\n2\n3\n4\n5\n", b"")
    assert stage.lines("stdout") == ["1", "2", "3", "4", "5"]


def test_the_end_waits_no_more_after_a_signal(stage: Stage) -> None:
    """When the command has ended and lines are left, a signal ends the waiting for them."""
    stage.handler.control.base = Behaviour(retry=1)
    process = stage.start("--", "echo", "x")
    while not stage.taken or psutil.Process(process.pid).children():  # until it knows that the command has ended
        time.sleep(0.02)
    time.sleep(0.3)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert b"1 of 1 lines did not reach otto-handler" in err
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize("stderr", [subprocess.PIPE, subprocess.STDOUT], ids=["apart", "together"])
def test_a_reader_that_takes_nothing_outlives_no_signal(stage: Stage, stderr: int, tmp_path: Path) -> None:
    """When the command has ended, and who reads its output has stopped, a signal ends us, with the command's code."""
    command = [*FORWARD, *script(f"head -c 300000 /dev/zero | tr '\\0' x; touch {tmp_path}/ended; exit 3")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env=stage.environ)
    while not (tmp_path / "ended").exists():
        time.sleep(0.02)
    time.sleep(0.5)
    assert process.poll() is None
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 3
    assert time.monotonic() - begun < 5
    process.communicate()


def test_without_a_handler_the_command_runs_all_the_same() -> None:
    """Where no handler is named, that is said, and the command runs."""
    environ = {name: value for name, value in os.environ.items() if name != "OTTO_HANDLER_HOST"}
    done = subprocess.run([*FORWARD, "--", "echo", "x"], capture_output=True, env=environ, timeout=20)
    assert (done.returncode, done.stdout) == (0, b"x\n")
    assert done.stderr == b"ottoscaler forward: OTTO_HANDLER_HOST is not set; the output is not sent anywhere\n"


def test_a_wrong_variable_is_said_and_the_command_runs(stage: Stage) -> None:
    """A wrong variable is one sentence at the start; the command runs, and nothing is sent."""
    environ = {**stage.environ, "OTTO_HANDLER_TLS": "ja", "OTTO_HANDLER_TOKEN": "secret"}
    command = [*FORWARD, *script("echo x; exit 3")]
    done = subprocess.run(command, capture_output=True, env=environ, timeout=20)
    assert (done.returncode, done.stdout, stage.taken) == (3, b"x\n", [])
    said = "OTTO_HANDLER_TLS is 'ja': expected true or false; the output is not sent anywhere"
    assert done.stderr.decode() == f"ottoscaler forward: {said}\n"


def test_a_long_line_arrives_whole(stage: Stage) -> None:
    """A line of 3 MB without a newline comes in parts, of which all but the last say that there is more."""
    done = stage.run("--", sys.executable, "-c", "print('x' * 3_000_000, end='')")
    assert len(done.stdout) == 3_000_000
    assert sum(map(len, stage.lines("stdout"))) == 3_000_000
    assert [record["metadata"] for record in stage.taken] == [{"continued": "true"}] * (len(stage.taken) - 1) + [{}]


def test_a_long_line_of_utf_8_is_not_escaped(stage: Stage) -> None:
    """Its parts end between characters, wherever the pieces that were read end."""
    done = stage.run("--", sys.executable, "-c", "import os; os.write(1, 'a€€€'.encode() * 240_000)")
    assert done.returncode == 0
    assert "".join(stage.lines("stdout")) == "a€€€" * 240_000
    assert [record["metadata"] for record in stage.taken] == [{"continued": "true"}] * (len(stage.taken) - 1) + [{}]


def test_ctrl_c_reaches_the_command_once(stage: Stage) -> None:
    """On a terminal Ctrl-C goes to everybody in the foreground: the command gets the terminal's, not ours as well."""
    text = "trap 'echo INT' INT; echo ready; sleep 20 & wait; kill $!; sleep 0.5 & wait; echo end"
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [*FORWARD, *script(text)], stage.environ)
    shown = b""
    while b"ready" not in shown:
        shown += os.read(terminal, 1000)
    os.write(terminal, b"\x03")
    try:
        while piece := os.read(terminal, 1000):
            shown += piece
    except OSError:  # EIO: everybody has gone
        pass
    assert os.waitpid(pid, 0)[1] == 0
    os.close(terminal)
    assert shown.count(b"INT\r\n") == 1
    assert stage.lines("stdout")[-1] == "end"


def test_as_process_1_signals_pass_and_orphans_are_buried(stage: Stage) -> None:
    """As process 1 of a container: SIGTERM reaches the command, orphans leave no zombie, the exit code is right."""
    text = """
    zombies() { grep -l "^State:.Z" /proc/[0-9]*/status 2>/dev/null | wc -l; }
    (sh -c 'sleep 0.1' &)  # its parent ends at once: it is process 1's now
    sleep 0.3; until [ $(zombies) = 0 ] || [ $((n += 1)) -gt 200 ]; do sleep 0.05; done
    trap 'echo zombies: $(zombies); exit 5' TERM
    echo ready; while :; do sleep 0.05; done
    """
    unshare = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*unshare, "true"], capture_output=True, timeout=10).returncode:
        pytest.skip("this machine does not let us start a process as number 1 of its own")
    command = [*unshare, *FORWARD, *script(text)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=stage.environ)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    inside = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(inside[0]), signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (5, b"zombies: 0\n", b"")
    assert stage.lines("stdout") == ["ready", "zombies: 0"]
