"""`ottoscaler forward -- COMMAND…`: run a command in a worker pod and send what it writes to otto-handler, too.

The command comes first: it starts before anything else does, its output goes to stdout and stderr as it comes, it gets
the signals and gives the exit code. Where otto-handler is away or slow, lines are held back up to a limit, then left
out; how many is said at the end.
"""

import argparse
import os
import select
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ottoscaler.cli.token_file import read_token
from ottoscaler.errors import FixYourCall

if TYPE_CHECKING:
    import trio

    from ottoscaler.cli.tee import Tell, Warn
    from ottoscaler.cli.wrapping import Wrapped
    from ottoscaler.client import LogStream, Statistics

HANDLES_SIGNALS = True
FLUSH_SECONDS = 30.0
READER_SECONDS = 1.0
"""For a reader of our output who takes nothing, when we are to end."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add where to send to, who we are, and the command."""
    parser.usage = "ottoscaler forward [--help] [OPTION]... -- COMMAND [ARGUMENT]..."
    parser.add_argument("--handler", metavar="HOST:PORT", help="otto-handler [OTTO_HANDLER_HOST]")
    parser.add_argument("--tls", action="store_true", help="speak TLS with it [OTTO_HANDLER_TLS]")
    parser.add_argument("--ca", metavar="FILE", help="authority of its certificate, in PEM [OTTO_HANDLER_CA]")
    parser.add_argument("--token-file", metavar="FILE", help="holds the token of each call [OTTO_HANDLER_TOKEN]")
    parser.add_argument(
        "--worker-id", metavar="NAME", help="the pod's name (default: OTTO_WORKER_ID, POD_NAME or the host name)"
    )
    parser.add_argument("--task-id", metavar="TEXT", help="its task (default: OTTO_TASK_ID)")
    parser.add_argument(
        "--flush-seconds",
        type=_seconds,
        default=FLUSH_SECONDS,
        metavar="SECONDS",
        help="how long to send what is left after the command's end; less where otto-handler does not answer "
        f"(default: {FLUSH_SECONDS:g})",
    )
    parser.add_argument("command_line", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="what to run")


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code is its own, 127 or 126 where it cannot be run, 2 for a wrong call."""
    command = args.command_line[1:] if args.command_line[:1] == ["--"] else args.command_line
    if not command:
        return _say("expected a command behind --, as in: ottoscaler forward -- make test", 2)
    try:
        environ = environ_with(args)
    except FixYourCall as error:
        return _say(str(error), 2)
    from ottoscaler.cli.tee import open_pipe
    from ottoscaler.cli.wrapping import CannotStart, spawn

    (out, child_out), (err, child_err) = open_pipe(), open_pipe()
    try:
        pid = spawn(command, child_out, child_err)
    except CannotStart as error:
        os.close(out)
        os.close(err)
        return _say(str(error), error.code)
    finally:
        os.close(child_out)
        os.close(child_err)
    return _follow(pid, out, err, environ, args.flush_seconds)


def _follow(pid: int, out: int, err: int, environ: dict[str, str], flush_seconds: float) -> int:
    """See the command to its end. From here on the command runs, so nothing of ours may fail."""
    import trio

    return trio.run(_forward, pid, out, err, environ, flush_seconds)


async def _forward(pid: int, out: int, err: int, environ: dict[str, str], flush_seconds: float) -> int:
    import trio

    from ottoscaler.cli.wrapping import Wrapped
    from ottoscaler.client import open_log_stream

    wrapped = Wrapped(pid)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wrapped.run)
        with trio.CancelScope() as sending:
            async with open_log_stream(settle_seconds=0, environ=environ) as logs:
                if not (is_sent := not logs.is_over):
                    _mention(f"{logs.problem}; the output is not sent anywhere")
                nursery.start_soon(_end_when_hurried, wrapped, passed := trio.Event(), sending)
                await _pass_output(wrapped, logs, out, err)
                passed.set()
                await logs.settle(flush_seconds)
        if is_sent:
            _report(logs.statistics(), logs.problem)
        nursery.cancel_scope.cancel(reason="the command has ended")
    assert wrapped.code is not None
    return wrapped.code


async def _pass_output(wrapped: "Wrapped", logs: "LogStream", out: int, err: int) -> None:
    """Pass on what the command writes until it has ended."""
    import trio

    from ottoscaler.cli.tee import Tee

    files = ((out, 1, "stdout"), (err, 2, "stderr"))
    tees = [Tee(source, target, _teller(logs, name), _warner(name)) for source, target, name in files]
    async with trio.open_nursery() as nursery:
        for tee in tees:
            nursery.start_soon(tee.run)
        await wrapped.ended.wait()
        for tee in tees:
            tee.end()


def _teller(logs: "LogStream", source: str) -> "Tell":
    """What hands lines of a source to the log stream."""
    from ottoscaler.client.buffer import Block
    from ottoscaler.client.stream import stamp_now

    def tell(lines: bytes, goes_on: bool) -> None:
        metadata = {"continued": "true"} if goes_on else None
        logs.add_block(Block(lines, stamp_now(), source=source, metadata=metadata, is_part=goes_on))

    return tell


def _warner(name: str) -> "Warn":
    """What says, once, that stdout or stderr gets nothing more."""
    return lambda error: _mention(f"{name} cannot be written any more: {error.strerror}")


async def _end_when_hurried(wrapped: "Wrapped", passed: "trio.Event", sending: "trio.CancelScope") -> None:
    """A signal after the command's end: whoever reads its output has a moment for the rest, and lines wait no more."""
    import trio

    await wrapped.hurried.wait()
    with trio.move_on_after(READER_SECONDS):
        await passed.wait()
    sending.cancel(reason="a signal came after the command's end")


def _report(done: "Statistics", problem: str) -> None:
    """Say what did not reach the handler, where something did not."""
    if done.left_out:
        all_lines = done.acknowledged + done.dropped + done.left_out
        why = problem or "there was no room or no time for them"
        _mention(f"{done.left_out} of {all_lines} lines did not reach otto-handler: {why}")


def environ_with(args: argparse.Namespace) -> dict[str, str]:
    """The environment, with what the flags say in the place of its variables. FixYourCall for the token's file."""
    given = {
        "OTTO_HANDLER_HOST": args.handler,
        "OTTO_HANDLER_TLS": "true" if args.tls else None,
        "OTTO_HANDLER_CA": args.ca,
        "OTTO_WORKER_ID": args.worker_id,
        "OTTO_TASK_ID": args.task_id,
    }
    if args.token_file is not None:
        given["OTTO_HANDLER_TOKEN"] = read_token(Path(args.token_file))
    return {**os.environ, **{name: value for name, value in given.items() if value is not None}}


def _say(sentence: str, code: int) -> int:
    print(f"ottoscaler forward: {sentence}", file=sys.stderr, flush=True)
    return code


def _mention(sentence: str) -> None:
    """Say it while the command runs: where nobody can read it, or does, that must not end us, or keep us."""
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    with suppress(OSError):
        if poll.poll(READER_SECONDS * 1000):
            os.write(2, f"ottoscaler forward: {sentence}\n".encode(errors="backslashreplace"))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of seconds from 0 to 3600")
    return seconds
