"""The twin's dead letters are verified: a random history of them is told to it and to a real Valkey."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from ottoscaler.events import BadEntry
from ottoscaler.outcomes import dead_letter_pairs
from ottoscaler.stream.base import Closing
from ottoscaler.stream.dead_letters import Letter
from tests.stream.backends import Backend, MemoryBackend, RedisBackend
from tests.stream.test_stream_machine import Side

pytestmark = pytest.mark.slow_clock
number = st.integers(0, 4)
PAIRS = ((b"type", b"x"), (b"\xff", b"\x80\x81"))


class Letters(Side):
    """One keeper, the ids of refused events, and the ids of their dead letters, in order."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.letters: list[str] = []

    def letter(self, at: int) -> str:
        """The id of the n-th dead letter, or one that never was."""
        return self.letters[at] if at < len(self.letters) else "1-1"


def pairs_of(event_id: str) -> tuple[tuple[str, str], ...]:
    """A dead letter as a scaler writes it."""
    return dead_letter_pairs(BadEntry(event_id, "UnknownType", "odd", PAIRS), deliveries=1, failed=1.0)


class DeadLetterMachine(RuleBasedStateMachine):
    """Tells each step to both sides, and compares answers and contents."""

    backends: Callable[[], tuple[Backend, Backend]]

    def __init__(self) -> None:
        super().__init__()
        self.sides = [Letters(backend) for backend in self.backends()]

    def both(self, call: Callable[[Letters], Awaitable[Any]]) -> None:
        """Make one call on both sides."""

        async def ask() -> tuple[list[Any], list[Any]]:
            answers = [side.neutral(await call(side)) for side in self.sides]
            return answers, [side.contents() for side in self.sides]

        for twin, real in trio.run(ask):
            assert twin == real

    def teardown(self) -> None:
        """Close the connections."""
        for side in self.sides:
            if isinstance(side.backend, RedisBackend):
                side.backend.disconnect()

    @initialize()
    def begin(self) -> None:
        """A group and two dead letters."""

        async def call(side: Letters) -> None:
            await side.streams["a"].open_group("0", "default")

        self.both(call)
        self.refuse()
        self.refuse()

    @rule()
    def refuse(self) -> None:
        """The next event, be it new or a replay, is refused."""

        async def call(side: Letters) -> Any:
            side.backend.add(*PAIRS)
            await trio.sleep(0.002)
            [entry] = await side.streams["a"].read(1, 0)
            side.ids.append(entry.id)
            closed = await side.streams["a"].close(Closing(entry.id, "dlq", pairs_of(entry.id)))
            side.letters.append(closed.entry_id)
            await trio.sleep(0.002)
            return entry.fields, closed.how

        self.both(call)

    @rule(at=st.lists(number, max_size=3), session=st.sampled_from(["a", "b"]))
    def replay(self, at: list[int], session: str) -> None:
        """Some are replayed."""
        self.both(lambda side: side.streams[session].replay_dead_letters([side.letter(one) for one in at]))

    @rule(at=st.lists(number, max_size=2))
    def drop(self, at: list[int]) -> None:
        """Some are dropped."""
        self.both(lambda side: side.streams["a"].drop_dead_letters([side.letter(one) for one in at] or ["1-1"]))

    @rule(at=st.lists(st.tuples(number, number), max_size=3), behind=st.one_of(st.none(), number))
    def restore(self, at: list[tuple[int, int]], behind: int | None) -> None:
        """Some are put back, under the id that they had or another."""

        async def call(side: Letters) -> Any:
            rows = [Letter(side.event(event), side.letter(had), pairs_of(side.event(event))) for event, had in at]
            answers = await side.streams["b"].restore_dead_letters(rows, "0" if behind is None else side.letter(behind))
            side.letters += [answer.letter_id for answer in answers if answer.letter_id]
            return answers

        self.both(call)

    @rule(at=number)
    def look(self, at: int) -> None:
        """What only reads."""

        async def call(side: Letters) -> Any:
            stream = side.streams["a"]
            return await stream.dead_letter_of(side.event(at)), await stream.read_entries("dlq", "0", 10, 0)

        self.both(call)


def test_the_twin_s_dead_letters_are_like_valkey_s(valkey: RedisBackend) -> None:
    """Whatever is asked in whatever order, the twin answers as Valkey does and holds the same."""

    def backends() -> tuple[Backend, Backend]:
        real = RedisBackend(valkey.server)
        return MemoryBackend(real.keys, clock=time.monotonic), real

    machine = type("Machine", (DeadLetterMachine,), {"backends": staticmethod(backends)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            derandomize=True,
            max_examples=25,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
