"""`cancel`: one entry for the stream, and with --wait what became of it."""

import re

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.cli import main
from ottoscaler.cli.cancel import wait_cancelled
from ottoscaler.errors import Unavailable
from ottoscaler.stream.base import Claim, Closing, Registration
from ottoscaler.stream.memory import MemoryServer, MemoryStream

CANCEL = (("type", "cancel"), ("event_id", "5-5"))


def test_a_cancel_is_one_entry(server: MemoryServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Its type, the event to cancel, nothing else; its own id is printed. A lost answer adds nothing twice."""
    server.lose_answer_of.add("add_event")
    assert main(["cancel", "5-5"]) == 0
    [(entry_id, pairs)] = server.events.after((0, 0), 10)
    assert (capsys.readouterr().out, pairs) == (f"{entry_id}\n", ((b"type", b"cancel"), (b"event_id", b"5-5")))


def test_what_is_no_id_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence, exit code 2, and Redis is not asked."""
    assert main(["cancel", "task-7"]) == 2
    assert capsys.readouterr().err == (
        "ottoscaler: EVENT_ID is 'task-7', expected the id of an event, such as 1756659802903-0\n"
    )


async def read_cancel(server: MemoryServer) -> tuple[MemoryStream, str]:
    """A scaler that has read a cancel and not yet ended it."""
    scaler = MemoryStream(server, "scaler")
    await scaler.open_group("0", "default")
    cancel_id = await scaler.add_event(CANCEL, "token")
    await scaler.read(1, 0)
    return scaler, cancel_id


@pytest.mark.parametrize(
    ("status", "note", "code", "shown"),
    [
        ("succeeded", "", 0, "succeeded"),
        ("succeeded", "event 5-5 had ended before", 0, "succeeded: event 5-5 had ended before"),
        ("partial", "", 1, "partial"),
    ],
)
async def test_waiting_shows_the_result(
    autojump_clock: MockClock, nursery: trio.Nursery, status: str, note: str, code: int, shown: str
) -> None:
    """The command ends with the cancel's own result, and says what the cancel found."""
    server = MemoryServer()
    scaler, cancel_id = await read_cancel(server)
    await scaler.register([Registration(cancel_id, "control", CANCEL, "", 0)])

    async def end() -> None:
        await trio.sleep(2)
        pairs = (("event_id", cancel_id), ("type", "cancel"), ("status", status), ("note", note))
        await scaler.close(Closing(cancel_id, "results", pairs, Claim(cancel_id, "scaler", 1)))

    nursery.start_soon(end)
    lines: list[str] = []
    assert await wait_cancelled(MemoryStream(server, "cli"), cancel_id, lines.append) == code
    assert lines == [shown]


async def test_waiting_shows_the_refusal(autojump_clock: MockClock) -> None:
    """The reason of the dead letter is shown, as far as it prints, and the exit code is 1."""
    server = MemoryServer()
    scaler, cancel_id = await read_cancel(server)
    reason = "field event_id is '5-5', expected\x1b an event"
    await scaler.close(Closing(cancel_id, "dlq", (("event_id", cancel_id), ("reason", reason))))
    lines: list[str] = []
    assert await wait_cancelled(MemoryStream(server, "cli"), cancel_id, lines.append) == 1
    assert len(lines) == 1
    assert re.fullmatch(r"refused: field event_id is .*5-5.*, expected\\x1b an event", lines[0])


async def test_waiting_without_a_scaler_says_so(autojump_clock: MockClock) -> None:
    """After a while without anybody who takes it there is a line; a Redis that is gone ends the wait with an error."""
    server = MemoryServer()
    lines: list[str] = []
    with trio.move_on_after(10):
        await wait_cancelled(MemoryStream(server, "cli"), "5-5", lines.append)
    assert lines == ["no scaler has taken the event yet"]
    server.weather = "refusing"
    with pytest.raises(Unavailable):
        await wait_cancelled(MemoryStream(server, "cli"), "5-5", lines.append)
