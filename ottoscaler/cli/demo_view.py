"""How the demo is seen: a table that updates itself on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from ottoscaler.cli.following import status_of
from ottoscaler.pods import PodRecord

if TYPE_CHECKING:
    from rich.table import Table

STYLES = {
    "Running": "cyan",
    "Completed": "green",
    "Succeeded": "green",
    "Error": "red",
    "Failed": "red",
    "Deleted": "dim",
}
PASSING = frozenset({"Pending", "ContainerCreating", "PodInitializing", "Terminating"})


class View(Protocol):
    """Where the demo tells what happens."""

    def say(self, text: str) -> None:
        """Tell one step."""

    def pod(self, record: PodRecord) -> None:
        """Tell that a pod has changed."""


class Trails:
    """Which states each pod went through, in the order in which the pods appeared."""

    def __init__(self) -> None:
        self.states: dict[str, list[str]] = {}
        self.records: dict[str, PodRecord] = {}

    def note(self, record: PodRecord) -> bool:
        """Take a pod's newest record; whether its state is a new one."""
        states = self.states.setdefault(record.name, [])
        self.records[record.name] = record
        state = status_of(record)
        if states[-1:] == [state]:
            return False
        states.append(state)
        return True


class PlainView:
    """One line per step and per change of a pod, each with the seconds since the beginning."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._trails = Trails()

    def say(self, text: str) -> None:
        """Print the step."""
        print(f"{time.monotonic() - self._begin:5.1f} s  {text}", flush=True)

    def pod(self, record: PodRecord) -> None:
        """Print the pod's new state, where it is one."""
        if self._trails.note(record):
            self.say(f"  {record.task_id:8} {record.name}  {_with_exit(record)}")


class LiveView:
    """Steps above, and below them a table with one row per pod that grows with its states."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._begin = time.monotonic()
        self._trails = Trails()
        self._console = Console()
        self.live = Live(console=self._console, auto_refresh=False)  # its refreshing would be a thread

    def say(self, text: str) -> None:
        """Print the step above the table."""
        self._console.print(f"[dim]{time.monotonic() - self._begin:5.1f} s[/dim]  {_escaped(text)}", highlight=False)

    def pod(self, record: PodRecord) -> None:
        """Show the pod's new state, where it is one."""
        if self._trails.note(record):
            self.live.update(self.table(), refresh=True)

    def table(self) -> "Table":
        """The table as it stands."""
        from rich.table import Table

        table = Table("TASK", "POD", "STATES", "EXIT", box=None, pad_edge=False)
        for name, states in self._trails.states.items():
            record = self._trails.records[name]
            table.add_row(
                record.task_id, name, _trail(states), "" if record.exit_code is None else str(record.exit_code)
            )
        return table


@contextmanager
def open_view() -> Iterator[View]:
    """The view that fits where the output goes."""
    if not sys.stdout.isatty():
        yield PlainView()
        return
    view = LiveView()
    with view.live:
        yield view


def _trail(states: list[str]) -> str:
    """The states of a pod in colours; passing ones only while they last, so that a row fits a terminal."""
    kept = [state for number, state in enumerate(states, 1) if state not in PASSING or number == len(states)]
    return " → ".join(f"[{STYLES[state]}]{state}[/]" if state in STYLES else state for state in kept)


def _with_exit(record: PodRecord) -> str:
    ended = f" (exit code {record.exit_code})" if record.exit_code is not None and not record.gone else ""
    return status_of(record) + ended


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
