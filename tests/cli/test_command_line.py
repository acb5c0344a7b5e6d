"""The command line: what users see who ask for help, mistype, or stop a command; and how fast it starts."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ottoscaler import __version__
from ottoscaler.cli import COMMANDS, build_parser, main

HEAVY = {"rich", "httpx", "redis", "trio", "yaml", "msgspec", "pydantic", "typer", "grpc", "argcomplete", "hypercorn"}


def run(
    arguments: Sequence[str], environ: dict[str, str] | None = None, before: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own; `before` is Python that runs first."""
    program = f"import sys; sys.argv = {['ottoscaler', *arguments]!r}\n{before}\n"
    program += "from ottoscaler.__main__ import main\nsys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, **(environ or {})},
        timeout=30,
    )


def test_version_is_one_line_and_light() -> None:
    """`ottoscaler --version` prints the version and imports nothing heavy."""
    show = "import atexit; atexit.register(lambda: print(*sys.modules, file=sys.stderr))"
    done = run(["--version"], before=show)
    assert (done.returncode, done.stdout) == (0, f"ottoscaler {__version__}\n")
    assert not HEAVY & set(done.stderr.split())


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_lists_every_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Without arguments, and with --help, every command is shown with one line of what it does."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, summary in COMMANDS.items():
        assert f"{name} {summary}" in shown


def test_an_unknown_command_is_refused_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped command gives one sentence with the nearest one, and exit code 2."""
    assert main(["sned"]) == 2
    assert capsys.readouterr().err == "ottoscaler: there is no command 'sned'; did you mean send?\n"


def test_an_unknown_command_without_a_near_one_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing is near, the sentence names all commands."""
    assert main(["xyzzy"]) == 2
    assert capsys.readouterr().err == f"ottoscaler: there is no command 'xyzzy'; there are {', '.join(COMMANDS)}\n"


