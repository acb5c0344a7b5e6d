"""What a program may say of its lines, and what is refused where it says it."""

from __future__ import annotations

from typing import Any

import pytest

from ottoscaler.client import LogStream
from tests.client.test_stream import Stage, run, stage

__all__ = ["stage"]
pytestmark = pytest.mark.slow_clock


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"level": 20}, "level is 20, expected text"),
        ({"source": b"app"}, "source is b'app', expected text"),
        ({"timestamp": 1.5}, "timestamp is 1.5, expected text"),
        ({"metadata": {"step": 3}}, "metadata['step'] is 3, expected text"),
        ({"metadata": {3: "step"}}, "a name in metadata is 3, expected text"),
        ({"metadata": ["step"]}, "metadata is ['step'], expected a mapping of names to texts"),
    ],
)
def test_what_no_message_carries_is_refused_where_it_is_said(stage: Stage, about: Any, said: str) -> None:
    """An argument of another type is the caller's error at once, with its name; the lines before and after it go on."""
    stage.open()

    async def body(logs: LogStream) -> None:
        logs.send_nowait("before")
        with pytest.raises(TypeError) as raised:
            logs.send_nowait("wrong", **about)
        assert str(raised.value) == said
        logs.send_nowait("after", level="\ud800", metadata={"\ud800": "\ud800"})

    done = run("trio", stage.address, body)
    assert (done.acknowledged, done.left_out, stage.messages) == (2, 0, ["before", "after"])
    assert (stage.taken[-1][1]["level"], stage.taken[-1][1]["metadata"]) == ("?", {"?": "?"})


def test_what_no_server_takes_is_refused_where_it_is_said(stage: Stage) -> None:
    """Metadata that makes a message too long is the caller's error at once: no stream would ever get beyond it."""
    stage.open()

    async def body(logs: LogStream) -> None:
        with pytest.raises(ValueError, match="level, source and metadata are 5000005 bytes, expected 1048576 at most"):
            logs.send_nowait("wrong", metadata={"stack": "x" * 5_000_000})
        logs.send_nowait("\xff" * 524_288, metadata={"stack": "x" * 1_000_000})

    done = run("trio", stage.address, body)
    assert (done.acknowledged, done.left_out) == (1, 0)


def test_metadata_is_what_it_was_when_the_line_was_sent(stage: Stage) -> None:
    """A program may change its mapping after each line: every line carries what it said then."""
    stage.open()

    async def body(logs: LogStream) -> None:
        said = {"step": "1"}
        logs.send_nowait("one", metadata=said)
        said["step"] = "2"
        logs.send_nowait("two", metadata=said)

    run("trio", stage.address, body)
    steps = [record["metadata"] for rpc, record in stage.taken if rpc == "StreamLogs"]
    assert steps == [{"step": "1"}, {"step": "2"}]
