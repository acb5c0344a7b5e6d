"""What the connections do when Redis is frozen, killed, emptied or slow, and when callers give up."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from redis.exceptions import ResponseError

from ottoscaler.cli.playground import find_free_port
from ottoscaler.errors import FixYourCall, Unavailable
from ottoscaler.parsing import RedisAddress
from ottoscaler.secret import Secret
from ottoscaler.stream.base import Candidate, Closing, Fence, GroupLost, Outcome, Stream, Writing
from ottoscaler.stream.failures import translation_of
from ottoscaler.stream.keys import Keys
from ottoscaler.stream.scripts import script_text
from tests.stream.backends import TIMEOUT, RedisBackend
from tests.stream.steps import PAIRS, begin, claim, open_session, registration, strays, take

pytestmark = pytest.mark.slow_clock
SOON = TIMEOUT / 4
"""Far below the time after which an answer is given up, and enough for a busy machine."""


@asynccontextmanager
async def frozen(backend: RedisBackend) -> AsyncIterator[None]:
    """Redis answers nothing inside, and everything that was sent to it afterwards."""
    backend.server.freeze()
    try:
        yield
    finally:
        backend.server.thaw()
        backend.server.command("PING")


async def lose_answer(backend: RedisBackend, call: Callable[[], Awaitable[Any]]) -> None:
    """Make a call whose answer gets lost although it is carried out."""
    for name in ("add_event", "close", "record", "tend"):  # a script that is not loaded would not be carried out
        backend.server.command("SCRIPT", "LOAD", script_text(name))
    async with frozen(backend):
        with pytest.raises(Unavailable) as caught:
            await call()
        assert caught.value.address == str(backend.address)


async def impatient(backend: RedisBackend, name: str) -> Stream:
    """A session that waits a second for an answer, in which a busy machine has given any."""
    stream = backend.open(name, timeout=1)
    era = await stream.open_group("0", "default")
    await stream.renew(60, era.id)
    return stream


CALLS: dict[str, Callable[[Stream], Awaitable[Any]]] = {
    "read": lambda stream: stream.read(1, 30),
    "renew": lambda stream: stream.renew(3, "era"),
    "tend": lambda stream: stream.tend(1, 1, expire=True, audit=True),
    "read_entries": lambda stream: stream.read_entries("results", "0", 1, 30),
    "wait_durable": lambda stream: stream.wait_durable(),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("is_frozen", [True, False])
async def test_a_cancelled_call_ends_at_once(own: RedisBackend, name: str, is_frozen: bool) -> None:
    """A cancel ends every call when Redis is frozen, and a waiting read when it is not, long before an answer is given
    up.
    """
    own.server.command("CONFIG", "SET", "appendfsync", "everysec", "appendonly", "yes")  # else nothing is waited for
    stream, _ = await open_session(own, "one")
    await stream.read(1, 0)
    await stream.report()
    threads = threading.active_count()
    if is_frozen:
        own.server.freeze()
    try:
        with trio.move_on_after(0.1) as scope:
            await CALLS[name](stream)
            assert not is_frozen
        assert scope.cancelled_caught or not is_frozen
        assert trio.current_time() - scope.deadline < SOON
    finally:
        own.server.thaw()
    await stream.tend(0, 0, expire=False, audit=False)
    assert threading.active_count() <= threads + 2  # Trio keeps idle threads; none is stuck in a call


async def test_a_silent_address_lets_go(tmp_path: Any) -> None:
    """A cancel also ends the connecting to a server that accepts and never answers, or does not even accept."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        address = RedisAddress(scheme="redis", host="127.0.0.1", port=silent.getsockname()[1], username="u")
        fillers = [socket.socket() for _ in range(4)]
        for accepts in (True, False):
            if not accepts:  # the backlog is full: a connect hangs
                for filler in fillers:
                    filler.setblocking(False)
                    filler.connect_ex(silent.getsockname())
            stream = RedisBackend.at(address).open("one", timeout=30)
            with trio.move_on_after(0.1) as scope:
                await stream.live_events()
            assert scope.cancelled_caught
            assert trio.current_time() - scope.deadline < SOON
            stream.disconnect()
        for filler in fillers:
            filler.close()


async def test_a_refused_connection_is_named() -> None:
    """Where nobody listens, the error names the address."""
    address = RedisAddress(scheme="redis", host="127.0.0.1", port=find_free_port())
    stream = RedisBackend.at(address).open("one")
    with pytest.raises(Unavailable, match=r"Redis at redis://127\.0\.0\.1:\d+/0 cannot be reached") as caught:
        await stream.live_events()
    assert caught.value.address == str(address)