def test_a_wrong_argument_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """What argparse refuses is one line with where help is, and exit code 2."""
    with pytest.raises(SystemExit) as end:
        main(["completion", "tcsh"])
    assert end.value.code == 2
    assert capsys.readouterr().err.replace("'", "") == (  # some versions of Python quote the choices, some do not
        "ottoscaler completion: argument shell: invalid choice: tcsh (choose from bash, zsh, fish) "
        "(see ottoscaler completion --help)\n"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["serve", "--max-worker", "3"], "ottoscaler serve: unrecognized arguments: --max-worker 3"),
        (["dlq", "drop", "--all", "--cause=x"], "ottoscaler dlq drop: unrecognized arguments: --cause=x"),
        (["results", "--last", "-3"], "ottoscaler results: argument --last: '-3': expected a whole number from 0"),
    ],
)
def test_the_command_itself_refuses(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What a command does not know is refused in its own name, with the help that lists what it knows."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    name = sentence.partition(":")[0]
    assert capsys.readouterr().err == f"{sentence} (see {name} --help)\n"


def test_a_cluster_that_is_not_installed_says_what_is_missing() -> None:
    """Without the extra, as in the image, `localcluster` is one sentence with the line that installs it."""
    done = run(["localcluster"], before="sys.modules['trustme'] = None")
    assert (done.returncode, done.stderr) == (
        1,
        "ottoscaler: trustme is not installed: pip install 'ottoscaler[local]'\n",
    )


def test_wrong_settings_end_serve_with_every_problem() -> None:
    """`serve` exits 2 and names variable or flag, value and expectation of each wrong setting; no traceback."""
    done = run(["serve", "--lease-seconds", "soon"], {"REDIS_PORT": "x", "REDIS_PASSWORD": "hunter2"})
    assert done.returncode == 2
    assert done.stderr == (
        "ottoscaler: REDIS_PORT is 'x', expected a whole number from 1 to 65535\n"
        "ottoscaler: --lease-seconds is 'soon', expected a number of seconds from 0.1 to 3600\n"
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each of the three shells gets its script."""
    assert main(["completion", shell]) == 0
    assert "ottoscaler" in capsys.readouterr().out


def test_completion_offers_flags(tmp_path: Path) -> None:
    """What the script asks of the program is answered with the flags of the command."""
    answer = tmp_path / "answer"
    line = "ottoscaler serve --redis-h"
    done = run(
        ["serve"],
        {
            "_ARGCOMPLETE": "1",
            "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
            "COMP_LINE": line,
            "COMP_POINT": str(len(line)),
        },
    )
    assert done.returncode == 0, done.stderr
    assert answer.read_text().strip() == "--redis-host"


def test_every_command_can_be_described() -> None:
    """Every command's module is there, with `configure` and `run`."""
    build_parser(COMMANDS)


@pytest.mark.slow_clock
def test_a_reader_that_leaves_is_no_error() -> None:
    """`ottoscaler … | head -0` ends without a word on stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen(
        [sys.executable, "-m", "ottoscaler", "completion", "bash"], stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    assert process.communicate(timeout=20)[1] == b""
    assert process.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_is_one_sentence() -> None:
    """Output that cannot be written ends a command with code 1 and why, not with a traceback."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ottoscaler", "explain"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=20
        )
    assert (done.returncode, done.stderr) == (
        1,
        "ottoscaler: the output cannot be written: No space left on device\n",
    )


def test_what_the_locale_cannot_write_is_escaped() -> None:
    """A name in other letters than the terminal's is shown escaped, and ends nothing."""
    show = "import ottoscaler.cli; ottoscaler.cli.main = lambda argv: print('서울') or 0"
    done = run([], {"PYTHONIOENCODING": "ascii"}, before=show)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\uc11c\\uc6b8\n", "")


def test_closed_standard_files_do_not_lend_their_numbers() -> None:
    """Started with stdin, stdout and stderr closed, no file opened later gets their numbers."""
    close = "import os; os.closerange(0, 3)"
    look = f"{close}\nfrom ottoscaler.cli import main as cli\n"
    look += "import ottoscaler.cli; ottoscaler.cli.main = lambda argv: os.open('/dev/null', os.O_RDONLY)"
    assert run([], before=look).returncode == 3


READY = """
import ottoscaler.cli, ottoscaler.signals, os, time
class module:
    HANDLES_SIGNALS = {handles}
    configure = staticmethod(lambda parser: None)
    @staticmethod
    def run(args):
        print("ready", ottoscaler.signals.first_signal(), flush=True)
        if {handles}: return 0
        time.sleep(20)
ottoscaler.cli.import_module = lambda name: module
"""


@pytest.mark.slow_clock
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_plain_command_quietly(number: signal.Signals, code: int) -> None:
    """Ctrl-C and SIGTERM end a command with the usual codes and without a traceback."""
    program = f"import sys; sys.argv = ['ottoscaler', 'check']\n{READY.format(handles=False)}"
    program += "from ottoscaler.__main__ import main\nsys.exit(main())"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    assert process.communicate(timeout=30) == (b"", b"")
    assert process.returncode == code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_of_the_first_instant_is_remembered(number: signal.Signals) -> None:
    """What arrives while the imports are under way neither kills nor is lost: serve finds it."""
    early = f"from ottoscaler import __main__; import signal; signal.raise_signal({int(number)})\n"
    done = run(["serve"], before=early + READY.format(handles=True))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"ready {int(number)}\n", "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_of_the_first_instant_ends_a_plain_command(number: signal.Signals, code: int) -> None:
    """A plain command that was told to end while it was starting does not begin."""
    early = f"from ottoscaler import __main__; import signal; signal.raise_signal({int(number)})\n"
    done = run(["check"], before=early + READY.format(handles=False))
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_signals_are_handled_before_other_imports() -> None:
    """Until its handlers are in place, the entry has imported nothing but `signal`."""
    root = str(Path(__file__).parents[2])
    note = "import ottoscaler.signals; ottoscaler.signals.note_signals()"
    loaded = [
        subprocess.run(
            [sys.executable, "-S", "-c", f"import sys, {name}; print(*sys.modules)"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": root},
        ).stdout.split()
        for name in ("signal", "signal; " + note)
    ]
    assert set(loaded[1]) - set(loaded[0]) == {"ottoscaler", "ottoscaler.signals"}


@pytest.mark.slow_clock
def test_a_blocked_signal_is_let_in() -> None:
    """A starter may block SIGTERM over the start of Python: the signal waits, and is then remembered."""
    program = f"import sys; sys.argv = ['ottoscaler', 'serve']\n{READY.format(handles=True)}"
    program += "from ottoscaler.__main__ import main\nsys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", f"import time; time.sleep(0.2)\n{program}"],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]),
    )
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30)[0] == f"ready {int(signal.SIGTERM)}\n".encode()
    assert process.returncode == 0
