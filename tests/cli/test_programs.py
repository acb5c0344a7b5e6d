"""Child programs: waited for until ready, and ended whatever happens to the command that started them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from ottoscaler.cli.playground import find_free_port, open_valkey, without_settings
from ottoscaler.cli.programs import Impatience, Program, ProgramFailed, open_program

pytestmark = [pytest.mark.slow_clock, pytest.mark.process]


def python(program: str) -> Sequence[str]:
    """A command that runs a short Python program without site packages."""
    return [sys.executable, "-S", "-u", "-c", program]


STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('is ready'); time.sleep(60)"


async def test_a_program_runs_while_its_block_does(nursery: trio.Nursery) -> None:
    """The block is entered at the ready line, its lines are shown in order, and at the end the program is ended."""
    lines: list[str] = []
    command = python("print('hello'); print('is ready'); import time; time.sleep(60)")
    async with open_program(nursery, "it", command, ready="ready$", show=lines.append) as program:
        assert lines == ["hello", "is ready"]
        assert program.process.poll() is None
    assert program.process.returncode == -signal.SIGTERM


async def test_a_program_that_ignores_sigterm_is_killed(nursery: trio.Nursery) -> None:
    """When its grace is over a program is ended by SIGKILL."""
    async with open_program(nursery, "it", python(STUBBORN), ready="ready", grace_seconds=0.2) as program:
        pass
    assert program.process.returncode == -signal.SIGKILL


async def test_a_cancelled_command_ends_its_programs(nursery: trio.Nursery) -> None:
    """A cancel in the middle of the block ends the program all the same."""
    seen: list[Program] = []
    with trio.CancelScope() as scope:
        async with open_program(nursery, "it", python(STUBBORN), ready="ready", grace_seconds=0.1) as program:
            seen.append(program)
            scope.cancel(reason="test")
            await trio.sleep_forever()
    assert seen[0].process.returncode == -signal.SIGKILL


TELLING = (
    "import signal, time; signal.signal(signal.SIGTERM, lambda *_: print('SIGTERM', flush=True))\n"
    "print('is ready')\nwhile True: time.sleep(60)"
)


async def test_who_insists_is_obeyed_at_once(nursery: trio.Nursery) -> None:
    """The second signal is a SIGTERM for those named alone, the third ends every program however long its grace is."""
    impatience = Impatience("hurried")
    seen: list[Program] = []

    async def run(name: str) -> None:
        command = python(TELLING)
        async with open_program(
            nursery, name, command, ready="ready", grace_seconds=60, opened=impatience.note
        ) as program:
            seen.append(program)

    async def hear(times: int) -> None:
        while sum(program.tail.count("SIGTERM") for program in seen) < times:  # noqa: ASYNC110 - lines tell nobody
            await trio.sleep(0.01)

    with trio.fail_after(30):
        async with trio.open_nursery() as running:
            running.start_soon(run, "hurried")
            running.start_soon(run, "other")
            await hear(2)
            impatience.insist(2)
            await hear(3)
            assert {program.name: program.tail.count("SIGTERM") for program in seen} == {"hurried": 2, "other": 1}
            impatience.insist(3)
    assert [program.process.returncode for program in seen] == [-signal.SIGKILL] * 2


async def test_a_program_that_ends_early_is_named_with_its_last_words(nursery: trio.Nursery) -> None:
    """The error names program, exit code and what it said last."""
    with pytest.raises(ProgramFailed) as caught:
        async with open_program(nursery, "it", python("print('no luck'); raise SystemExit(3)"), ready="ready"):
            raise AssertionError("entered")
    assert str(caught.value) == "it did not get ready (exit code 3): no luck"


async def test_the_last_words_of_a_json_log_are_shown_as_words(nursery: trio.Nursery) -> None:
    """Of a JSON line the message and its reason are shown, and of a traceback its last line."""
    for line, words in (
        ({"message": "cannot serve", "reason": "Redis is away"}, "cannot serve: Redis is away"),
        ({"message": "crashed", "error": "Traceback\n  | KeyError: 1\n  +----\n"}, "crashed: KeyError: 1"),
    ):
        with pytest.raises(ProgramFailed) as caught:
            async with open_program(nursery, "it", python(f"print({json.dumps(line)!r})"), ready="never"):
                raise AssertionError("entered")
        assert str(caught.value) == f"it did not get ready (exit code 0): {words}"


async def test_a_program_that_says_nothing_is_given_up(nursery: trio.Nursery) -> None:
    """A program that is not ready in time is ended, and the error says so."""
    with pytest.raises(ProgramFailed, match=r"^it did not get ready$"):
        async with open_program(nursery, "it", python("import time; time.sleep(60)"), ready="x", ready_seconds=0.1):
            raise AssertionError("entered")


async def test_a_missing_program_is_named(nursery: trio.Nursery) -> None:
    """A program that is not there gives a sentence with its path."""
    with pytest.raises(ProgramFailed, match=r"^it cannot be started: /nowhere: No such file or directory$"):
        async with open_program(nursery, "it", ["/nowhere"], ready="x"):
            raise AssertionError("entered")


async def test_wait_returns_when_the_program_ends(nursery: trio.Nursery) -> None:
    """The end of a program is noticed, with its exit code."""
    async with open_program(nursery, "it", python("print('ready'); raise SystemExit(7)"), ready="ready") as program:
        with trio.fail_after(30):
            assert await program.wait() == 7


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_a_killed_command_takes_its_programs_along(tmp_path: Path) -> None:
    """Even `kill -9` of the command leaves no program behind."""
    command = """
import trio
from ottoscaler.cli.programs import open_program
async def main():
    async with trio.open_nursery() as nursery:
        async with open_program(nursery, "it", ["sleep", "60"], ready="x", ready_seconds=60) as program: pass
async def tell():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(main)
        await trio.sleep(0.2)
        import subprocess
        print("started", flush=True)
trio.run(tell)
"""
    process = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 1
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while _lives(int(children[0])) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _lives(int(children[0]))


def _lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody waits for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_valkey_keeps_what_it_answered(nursery: trio.Nursery, tmp_path: Path) -> None:
    """What Valkey acknowledged is there after `kill -9` and a start on the same folder and port."""
    port = find_free_port()
    async with open_valkey(nursery, tmp_path / "data", port) as valkey:
        assert await ask(port, "SET", "key", "value") == b"+OK\r\n"
        os.kill(valkey.process.pid, signal.SIGKILL)
        await valkey.wait()
    async with open_valkey(nursery, tmp_path / "data", port):
        assert await ask(port, "GET", "key") == b"$5\r\nvalue\r\n"


async def ask(port: int, *words: str) -> bytes:
    """One command over the wire, as bytes of the answer."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        parts = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        await stream.send_all(f"*{len(words)}\r\n{parts}".encode())
        return bytes(await stream.receive_some())


def test_a_shell_set_up_for_a_real_cluster_does_not_reach_the_playground() -> None:
    """Settings of the surrounding shell are not handed to what runs on this machine alone."""
    assert without_settings({"REDIS_URL": "redis://production", "KUBECONFIG": "/real", "HOME": "/h"}) == {"HOME": "/h"}