async def test_an_unknown_host_is_named() -> None:
    """A name that does not resolve is an outage that names the address."""
    stream = RedisBackend.at(RedisAddress(scheme="redis", host="nowhere.invalid")).open("one")
    with pytest.raises(Unavailable, match=r"nowhere\.invalid"):
        await stream.live_events()


async def test_a_name_that_is_none_is_a_wrong_setting() -> None:
    """What can be no host name will never resolve: an error that names it, and no traceback of a codec."""
    stream = RedisBackend.at(RedisAddress(scheme="redis", host="a..b")).open("one")
    with pytest.raises(FixYourCall, match=r"redis://a\.\.b:6379/0 cannot be resolved, expected a host name"):
        await stream.live_events()


async def test_a_place_that_cannot_be_ours_is_a_wrong_setting(valkey: RedisBackend) -> None:
    """A key of another type under our name, or a database that there is not: the error says which setting to mend."""
    valkey.server.command("FLUSHALL")
    valkey.server.command("SET", valkey.keys.stream, "taken")
    words = f"key {valkey.keys.stream} is a string, expected a stream or nothing"
    with pytest.raises(FixYourCall, match=f"{words}: set another REDIS_STREAM, or delete that key"):
        await valkey.open("one").open_group("0", "default")
    assert (await valkey.open("one").report()).strangers == (words,)
    with pytest.raises(FixYourCall, match="holds something else under a key of ours, expected another REDIS_STREAM"):
        await valkey.open("one").read(1, 0.0)
    address = RedisAddress(scheme="unix", path=valkey.address.path, db=999)
    with pytest.raises(FixYourCall, match="has no such database, expected another REDIS_DB"):
        await RedisBackend.at(address).open("one").open_group("0", "default")
    valkey.server.command("FLUSHALL")


@pytest.mark.parametrize(
    "words", ["NOGROUP No such key 'a:events' or consumer group 'b'", "UNBLOCKED the stream key no longer exists"]
)
def test_a_stream_that_is_gone_is_a_lost_group(words: str) -> None:
    """Whatever words a server has for it; the second are those of Redis 7.0 to a read that waits."""
    assert isinstance(translation_of(ResponseError(words), "redis://r"), GroupLost)


async def test_no_event_is_doubled_by_a_lost_answer(own: RedisBackend) -> None:
    """Nothing is sent twice by itself, and the producer's own repeat finds its entry."""
    stream = await impatient(own, "one")
    await lose_answer(own, lambda: stream.add_event(PAIRS, "token"))
    entry_id = await stream.add_event(PAIRS, "token")
    assert [entry.id for entry in await stream.read(10, 0)] == [entry_id]


async def test_a_close_is_repeated_after_a_lost_answer(own: RedisBackend) -> None:
    """The close whose answer got lost was carried out; its repeat says `before`, and there is one result."""
    stream = await impatient(own, "one")
    event_id = await begin(own, stream)
    closing = Closing(event_id, "results", (("v", "1"),), claim(event_id, "one"))
    await lose_answer(own, lambda: stream.close(closing))
    assert (await stream.close(closing)).how == "before"
    assert len(await stream.read_entries("results", "0", 10, 0)) == 1


async def test_an_outcome_is_repeated_after_a_lost_answer(own: RedisBackend) -> None:
    """The repeat is answered as the first call would have been."""
    stream = await impatient(own, "one")
    event_id = await begin(own, stream)
    writing = Writing(claim(event_id, "one"), outcomes=(Outcome(1, '{"o":1}'),))
    await lose_answer(own, lambda: stream.record([writing]))
    assert [written.outcomes for written in await stream.record([writing])] == [('{"o":1}',)]


async def test_entries_of_a_lost_answer_come_first(own: RedisBackend) -> None:
    """Entries that Redis delivered into a lost answer are given by the next read, those given before are not."""
    stream = await impatient(own, "one")
    before = own.add(*PAIRS)
    assert [entry.id for entry in await stream.read(10, 0)] == [before]
    lost = own.add(*PAIRS)
    async with frozen(own):
        with pytest.raises(Unavailable):
            await stream.read(10, 0)
    later = own.add(*PAIRS)
    assert [entry.id for entry in await stream.read(10, 0)] == [lost]
    assert [entry.id for entry in await stream.read(10, 0)] == [later]


