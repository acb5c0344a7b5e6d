"""The twin is verified: a random history is told to it and to a real Valkey, and both must say and hold the same.

Times are left out of the comparison, ids of entries are numbered in the order in which they appeared.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from ottoscaler.stream.base import (
    Accepted,
    Candidate,
    Claim,
    Closing,
    Fence,
    GroupLost,
    Outcome,
    Registration,
    Stream,
    Writing,
)
from ottoscaler.stream.pipelines import News
from ottoscaler.stream.retention import Retention
from tests.stream.backends import Backend, MemoryBackend, RedisBackend

pytestmark = pytest.mark.slow_clock

SESSIONS = ("a", "b")
RETENTION = Retention(results_keep=3, results_max_bytes=200, trim="on")
HOUR = 3_600_000  # ms: due on both sides or on none, at no time that is an entry's
LONG, DEAD = 3600.0, 0.0  # leases: what is never renewed in time has expired at once
session = st.sampled_from(SESSIONS)
lane = st.sampled_from(["work", "control", "pipelines"])
which = st.integers(0, 3)
request_id = st.sampled_from(["", "", "r", "s"])
content = st.sampled_from(["c", "c", "d"])
epoch = st.sampled_from(["right"] * 8 + [1, 2])
TIME = re.compile(r"\b1\d{12}\b")
# Times of what is done: such a one may fall into the millisecond of an id, on one side and not on the other.
DONE_AT = re.compile(r"\b(at|registered|started)(\W{2,8})1\d{12}\b")


class Side:
    """One keeper with its three sessions, and the ids it gave to entries, in order."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.streams: dict[str, Stream] = {name: backend.open(name, RETENTION) for name in SESSIONS}
        self.ids: list[str] = []

    def event(self, number: int) -> str:
        """The id of the n-th entry, or one that never was."""
        return self.ids[number] if number < len(self.ids) else "1-1"

    def neutral(self, value: Any) -> Any:
        """A value with this side's ids replaced by their numbers and its times by a word."""
        text = DONE_AT.sub(r"\1\2<time>", repr(value))
        for number, event_id in enumerate(self.ids):
            text = text.replace(event_id, f"<event {number}>")
            text = text.replace(event_id.partition("-")[0], f"<time of {number}>")
        return TIME.sub("<time>", re.sub(r"\b1\d{12}-\d+\b", "<entry>", text))

    def contents(self) -> Any:
        """All keys and values, with sets and dictionaries in order."""
        found = self.backend.contents()
        found.pop(self.backend.keys.era, None)
        shorter = {key.removeprefix(self.backend.keys.prefix): value for key, value in found.items()}
        lines = (f"{key} = {_ordered(value)}" for key, value in shorter.items() if value)
        return sorted(self.neutral(line) for line in lines)


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return sorted(value.items())
    return sorted(value) if isinstance(value, set) else value


Call = Callable[[Side], Awaitable[Any]]


