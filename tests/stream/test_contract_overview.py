"""The contract, continued: what people see of an installation."""

from __future__ import annotations

import trio

from ottoscaler.stream.backlog import EventFacts, Overview
from ottoscaler.stream.base import Accepted, Closing, Outcome, Registration, Writing
from tests.stream.backends import Backend
from tests.stream.steps import PAIRS, begin, claim, open_session


async def test_nothing_going_on_is_empty(backend: Backend, clock: trio.abc.Clock) -> None:
    """Where no scaler ever was there is nothing to see, and looking makes no key."""
    assert await backend.open("cli").overview(5) == Overview((), (), 0, ())
    assert backend.contents() == {}


async def test_sessions_are_seen_with_their_leases(backend: Backend, clock: trio.abc.Clock) -> None:
    """A live session has time left and counts what it holds; one that ended has less than none."""
    one, era = await open_session(backend, "one")
    await begin(backend, one)
    two = backend.open("two")
    await two.renew(0.001, era.id)
    await trio.sleep(0.05)
    ended, live = (await backend.open("cli").overview(0)).holders
    assert (live.session, live.held) == ("one", 1)
    assert 50 < live.lease_seconds <= 60
    assert (ended.session, ended.held) == ("two", 0)
    assert -30 < ended.lease_seconds < 0


async def test_what_a_session_cannot_reach_is_seen(backend: Backend, clock: trio.abc.Clock) -> None:
    """What the last renewal said of outages; nothing any more once one says nothing, or when the session has left."""
    one, era = await open_session(backend, "one")
    cli = backend.open("cli")

    async def told() -> list[str]:
        return [holder.outages for holder in (await cli.overview(0)).holders]

    assert await told() == [""]
    await one.renew(60.0, era.id, '{"api":{"since":5,"reason":"ü"}}')
    assert await told() == ['{"api":{"since":5,"reason":"ü"}}']
    await one.renew(60.0, era.id)
    assert await told() == [""]
    await one.renew(60.0, era.id, "{}")
    await one.leave()
    assert await told() == []
    assert backend.keys.outages not in backend.contents()


async def test_live_events_are_seen(backend: Backend, clock: trio.abc.Clock) -> None:
    """Each with its type, its owner and the numbers of its workers, oldest first."""
    stream, _ = await open_session(backend, "one")
    working = await begin(backend, stream, task="t")
    outcome = Outcome(1, '{"outcome":"succeeded"}')
    trouble = (2, '{"cause":"Unschedulable"}')
    await stream.record([Writing(claim(working, "one"), (Accepted(1, 1, "u", 5),), (outcome,), (trouble,))])
    offered = await begin(backend, stream, offer=True)
    down = backend.add(("type", "scale_down"), ("pod_count", "2"))
    pipeline = backend.add(("type", "pipeline"))
    await stream.read(2, 1.0)
    await stream.register(
        [
            Registration(down, "control", (("type", "scale_down"), ("pod_count", "2")), "t", 2),
            Registration(pipeline, "pipelines", (("type", "pipeline"),), "", 4, request_id="pipeline:p"),
        ]
    )
    assert list((await stream.overview(0)).events) == [
        EventFacts(working, "scale_up", "one", "t", 3, 1, 1, '{"cause":"Unschedulable"}', ""),
        EventFacts(offered, "scale_up", "", "", 3, 0, 0, "", ""),
        EventFacts(down, "scale_down", "one", "t", 2, 0, 0, "", ""),
        EventFacts(pipeline, "pipeline", "one", "", 4, 0, 0, "", "pipeline:p"),
    ]
    backend.set_version(working, 2)
    assert [event.type for event in (await stream.overview(0)).events][:1] == [""]


async def test_the_last_dead_letters_are_seen(backend: Backend, clock: trio.abc.Clock) -> None:
    """As many as were asked for, newest first, short; the number is of all."""
    stream, _ = await open_session(backend, "one")
    ids = [backend.add(*PAIRS) for _ in range(3)]
    await stream.read(3, 1.0)
    for id_ in ids:
        pairs = (("v", "1"), ("event_id", id_), ("cause", "BadPodCount"), ("reason", "ü"), ("entry", "[]"))
        await stream.close(Closing(id_, "dlq", pairs))
    seen = await stream.overview(2)
    assert seen.dead_letters == 3
    assert [fields for _, fields in seen.last_letters] == [
        {"event_id": id_, "cause": "BadPodCount", "reason": "ü"} for id_ in (ids[2], ids[1])
    ]
    assert [id_ for id_, _ in seen.last_letters] == [
        await stream.dead_letter_of(ids[2]),
        await stream.dead_letter_of(ids[1]),
    ]