async def test_a_lost_look_is_given_again(own: RedisBackend) -> None:
    """Notices, events taken and strays of a lost answer come with the repeat, and no more events than there is room."""
    stream, other = await impatient(own, "one"), (await open_session(own, "other"))[0]
    up, down = await begin(own, stream), await begin(own, other, lane="control")
    await other.mark_victims(claim(down, "other"), 1, [Candidate(up, 1, "{}")], last=True)
    offered, later = [await begin(own, other, offer=True) for _ in range(2)]
    dead, _ = await open_session(own, "dead", lease=0.01)
    stray = own.add(*PAIRS)
    await dead.read(1, 1)
    await lose_answer(own, lambda: stream.tend(1, 5, expire=True, audit=False))
    again = await stream.tend(1, 5, expire=True, audit=False)
    assert again.notices == (up,)
    assert [(progress.event_id, progress.epoch) for progress in again.taken] == [(offered, 1)]
    assert [entry.id for entry in await stream.read(10, 0)] == [stray]
    taken = (await stream.tend(1, 5, expire=True, audit=False)).taken
    assert [progress.event_id for progress in taken] == [later]


async def test_entries_that_arrive_with_a_cancel_are_kept(own: RedisBackend) -> None:
    """However a cancel and an arriving entry meet, the entry is given exactly once."""
    stream, _ = await open_session(own, "one")
    added, given = [], []
    for step in range(40):
        async with trio.open_nursery() as nursery:

            async def read_all() -> None:
                given.extend(await stream.read(10, 5))

            nursery.start_soon(read_all)
            await trio.sleep(0.002)
            added.append(own.add(*PAIRS))
            await trio.sleep(0.0001 * (step % 8))
            nursery.cancel_scope.cancel(reason="the test's race")
        if step % 2:
            given.extend(stream.take_unread())
    while rest := await stream.read(100, 0):
        given.extend(rest)
    assert [entry.id for entry in given] == added


async def test_a_restart_between_calls_is_not_noticed(own: RedisBackend) -> None:
    """Connections that died while idle are opened again before anything is sent, and scripts are loaded again."""
    stream, era = await open_session(own, "one")
    event_id = await begin(own, stream)
    await stream.wait_durable()
    own.server.restart()
    assert (await stream.renew(60, era.id)).held == 1
    assert await stream.register([registration(event_id)]) == [1]
    assert await stream.read(1, 0) == []
    await stream.wait_durable()


async def test_a_server_that_is_killed_under_a_call_is_unavailable(own: RedisBackend) -> None:
    """A waiting read fails with the address, and works again when the server is back."""
    stream, _ = await open_session(own, "one")

    async def read() -> None:
        with pytest.raises(Unavailable, match="cannot be reached"):
            await stream.read(1, 30)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.sleep(0.05)
        own.server.kill()
    own.server.start()
    event_id = own.add(*PAIRS)
    assert [entry.id for entry in await stream.read(1, 1)] == [event_id]


async def test_scripts_are_loaded_where_they_are_missing(own: RedisBackend) -> None:
    """After SCRIPT FLUSH the same calls go through."""
    stream, _ = await open_session(own, "one")
    own.server.command("SCRIPT", "FLUSH")
    event_id = await begin(own, stream, offer=True)
    own.server.command("SCRIPT", "FLUSH")
    assert [progress.event_id for progress in await take(stream)] == [event_id]


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), "out of memory"),
        (("REPLICAOF", "127.0.0.1", "1"), "read-only replica"),
    ],
)
async def test_a_server_that_cannot_write_is_unavailable(own: RedisBackend, harm: tuple[str, ...], words: str) -> None:
    """Out of memory and read-only count as an outage, in plain commands and inside scripts."""
    stream, era = await open_session(own, "one")
    own.server.command(*harm)
    for call in (lambda: stream.renew(60, era.id), lambda: stream.add_event(PAIRS, "token")):
        with pytest.raises(Unavailable, match=f"Redis at unix://.* (cannot serve at present|is .*{words})"):
            await call()


async def test_a_wrong_login_is_unavailable(own: RedisBackend) -> None:
    """A password that Redis refuses is an outage in plain words, without the password."""
    address = RedisAddress(scheme="unix", path=own.address.path, username="nobody", password=Secret("hush"))
    stream = RedisBackend.at(address).open("one")
    with pytest.raises(Unavailable, match="refuses the login") as caught:
        await stream.live_events()
    assert "hush" not in str(caught.value)