class TwinMachine(RuleBasedStateMachine):
    """Tells each step to both sides."""

    backends: Callable[[], tuple[Backend, Backend]]

    def __init__(self) -> None:
        super().__init__()
        self.sides = [Side(backend) for backend in self.backends()]

    def both(self, call: Call) -> None:
        """Make one call on both sides and compare answers and contents."""

        async def answer_of(side: Side) -> Any:
            try:
                return await call(side)
            except GroupLost:
                return GroupLost

        async def ask() -> list[Any]:
            answers = [side.neutral(_plain(await answer_of(side))) for side in self.sides]
            return answers + [side.contents() for side in self.sides]

        twin_answer, real_answer, twin_contents, real_contents = trio.run(ask)
        assert twin_answer == real_answer
        assert twin_contents == real_contents

    def teardown(self) -> None:
        """Close the connections."""
        for side in self.sides:
            if isinstance(side.backend, RedisBackend):
                side.backend.disconnect()

    def owner(self, side: Side, number: int, epoch: Any, session: str) -> Claim:
        """A claim on an event: the one that stands, or one that is made up."""
        fields = _progress(side, number)
        if epoch == "right" and fields:
            return Claim(side.event(number), fields["owner"] or session, int(fields["epoch"]))
        return Claim(side.event(number), session, 1 if epoch == "right" else epoch)

    @initialize()
    def open(self) -> None:
        """Group, era, three sessions that last."""
        for name in SESSIONS:
            self.both(partial(_open, name=name))
        self.add_and_read("a", "work", "held", 2)
        self.add_and_read("b", "control", "held", 2)
        self.add_and_read("a", "work", "offered", 2)

    @rule(session=session, lane=lane, fate=st.sampled_from(["held", "offered", "read"]), planned=st.integers(1, 2))
    def add_and_read(self, session: str, lane: Any, fate: str, planned: int) -> None:
        """A new event is delivered, and mostly registered."""

        async def call(side: Side) -> Any:
            side.ids.append(side.backend.add(("type", "scale_up")))
            await trio.sleep(0.002)  # so that no two entries share a millisecond: the order of ties is Redis' own
            entries = await side.streams[session].read(1, 0)
            rows = [
                Registration(entry.id, lane, (("a", "b"),), "task", planned, fate == "offered") for entry in entries
            ]
            return entries, await side.streams[session].register(rows) if fate != "read" else None

        self.both(call)

    @rule(session=session, number=which, lane=lane, offer=st.booleans(), name=request_id, content=content)
    def register(self, session: str, number: int, lane: Any, offer: bool, name: str, content: str) -> None:
        """An event is written down, perhaps under a request id, perhaps as the replay of another."""

        async def call(side: Side) -> Any:
            former = side.event(number - 1) if number else ""
            given = (side.event(number), lane, (("a", "b"),), "task", 2, offer, name, content, former)
            return await side.streams[session].register([Registration(*given)])

        self.both(call)

    @rule(session=session, name=request_id, content=content, token=st.sampled_from("tu"))
    def request(self, session: str, name: str, content: str, token: str) -> None:
        """A call asks for an event, which is delivered."""

        async def call(side: Side) -> Any:
            requested = await side.streams[session].request((("type", "scale_up"),), name, content, token)
            if requested.event_id not in side.ids:
                side.ids.append(requested.event_id)
            await trio.sleep(0.002)
            return requested, await side.streams[session].read(1, 0)

        self.both(call)

    @rule(session=session, room=st.integers(0, 2), expire=st.booleans(), audit=st.booleans())
    def tend(self, session: str, room: int, expire: bool, audit: bool) -> None:
        """A look at what is due."""
        self.both(lambda side: side.streams[session].tend(room, room, room, expire=expire, audit=audit))

    @rule(session=session, lease=st.sampled_from([LONG, DEAD]))
    def renew(self, session: str, lease: float) -> None:
        """A session lasts, or has expired."""

        async def call(side: Side) -> Any:
            era = await side.streams[session].open_group("0", "default")
            renewal = await side.streams[session].renew(lease, era.id)
            await trio.sleep(0.002)
            return renewal, await side.streams[session].held()

        self.both(call)

    @rule(session=session, number=which, epoch=epoch, clean=st.booleans(), delay=st.sampled_from([0.0, 3600.0]))
    def offer(self, session: str, number: int, epoch: Any, clean: bool, delay: float) -> None:
        """A hand-over."""

        async def call(side: Side) -> Any:
            claim = self.owner(side, number, epoch, session)
            await side.streams[session].offer([claim], clean=[clean], delay_seconds=delay)
            await trio.sleep(0.002)

        self.both(call)

    @rule(session=session, number=which, epoch=epoch)
    def adopt(self, session: str, number: int, epoch: Any) -> None:
        """A note of adoption."""
        self.both(lambda side: side.streams[session].adopt(self.owner(side, number, epoch, session)))

    @rule(
        session=session, number=which, epoch=epoch, index=st.integers(1, 2), accepted=st.booleans(), ends=st.booleans()
    )
    def record(self, session: str, number: int, epoch: Any, index: int, accepted: bool, ends: bool) -> None:
        """An attempt, an outcome, both or none."""

        async def call(side: Side) -> Any:
            writing = Writing(
                self.owner(side, number, epoch, session),
                (Accepted(index, 1, "uid", 77),) if accepted else (),
                (Outcome(index, '{"o":"ended"}', {"Stopped": '{"o":"stopped"}'}),) if ends else (),
            )
            return await side.streams[session].record([writing])

        self.both(call)

    @rule(session=session, number=which, epoch=epoch, index=st.integers(0, 2), before=st.integers(0, 2))
    def tell(self, session: str, number: int, epoch: Any, index: int, before: int) -> None:
        """News, alone or with the start of a stage."""

        async def call(side: Side) -> Any:
            stream, news = side.streams[session], News(before, ("told",))
            claim = self.owner(side, number, epoch, session)
            started = await stream.start_stage(claim, index, (("type", "scale_up"),), news) if index else None
            if started and started != "uid" and started not in side.ids:  # that is a pod's, of the rule `record`
                side.ids.append(started)
            await trio.sleep(0.002)
            written = await stream.record([Writing(claim, news=news)])
            return started, written, await stream.read_news({claim.event_id: 0}), await stream.read(1, 0)

        self.both(call)

    @rule(
        session=session,
        number=which,
        epoch=epoch,
        victims=st.lists(st.tuples(which, st.integers(1, 2))),
        wanted=st.integers(0, 3),
        last=st.booleans(),
        passed_count=st.booleans(),
    )
    def mark_victims(
        self, session: str, number: int, epoch: Any, victims: Any, wanted: int, last: bool, passed_count: bool
    ) -> None:
        """Stop marks."""
        self.both(
            lambda side: side.streams[session].mark_victims(
                self.owner(side, number, epoch, session),
                wanted,
                [Candidate(side.event(to), index, '{"o":"never"}') for to, index in victims if to != number],
                last=last,
                passed_count=passed_count,
            )
        )

    @rule(
        session=session,
        number=which,
        epoch=st.sampled_from(["right", "right", "right", "none", 1]),
        ending=st.sampled_from(["results", "dlq"]),
        size=st.integers(1, 150),
        fenced=st.booleans(),
    )
    def close(self, session: str, number: int, epoch: Any, ending: Any, size: int, fenced: bool) -> None:
        """An event ends, or not."""

        async def call(side: Side) -> Any:
            claim = None if epoch == "none" else self.owner(side, number, epoch, session)
            fences = (Fence("pod", "uid", -HOUR), Fence("pod", f"uid-{number}", HOUR)) if fenced else ()
            pairs = (("n", str(number)), ("pad", "x" * size))
            return await side.streams[session].close(Closing(side.event(number), ending, pairs, claim, fences))

        self.both(call)

    @rule(session=session)
    def leave(self, session: str) -> None:
        """A session ends."""
        self.both(lambda side: side.streams[session].leave())

    @rule(keep=st.integers(0, 2))
    def trim(self, keep: int) -> None:
        """A producer trims the stream."""

        async def call(side: Side) -> None:
            side.backend.trim(keep)

        self.both(call)

    @rule(session=session)
    def look(self, session: str) -> None:
        """Everything that only reads."""

        async def call(side: Side) -> Any:
            stream = side.streams[session]
            known = [await stream.read_progress(event_id) for event_id in side.ids]
            endings = [await stream.read_ending(event_id) for event_id in side.ids]
            results = await stream.read_entries("results", "0", 10, 0)
            requests = [await stream.read_request(name) for name in "rs"], await stream.look([*side.ids, "1-1"])
            back = await stream.read_results_back("", 2)
            return known, endings, results, await stream.survey("task"), await stream.live_events(), requests, back

        self.both(call)


