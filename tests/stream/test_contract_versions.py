"""The contract, continued: what a newer version of Ottoscaler wrote is left to those who know it."""

from __future__ import annotations

import trio

from ottoscaler.outcomes import RESULT_VERSION
from ottoscaler.stream.base import Candidate, Closing
from ottoscaler.stream.dead_letters import Replayed
from ottoscaler.stream.progress import VERSION
from ottoscaler.stream.requests import Standing
from ottoscaler.stream.scripts import script_text
from tests.stream.backends import Backend
from tests.stream.steps import LEASE, PAIRS, begin, claim, open_session, registration, take

NEWER = VERSION + 1


def test_the_scripts_know_the_same_version() -> None:
    """The number in the scripts is that of the module which reads what they write."""
    assert f"local VERSION = {VERSION} " in script_text("tend")


async def test_an_offered_event_of_a_newer_version_is_not_taken(backend: Backend, clock: trio.abc.Clock) -> None:
    """Taking passes it over without a change, and takes what stands behind it."""
    stream, _ = await open_session(backend, "one")
    newer = await begin(backend, stream, offer=True)
    ours = await begin(backend, stream, offer=True)
    backend.set_version(newer, NEWER)
    before = backend.contents()[backend.keys.progress(newer)]
    assert [progress.event_id for progress in await take(stream, work=1)] == [ours]
    assert await take(stream) == []
    assert backend.contents()[backend.keys.progress(newer)] == before
    assert newer in backend.contents()[backend.keys.offered("work")]


async def test_many_of_a_newer_version_hide_none_of_ours(backend: Backend, clock: trio.abc.Clock) -> None:
    """An event behind more of a newer version than one page holds is found all the same."""
    stream, _ = await open_session(backend, "one")
    ids = [backend.add(*PAIRS) for _ in range(700)]
    await stream.read(len(ids), 1.0)
    await stream.register([registration(event_id, offer=True) for event_id in ids])
    for event_id in ids[:-1]:
        backend.set_version(event_id, NEWER)
    assert [progress.event_id for progress in await take(stream)] == ids[-1:]


async def test_an_event_of_a_newer_version_is_not_looked_into(backend: Backend, clock: trio.abc.Clock) -> None:
    """Who waits for it waits on: nothing is known of how far it is, until it has ended."""
    stream, _ = await open_session(backend, "one")
    event_id = await begin(backend, stream)
    assert (await stream.look([event_id]))[event_id].where == "live"
    backend.set_version(event_id, NEWER)
    assert await stream.look([event_id]) == {event_id: Standing("waiting")}
    closed = await stream.close(Closing(event_id, "results", (("v", "2"),), claim(event_id, "one")))
    assert closed.how == "here"
    assert (await stream.look([event_id]))[event_id].where == "ended"


async def test_a_dead_letter_of_a_newer_version_is_not_replayed(backend: Backend, clock: trio.abc.Clock) -> None:
    """Its entry may mean something else; it stays, for those who know it. One whose version is no number, too."""
    stream, _ = await open_session(backend, "one")
    for version in (str(int(RESULT_VERSION) + 1), "ii"):
        event_id = backend.add(*PAIRS)
        await stream.read(1, 1.0)
        pairs = (("v", version), ("event_id", event_id), ("entry", '[["type","scale_up"]]'))
        letter_id = (await stream.close(Closing(event_id, "dlq", pairs))).entry_id
        before = backend.contents()
        assert await stream.replay_dead_letters([letter_id]) == [Replayed("newer")]
        assert backend.contents() == before


def test_the_replay_knows_the_same_version() -> None:
    """The number in the script is that of the module which writes dead letters."""
    assert f"local LETTERS = {RESULT_VERSION} " in script_text("replay")


async def test_a_dead_owner_s_event_of_a_newer_version_is_offered(backend: Backend, clock: trio.abc.Clock) -> None:
    """When its owner dies, an older replica offers it for those who know it, and keeps no session for it."""
    dead, era = await open_session(backend, "dead")
    event_id = await begin(backend, dead)
    backend.set_version(event_id, NEWER)
    await dead.leave()
    stream, _ = await open_session(backend, "one")
    assert await take(stream, expire=True) == []
    progress = await stream.read_progress(event_id)
    assert progress is not None
    assert (progress.owner, progress.epoch, progress.version) == ("", 1, NEWER)
    assert event_id in backend.contents()[backend.keys.offered("work")]
    assert await stream.sweep([event_id]) == {event_id}
    assert not (await backend.open("dead").renew(LEASE, era.id)).existed


async def test_workers_of_a_newer_version_are_no_victims(backend: Backend, clock: trio.abc.Clock) -> None:
    """A scale_down neither sees nor marks them."""
    stream, _ = await open_session(backend, "one")
    event_id = await begin(backend, stream)
    down = await begin(backend, stream, lane="control")
    backend.set_version(event_id, NEWER)
    before = backend.contents()[backend.keys.progress(event_id)]
    assert await stream.survey("") == []
    chosen = await stream.mark_victims(claim(down, "one"), 1, [Candidate(event_id, 1, "{}")], last=True)
    assert chosen == ()
    assert backend.contents()[backend.keys.progress(event_id)] == before
