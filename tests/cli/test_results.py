"""`results`: what became of events, in columns or as JSON, once or for ever."""

import json
from typing import Literal

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.cli.columns import Columns, shown_age
from ottoscaler.cli.results import Result, list_results, rows_as
from ottoscaler.errors import Unavailable
from ottoscaler.stream.memory import MemoryServer, MemoryStream


def add_result(server: MemoryServer, event_id: str) -> None:
    """A result as a scaler writes it."""
    fields = {
        "v": "1",
        "event_id": event_id,
        "type": "scale_up",
        "task_id": "",
        "status": "partial",
        "requested": "2",
        "succeeded": "1",
        "failed": "1",
        "terminated": "0",
        "completed_at": "2026-01-02T03:04:05.678Z",
        "workers": '[{"name": "otto-agent-1-1-0", "index": 1, "outcome": "succeeded"}]',
    }
    server.results.add([(name.encode(), value.encode()) for name, value in fields.items()], server.now())
    server.wake()


def ids(results: list[Result]) -> list[str]:
    """The events that results are of."""
    return [fields["event_id"] for _, fields in results]


async def test_the_last_results_are_shown(autojump_clock: MockClock) -> None:
    """Of many results the last ones are listed, oldest first."""
    server = MemoryServer()
    for number in range(450):
        add_result(server, f"{number}-0")
    shown: list[list[str]] = []
    await list_results(MemoryStream(server, "cli"), 3, lambda page: shown.append(ids(page)), is_watched=False)
    assert shown == [["447-0", "448-0", "449-0"]]


async def test_watching_shows_each_new_result(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """With --watch each result is shown once, soon after it was written."""
    server = MemoryServer()
    add_result(server, "1-0")
    shown: list[str] = []

    async def watch() -> None:
        await list_results(MemoryStream(server, "cli"), 20, lambda page: shown.extend(ids(page)), is_watched=True)

    nursery.start_soon(watch)
    await trio.sleep(3)
    add_result(server, "2-0")
    await trio.sleep(0.1)
    add_result(server, "3-0")
    await trio.sleep(3)
    assert shown == ["1-0", "2-0", "3-0"]
    nursery.cancel_scope.cancel(reason="seen")


class Flaky(MemoryStream):
    """A Redis that is away for two looks after the first result was shown."""

    looks = 0

    async def read_entries(
        self, which: Literal["results", "dlq"], after: str, count: int, block_seconds: float
    ) -> list[tuple[str, dict[str, str]]]:
        """As the twin, but at the third and fourth look."""
        self.looks += 1
        if self.looks in (3, 4):
            raise Unavailable("Redis is away")
        return await super().read_entries(which, after, count, block_seconds)


async def test_watching_outlasts_an_outage(
    autojump_clock: MockClock, nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> None:
    """Redis away is said once, on stderr; what came meanwhile is shown afterwards, and nothing twice."""
    server = MemoryServer()
    add_result(server, "1-0")
    shown: list[str] = []

    async def watch() -> None:
        await list_results(Flaky(server, "cli"), 20, lambda page: shown.extend(ids(page)), is_watched=True)

    nursery.start_soon(watch)
    await trio.sleep(0.5)
    add_result(server, "2-0")
    await trio.sleep(5)
    assert shown == ["1-0", "2-0"]
    assert capsys.readouterr().err == "ottoscaler: Redis is away\n"
    nursery.cancel_scope.cancel(reason="seen")


async def test_the_table_has_kubectl_s_form(autojump_clock: MockClock) -> None:
    """Headers in capitals, columns aligned, missing values as a dash; later rows come without a header."""
    server = MemoryServer()
    add_result(server, "1756659802903-0")
    lines: list[str] = []
    show = rows_as(None, lines.append)
    await list_results(MemoryStream(server, "cli"), 20, show, is_watched=False)
    await list_results(MemoryStream(server, "cli"), 20, show, is_watched=False)
    assert lines == [
        "EVENT             TYPE       TASK   STATUS    REQUESTED   SUCCEEDED   FAILED   TERMINATED   COMPLETED",
        *[
            "1756659802903-0   scale_up   -      partial   2           1           1        0            "
            "2026-01-02T03:04:05.678Z"
        ]
        * 2,
    ]


async def test_json_has_numbers_and_workers_decoded(autojump_clock: MockClock) -> None:
    """Each line is one JSON object in which numbers are numbers and workers a list."""
    server = MemoryServer()
    add_result(server, "1-0")
    lines: list[str] = []
    await list_results(MemoryStream(server, "cli"), 20, rows_as("json", lines.append), is_watched=False)
    (found,) = map(json.loads, lines)
    assert (found["requested"], found["failed"], found["status"]) == (2, 1, "partial")
    assert found["workers"] == [{"name": "otto-agent-1-1-0", "index": 1, "outcome": "succeeded"}]


def test_no_rows_leave_the_header() -> None:
    """An empty table is its header, so that a reader sees that nothing was there."""
    assert Columns(["A", "B"]).lines([]) == ["A   B"]


def test_names_of_others_cannot_steer_a_terminal() -> None:
    """What does not print, such as the bytes that clear a screen or begin a line, is shown escaped."""
    assert Columns(["TASK"]).lines([["a\x1b[2J\nb"], ["서울"]]) == ["TASK", "a\\x1b[2J\\nb", "서울"]


def test_ages_are_short() -> None:
    """Ages are shown in the two largest units that matter, as kubectl does."""
    seconds = (-1, 0, 119, 120, 125, 600, 3599, 10_800, 11_000, 30_000, 100_000, 200_000)
    assert [shown_age(second) for second in seconds] == [
        "0s",
        "0s",
        "119s",
        "2m",
        "2m5s",
        "10m",
        "59m",
        "3h",
        "3h3m",
        "8h",
        "27h",
        "2d",
    ]


async def test_json_has_the_stages_of_a_pipeline_decoded(autojump_clock: MockClock) -> None:
    """What a result holds as JSON is shown as JSON: stages, and the workers that never had a pod."""
    server = MemoryServer()
    fields = {"event_id": "1-0", "type": "pipeline", "status": "succeeded", "requested": "1", "workers": "[]"}
    nested = {"stages": '[{"stage_id": "build", "status": "completed", "succeeded": 2}]', "not_created": "[3]"}
    server.results.add([(name.encode(), value.encode()) for name, value in (fields | nested).items()], server.now())
    lines: list[str] = []
    await list_results(MemoryStream(server, "cli"), 20, rows_as("json", lines.append), is_watched=False)
    (found,) = map(json.loads, lines)
    assert found["stages"] == [{"stage_id": "build", "status": "completed", "succeeded": 2}]
    assert (found["workers"], found["not_created"]) == ([], [3])