async def test_a_survey_of_large_events_lets_others_in_between(own: RedisBackend) -> None:
    """One call looks at no more than one event of 10,000 workers: all of them at once would hold Redis up for longer
    than a lease, and a call without an answer would be repeated for ever.
    """
    stream, _ = await open_session(own, "one")
    ids = [await begin(own, stream, planned=10_000) for _ in range(3)]
    outcomes = [word for index in range(1, 10_001) for word in (f"o:{index}", "{}")]
    for event_id in ids:
        own.server.command("HSET", own.keys.progress(event_id), *outcomes)
    own.server.command("SCRIPT", "LOAD", script_text("survey"))
    own.server.command("CONFIG", "RESETSTAT")
    found = await stream.survey("")
    assert [(live.event_id, len(live.settled)) for live in found] == [(event_id, 10_000) for event_id in ids]
    statistics = own.server.command("INFO", "commandstats").splitlines()
    (scripts,) = (line for line in statistics if line.startswith(b"cmdstat_evalsha:"))
    assert b"calls=3," in scripts


async def test_large_events_are_taken_one_by_one(own: RedisBackend) -> None:
    """One look takes no more than one event of 10,000 workers: the progress of many at once would come too late, and
    again too late with each repeat.
    """
    stream, _ = await open_session(own, "one")
    ids = [await begin(own, stream, planned=10_000, offer=True) for _ in range(3)]
    outcomes = [word for index in range(1, 10_001) for word in (f"o:{index}", "{}")]
    for event_id in ids:
        own.server.command("HSET", own.keys.progress(event_id), *outcomes)
    looks = [(await stream.tend(10, 10, expire=False, audit=False)).taken for _ in range(4)]
    assert [[progress.event_id for progress in taken] for taken in looks] == [[ids[0]], [ids[1]], [ids[2]], []]


async def test_a_bug_is_not_an_outage(own: RedisBackend) -> None:
    """A script error passes as it is."""
    stream, _ = await open_session(own, "one")
    down = await begin(own, stream, lane="control")
    own.server.command("HSET", own.keys.progress(down), "victims", "no JSON")
    with pytest.raises(ResponseError, match="script"):
        await stream.mark_victims(claim(down, "one"), 1, [], last=True)


async def test_names_come_back_but_epochs_do_not(own: RedisBackend) -> None:
    """Entries of a trimmed stream survive a takeover on a real server, and a dead namesake's write is refused."""
    one, _ = await open_session(own, "one", lease=0.05)
    event_id = await begin(own, one)
    own.trim(0)
    await trio.sleep(0.1)
    two, _ = await open_session(own, "two")
    assert [progress.epoch for progress in await take(two, expire=True)] == [2]
    assert not await one.adopt(claim(event_id, "one"))
    assert await strays(two) == []


async def test_every_key_carries_the_hash_tag(own: RedisBackend) -> None:
    """With a tag in the stream's name all keys lie in one slot."""
    own.keys = Keys("{tag}:events", "blue")
    stream, _ = await open_session(own, "one")
    held, ended = await begin(own, stream), await begin(own, stream)
    down = await begin(own, stream, lane="control")
    await stream.mark_victims(claim(down, "one"), 1, [Candidate(held, 1, "{}")], last=True)
    await begin(own, stream, offer=True)
    await take(stream)
    await begin(own, stream, offer=True)
    fences = (Fence("pod", "uid"),)
    await stream.close(Closing(ended, "results", (("v", "1"),), claim(ended, "one"), fences))
    await stream.add_event(PAIRS, "token")
    own.server.command("CONFIG", "SET", "appendfsync", "everysec")
    await stream.wait_durable()
    keys = own.server.command("KEYS", "*")
    assert len(keys) >= 16
    assert [key for key in keys if not key.startswith(b"{tag}:")] == []


async def test_connections_are_closed(own: RedisBackend) -> None:
    """After `disconnect` no socket is left for the garbage collector to complain of."""
    stream, _ = await open_session(own, "one")
    await stream.read(1, 0)
    await stream.read_entries("results", "0", 1, 0)
    await stream.wait_durable()
    assert int(_clients(own)) > 1
    own.disconnect()
    del stream
    gc.collect()
    with trio.fail_after(20):
        while _clients(own) > 1:  # noqa: ASYNC110 - the server notices it by itself
            await trio.sleep(0.01)


def _clients(backend: RedisBackend) -> int:
    return len(backend.server.command("CLIENT", "LIST").splitlines())
