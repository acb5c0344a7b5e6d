"""How a command on Trio ends: by itself, or by a signal that is never lost and lets it close what it opened."""

import signal
from collections.abc import Iterator

import pytest
import trio

from ottoscaler import signals
from ottoscaler.cli.running import run_until_signal


@pytest.fixture(autouse=True)
def noted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Signals are noted, as the entry of every command has it; afterwards all is as before."""
    monkeypatch.setattr(signals, "_noted", [])
    monkeypatch.setattr(signals, "_before", {})
    before = {number: signal.getsignal(number) for number in signals.ENDING}
    signals.note_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


async def test_the_body_s_code_is_the_result() -> None:
    """Without a signal the command ends as its body does."""

    async def body(nursery: trio.Nursery) -> int:
        return 3

    assert await run_until_signal(body) == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
async def test_a_signal_cancels_the_body_and_nothing_else(number: signal.Signals, code: int) -> None:
    """The body is cancelled; what it started in the outer nursery goes on until it is through."""
    steps: list[str] = []

    async def reader(closed: trio.Event) -> None:
        await closed.wait()
        steps.append("read to the end")

    async def body(nursery: trio.Nursery) -> int:
        closed = trio.Event()
        nursery.start_soon(reader, closed)
        try:
            signal.raise_signal(number)
            await trio.sleep_forever()
        finally:
            steps.append("closed")
            closed.set()

    with trio.fail_after(5):
        assert await run_until_signal(body) == code
    assert steps == ["closed", "read to the end"]


async def test_further_signals_are_told_by_their_number() -> None:
    """While what was opened is being closed, the second signal and those after it reach `insist`."""
    send, receive = trio.open_memory_channel[int](5)
    counts: list[int] = []

    async def body(nursery: trio.Nursery) -> int:
        try:
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(5, shield=True):
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.raise_signal(number)
                    counts.append(await receive.receive())

    with trio.fail_after(5):
        assert await run_until_signal(body, send.send_nowait) == 130
    assert counts == [2, 3]


async def test_a_signal_from_before_the_start_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was remembered while the imports ran ends the command before its body does anything for long."""
    monkeypatch.setattr(signals, "_noted", [signal.SIGTERM])

    async def body(nursery: trio.Nursery) -> int:
        await trio.sleep_forever()

    with trio.fail_after(5):
        assert await run_until_signal(body) == 143


async def test_a_body_that_ends_well_in_spite_of_a_signal_keeps_its_code() -> None:
    """A signal that comes too late to cancel anything changes nothing."""

    async def body(nursery: trio.Nursery) -> int:
        signal.raise_signal(signal.SIGTERM)
        return 0

    assert await run_until_signal(body) == 0


async def test_an_error_of_the_body_is_not_hidden() -> None:
    """What goes wrong in the body leaves as it is, in the group that its nursery makes."""

    async def body(nursery: trio.Nursery) -> int:
        raise ValueError("no luck")

    with pytest.raises(ExceptionGroup) as caught:
        await run_until_signal(body)
    assert caught.group_contains(ValueError, match="no luck")