async def _open(side: Side, name: str) -> None:
    era = await side.streams[name].open_group("0", "default")
    await side.streams[name].renew(LONG, era.id)


def _progress(side: Side, number: int) -> dict[str, str]:
    found: dict[str, str] = side.backend.contents().get(side.backend.keys.progress(side.event(number)), {})
    return found


def _plain(answer: Any) -> Any:
    """An answer as text that does not depend on the order of sets and dictionaries."""
    return json.loads(json.dumps(answer, default=_shape, sort_keys=True)) if not isinstance(answer, type) else answer


def _shape(value: Any) -> Any:
    if isinstance(value, frozenset | set):
        return sorted(value)
    if isinstance(value, bytes):
        return value.decode()
    fields = {name: getattr(value, name) for name in value.__dataclass_fields__}
    return {name: str(sorted(field.items())) if isinstance(field, dict) else field for name, field in fields.items()}


def test_the_twin_is_like_valkey(valkey: RedisBackend) -> None:
    """Whatever is asked in whatever order, the twin answers as Valkey does and holds the same."""

    def backends() -> tuple[Backend, Backend]:
        real = RedisBackend(valkey.server)
        real.flush()  # every comparison looks through all keys of the server
        return MemoryBackend(real.keys, clock=time.monotonic), real

    machine = type("Machine", (TwinMachine,), {"backends": staticmethod(backends)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
