"""`ottoscaler call pipeline`: the file, the call that outlives cuts, and what is shown of the stages.

The pipeline belongs to Ottoscaler, not to this command: when the connection is cut, the same call joins it again and
gets every change from the first one on; what was shown is not shown again.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ottoscaler.backoff import Backoff
from ottoscaler.cli.calling import Passing, Server
from ottoscaler.cli.pipeline_file import read_pipeline
from ottoscaler.rpc.v1.pipeline_pb2 import PipelineProgress, PipelineRequest, StageStatus

if TYPE_CHECKING:
    from rich.table import Table

RETRIES = Backoff(0.5, 5.0)
MOST_TRIES = 10
"""In a row, without any news in between."""
STYLES = {"running": "cyan", "retrying": "yellow", "completed": "green", "failed": "red", "cancelled": "yellow"}
FINAL = {"completed", "failed", "cancelled", "skipped"}


def read_request(file: Path, pipeline_id: str, ends_with_call: bool) -> PipelineRequest:
    """The request that a file describes; one without an id gets one of its own. Raises WrongCall."""
    request = read_pipeline(file)
    request.pipeline_id = pipeline_id or request.pipeline_id or f"{file.stem}-{secrets.token_hex(4)}"
    if ends_with_call:
        request.metadata["on_disconnect"] = "cancel"
    return request


def run_pipeline(server: Server, file: Path, pipeline_id: str, ends_with_call: bool) -> int:
    """Run the pipeline and show it: 0 where every stage completed, else 1."""
    request = read_request(file, pipeline_id, ends_with_call)
    stages = Stages(request)
    with open_view(stages) as view:
        view.say(f"pipeline {request.pipeline_id}")
        try:
            for news in news_of(server, request, view.say):
                view.show(news)
        except KeyboardInterrupt:
            end = "ends" if ends_with_call else f"goes on; to see it again: --id {request.pipeline_id}"
            print(f"ottoscaler: pipeline {request.pipeline_id} {end}", file=sys.stderr)
            raise
    print(stages.summary(), file=sys.stderr, flush=True)
    return 0 if stages.has_completed else 1


def news_of(
    server: Server, request: PipelineRequest, say: Callable[[str], None], sleep: Callable[[float], None] = time.sleep
) -> Iterator[PipelineProgress]:
    """Every change once, over as many connections as it takes. Raises Passing where the server stays away."""
    shown = 0
    delays, tries = RETRIES.delays(), 0
    while True:
        try:
            for number, news in enumerate(server.stream(server.stub.ExecutePipeline, request)):
                if number >= shown:
                    shown, tries, delays = number + 1, 0, RETRIES.delays()
                    yield news
            return
        except Passing as error:
            tries += 1
            if tries == MOST_TRIES or not shown:
                raise
            say(f"joining again: {error}")
            sleep(next(delays))


class Stages:
    """The newest of each stage, in the order of the file."""

    def __init__(self, request: PipelineRequest) -> None:
        self.newest: dict[str, PipelineProgress | None] = {stage.stage_id: None for stage in request.stages}

    def take(self, news: PipelineProgress) -> None:
        """Take a change."""
        self.newest[news.stage_id] = news

    @property
    def has_completed(self) -> bool:
        """Whether every stage has completed."""
        return all(state_of(news) == "completed" for news in self.newest.values())

    def summary(self) -> str:
        """One line: how many stages are in which state."""
        states = [state_of(news) for news in self.newest.values()]
        counts = {state: states.count(state) for state in dict.fromkeys(states)}
        return f"{len(states)} stages: " + ", ".join(f"{count} {state}" for state, count in counts.items())


def state_of(news: PipelineProgress | None) -> str:
    """The state in one word of lower case."""
    return StageStatus.Name(news.status).removeprefix("STAGE_").lower() if news else "pending"


def line_of(news: PipelineProgress) -> str:
    """A change as one line."""
    words = [news.stage_id, state_of(news)]
    metrics = news.metrics
    if metrics.total_workers:
        words.append(f"{metrics.successful_workers}/{metrics.total_workers} workers")
    if state_of(news) in FINAL and metrics.duration_seconds:
        words.append(f"{metrics.duration_seconds} s")
    said = news.error_message or news.message
    return "  ".join([*words, said] if said else words)


class PlainView:
    """One line per change that can be seen in one."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._lines: dict[str, str] = {}

    def say(self, text: str) -> None:
        """Tell what concerns the whole."""
        print(text, flush=True)

    def show(self, news: PipelineProgress) -> None:
        """Show a change."""
        self._stages.take(news)
        line = line_of(news)
        if self._lines.get(news.stage_id) != line:
            self._lines[news.stage_id] = line
            self.say(line)


class LiveView:
    """A table with one row per stage, which changes in its place."""

    def __init__(self, stages: Stages) -> None:
        from rich.live import Live

        self._stages = stages
        self.live = Live(self.table(), auto_refresh=False)  # its refreshing would be a thread

    def say(self, text: str) -> None:
        """Tell what concerns the whole, above the table."""
        self.live.console.print(text, markup=False, highlight=False)

    def show(self, news: PipelineProgress) -> None:
        """Show a change."""
        self._stages.take(news)
        self.live.update(self.table(), refresh=True)

    def table(self) -> Table:
        """The table as it stands."""
        from rich.table import Table
        from rich.text import Text

        table = Table("STAGE", "STATE", "WORKERS", "DONE", "SECONDS", "", box=None, pad_edge=False)
        for stage_id, news in self._stages.newest.items():
            state = state_of(news)
            table.add_row(Text(stage_id), Text(state, STYLES.get(state, "dim")), *map(Text, _columns(news)))
        return table


def _columns(news: PipelineProgress | None) -> tuple[str, str, str, str]:
    if news is None:
        return "", "", "", ""
    metrics = news.metrics
    workers = f"{metrics.successful_workers}/{metrics.total_workers}" if metrics.total_workers else ""
    seconds = str(metrics.duration_seconds) if metrics.duration_seconds else ""
    return workers, f"{news.progress_percentage}%", seconds, news.error_message or news.message


@contextmanager
def open_view(stages: Stages) -> Iterator[Any]:
    """The view that fits where the output goes."""
    if not sys.stdout.isatty():
        yield PlainView(stages)
        return
    view = LiveView(stages)
    with view.live:
        yield view
