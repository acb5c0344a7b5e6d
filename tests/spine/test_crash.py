"""Crash each part at each step: whatever call of theirs meets a bug, every event still ends once and no worker runs
twice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from secrets import token_hex
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.stream.memory import MemoryServer, MemoryStream
from tests.spine.determinism import schedule_from
from tests.spine.scaler import Scaler
from tests.spine.test_cut import EVENTS, _drain_when_done, judge
from tests.spine.world import Plan, World

STREAM_CALLS = (
    "read",
    "renew",
    "register",
    "tend",
    "record",
    "close",
    "survey",
    "mark_victims",
    "read_progress",
    "offer",
)
KUBE_CALLS = ("create_pod", "delete_pod", "get_pod", "list_pods")


class Bug:
    """Raises an error of no kind that anybody expects, in the n-th call of all those it is put into, before or after
    it.
    """

    def __init__(self, call: int, *, after: bool) -> None:
        self.calls = 0
        self.struck = ""
        self._call = call
        self._after = after

    def put_into(self, target: object, names: tuple[str, ...]) -> None:
        """Wrap methods of an object."""
        for name in names:
            setattr(target, name, self._wrap(name, getattr(target, name)))

    def _wrap(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.calls += not (self._after and name in NOT_AFTER)
            strikes = self.calls == self._call and not self.struck
            if strikes and not self._after:
                self.struck = name
                raise ValueError(f"a bug in {name}")
            answer = await method(*args, **kwargs)
            if strikes:
                self.struck = name
                raise ValueError(f"a bug after {name}")
            return answer

        return wrapped


NOT_AFTER = {"read"}
"""What a read gave is in the poller's hands with its very return; before that the stream itself looks after it."""


def play(bug: Bug) -> tuple[World, MemoryServer]:
    """One scaler with a bug over the usual events."""
    world = World(lambda labels: Plan(start_delay=0.2, duration=1.0))
    server = MemoryServer(started_at=1_760_000_000.0)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(world.run)
            producer = MemoryStream(server, "producer")
            for event in EVENTS:
                await producer.add_event(list(event.items()), token_hex(8))
            scaler = Scaler(world, server, "only")
            nursery.start_soon(_drain_when_done, scaler, server)

            def install(scaler: Scaler) -> None:
                bug.put_into(scaler.stream, STREAM_CALLS)
                bug.put_into(scaler.kube, KUBE_CALLS)

            with trio.fail_after(400):
                await scaler.run(install)
            await trio.sleep(100)
            nursery.cancel_scope.cancel(reason="judged")

    schedule_from(1)
    trio.run(main, clock=MockClock(autojump_threshold=0))
    return world, server


@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after the call"])
def test_a_bug_at_any_call_costs_no_event(after: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A part or an event that breaks at any of its calls is logged, comes back, and the outcome is as if nothing had
    been.
    """
    struck = set()
    for call in range(1, 500):
        caplog.clear()
        bug = Bug(call, after=after)
        world, server = play(bug)
        try:
            judge(world, server)
        except BaseException as error:
            error.add_note(f"a bug at call {call}, in {bug.struck}")
            raise
        if not bug.struck:
            break
        struck.add(bug.struck)
        assert sum(bool(record.exc_info) for record in caplog.records) == 1, (
            f"call {call} ({bug.struck}): one traceback"
        )
    assert struck >= ({"read"} - NOT_AFTER if after else {"read"}) | {
        "renew",
        "register",
        "tend",
        "record",
        "close",
        "create_pod",
        "delete_pod",
    }
