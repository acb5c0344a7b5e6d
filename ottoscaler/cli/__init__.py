"""The command line: one module per command, of which only the chosen one is imported.

A command's module has `configure(parser)`, which adds its arguments, and `run(args) -> int`, which returns the exit
code. One that ends in its own way at SIGTERM and SIGINT says `HANDLES_SIGNALS = True`.
"""

import argparse
import os
import sys
from collections.abc import Collection
from importlib import import_module
from types import ModuleType
from typing import Any, NoReturn

from ottoscaler import __version__, signals
from ottoscaler.errors import FixYourCall, OttoscalerError, SettingsError

COMMANDS = {
    "serve": "turn events into worker pods, until SIGTERM",
    "dev": "run Valkey, a local cluster and the scaler on this machine, until Ctrl-C",
    "demo": "see three events become pods and results, on this machine alone",
    "localcluster": "run a small Kubernetes API whose pods are local processes",
    "call": "ask a running scaler by gRPC: scale-up, scale-down, status, pipeline",
    "forward": "run a command and send its output to otto-handler, too",
    "handler": "run a small otto-handler that prints or stores what it receives",
    "send": "send an event and, if wanted, wait for its result",
    "status": "show a running installation on one screen",
    "workers": "list the worker pods",
    "logs": "show or follow what the workers of an event wrote",
    "results": "list the results of events",
    "cancel": "cancel an event that waits or runs",
    "dlq": "list, show, replay, drop, export and import dead letters",
    "sweep": "list or delete the pods of a Redis that has forgotten them",
    "check": "look whether settings, Redis and the Kubernetes API are as they must be",
    "explain": "say what a cause of failure means, how it looks and what to do",
    "completion": "print the script that completes commands in a shell",
}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence on stderr, with exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the call and where help is."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuse here what is not known, so that the command itself names it and not the whole command line."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def build_parser(configured: Collection[str]) -> Parser:
    """The parser of the whole command line, in which only the `configured` commands have their arguments."""
    parser = Parser(
        prog="ottoscaler", description="Events become Kubernetes worker pods.", allow_abbrev=False, add_help=True
    )
    parser.add_argument("--version", action="version", version=f"ottoscaler {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False
        )
        if name in configured:
            import_module(f"ottoscaler.cli.{name}").configure(command)
    return parser


def main(argv: list[str]) -> int:
    """Run one command line, given without the program's name; the result is the exit code."""
    if "_ARGCOMPLETE" in os.environ:  # the shell asks what could come next
        import argcomplete

        argcomplete.autocomplete(build_parser(COMMANDS))
    name = argv[0] if argv else "--help"
    if not name.startswith("-") and name not in COMMANDS:
        return _fail(f"there is no command {name!r}{_suggestion(name)}", 2)
    args = build_parser({name}).parse_args(argv or ["--help"])
    module = import_module(f"ottoscaler.cli.{name}")
    if not getattr(module, "HANDLES_SIGNALS", False):
        signals.restore_signals()
    try:
        return _run(module, args)
    except SettingsError as error:
        return _fail("\n".join(error.problems), 2)
    except OttoscalerError as error:
        return _fail(str(error), 2 if isinstance(error, FixYourCall) else 1)


def _run(module: ModuleType, args: argparse.Namespace) -> int:
    """Run the command; of a group that a nursery made, the one exception that explains it is raised alone."""
    try:
        return int(module.run(args))
    except BaseExceptionGroup as group:
        for kind in (KeyboardInterrupt, BrokenPipeError, OttoscalerError, OSError):
            if (first := _first(group, kind)) is not None and group.split(kind)[1] is None:
                raise first from None
        raise


def _first(group: BaseExceptionGroup[BaseException], kind: type[BaseException]) -> BaseException | None:
    """The first exception of a kind in a group, however deep."""
    for error in group.exceptions:
        found = _first(error, kind) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, kind):
            return found
    return None


def _suggestion(name: str) -> str:
    import difflib  # only for someone who mistyped

    close = difflib.get_close_matches(name, COMMANDS, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(COMMANDS)}"


def _fail(problems: str, code: int) -> int:
    """Write each line of `problems` to stderr as a sentence of its own and return `code`."""
    for line in problems.splitlines():
        print(f"ottoscaler: {line}", file=sys.stderr)
    return code
