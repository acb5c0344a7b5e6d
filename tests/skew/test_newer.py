"""What a newer version began or ended is not for this one to cancel or to read: it is passed through, or said so."""

from __future__ import annotations

import json

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.cli.dlq import _row, described
from ottoscaler.cli.letters_json import from_lines, to_json
from ottoscaler.cli.results import rows_as
from ottoscaler.cli.send import Shown
from ottoscaler.events import BadEntry
from ottoscaler.outcomes import newer_version
from tests.calls.house import open_house
from tests.spine.stage import open_stage


async def test_a_cancel_of_a_newer_version_s_event_is_refused(autojump_clock: MockClock) -> None:
    """The refusal says why and what to do, and the event is as it was."""
    async with open_stage() as stage:
        target = await stage.add(type="scale_up", pod_count=1)
        fields = stage.stream._server.progress[target.event_id]
        fields |= {"v": "2", "o:1": "written in another way"}
        before = dict(fields)
        refused = await stage.work(await stage.add(type="cancel", event_id=target.event_id)).run()
        assert isinstance(refused, BadEntry)
        assert (refused.cause, refused.reason) == (
            "UnknownEvent",
            f"field event_id is '{target.event_id}', expected an event that no newer version began; "
            "replay this once all replicas are upgraded",
        )
        assert fields == before


@pytest.mark.parametrize(
    ("fields", "version"),
    [({}, ""), ({"v": "1"}, ""), ({"v": "0"}, ""), ({"v": "2"}, "2"), ({"v": "1.1"}, "1.1"), ({"v": "two"}, "two")],
)
def test_an_entry_says_which_version_wrote_it(fields: dict[str, str], version: str) -> None:
    """What this version or an older one wrote is read; what says a higher number, or none, is not."""
    assert newer_version(fields) == version


RESULT = {"v": "2", "event_id": "1-0", "type": "scale_up", "workers": "in another way", "failed": "none"}


def test_commands_pass_a_newer_version_s_results_through() -> None:
    """The table says whose it is, JSON has the fields as they are, and who waits is told that it has ended."""
    shown: list[str] = []
    rows_as(None, shown.append)([("1-1", RESULT)])
    assert shown[1].startswith("1-0     scale_up   -      written by a newer version (2)")
    rows_as("json", shown.append)([("1-1", RESULT)])
    assert json.loads(shown[2]) == RESULT
    for where, word in (("results", "ended"), ("dlq", "refused")):
        assert Shown(shown.append).end(where, RESULT) == 1
        assert shown[-1] == f"{word}; how was written by a newer version (2), which this one cannot read"


def test_dlq_passes_a_newer_version_s_letters_through() -> None:
    """They are listed, shown and exported as they are written, and an import brings back the same."""
    letter = ("1-1", {"v": "2", "event_id": "1-0", "cause": "New", "deliveries": "3", "entry": '{"other": "form"}'})
    assert _row(letter) == ["1-1", "1-0", "", "", "", "written by a newer version (2)"]
    assert described(letter)[-1] == 'entry       {"other": "form"}'
    line = to_json(letter)
    assert json.loads(line) == {"id": "1-1", **letter[1]}
    (restored,) = from_lines([line.encode()], "file")
    assert dict(restored.pairs) == letter[1]


async def test_calls_neither_break_nor_misread(autojump_clock: MockClock) -> None:
    """GetWorkerStatus leaves a newer version's results out and says so; a call that is repeated hears why it is told no
    more, with the names that its request id remembers.
    """
    async with open_house() as house:
        one = await house.open()
        first = await one.up(2, request_id="r")
        await trio.sleep(60)
        (id_,) = house.server.results.entries
        pairs = ((name, b"2" if name == b"v" else b"otherwise") for name, _ in house.server.results.entries[id_])
        house.server.results.entries[id_] = tuple(pairs)
        again = await one.up(2, request_id="r")
        assert again.status == "already_processed"
        assert again.worker_pod_names == first.worker_pod_names
        assert again.message.endswith("how was written by a newer version (2), which this replica cannot read")
        status = await one.status()
        assert (status.total_count, status.is_truncated) == (0, True)
