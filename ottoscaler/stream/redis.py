"""The stream kept by Redis 6.2 and later, or Valkey: one session's connections, and the scripts called over them.

Connections, each for what may block it: calls, the renewal, what people look at, waiting reads (each with
one to end them), durability.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Literal, TypeVar

import msgspec
import trio

from ottoscaler.errors import FixYourCall
from ottoscaler.parsing import RedisAddress
from ottoscaler.stream import answers, bare_redis  # noqa: F401  bare_redis: before the first that imports redis
from ottoscaler.stream.base import (
    Candidate,
    Claim,
    Closed,
    Closing,
    Entry,
    Era,
    Fence,
    LiveEvent,
    Registration,
    Renewal,
    Stream,
    Tending,
    Writing,
    Written,
)
from ottoscaler.stream.durability import Durability, read_facts
from ottoscaler.stream.entry_id import parse_id
from ottoscaler.stream.key_types import find_strangers, mend_of
from ottoscaler.stream.keys import Keys
from ottoscaler.stream.link import Link
from ottoscaler.stream.progress import Progress, encode_accepted, read_progress
from ottoscaler.stream.reader import Reader
from ottoscaler.stream.recovery import Deliveries
from ottoscaler.stream.redis_backlog import RedisBacklog
from ottoscaler.stream.redis_dead_letters import RedisDeadLetters
from ottoscaler.stream.redis_marks import RedisMarks
from ottoscaler.stream.redis_pipelines import RedisPipelines
from ottoscaler.stream.redis_requests import RedisRequests
from ottoscaler.stream.retention import Retention
from ottoscaler.stream.safekeeping import ServerReport
from ottoscaler.stream.scripts import Scripts

T = TypeVar("T")
PAGE = 500  # things handled by one script call
RECOVERED = 5000  # entries that one recovery finds; more than any process reads ahead
HOUR_MS = 3_600_000


class RedisStream(RedisDeadLetters, RedisMarks, RedisRequests, RedisBacklog, RedisPipelines, Stream):
    """One session's view of a stream in Redis.

    `timeout` (seconds) bounds each answer; it must be below the lease, so that a call ends before the lease does.
    """

    def __init__(
        self, address: RedisAddress, keys: Keys, session: str, *, retention: Retention, timeout: float
    ) -> None:
        self.address = str(address)
        self.session = self._session = session
        self._address = address
        self._keys = keys
        self._retention = retention
        self._timeout = timeout
        self._calls = Link(address, timeout=timeout)
        self._lease = Link(address, timeout=timeout)
        self._aside = Link(address, timeout=timeout)
        self._reader = Reader(address, timeout=timeout)
        self._durability = Durability(address, keys.marker, timeout=timeout)
        self._spare_readers: list[Reader] = []
        self._scripts = Scripts(keys, session)
        self._deliveries = Deliveries()
        self._swept = 0
        self._tend_call = 1
        self._era: dict[str, str] = {}  # as an argument of scripts; of a session that opened no group there is none

    def disconnect(self) -> None:
        """Close every connection; the next call opens what it needs again. Not while a call is under way."""
        for link in (self._calls, self._lease, self._aside):
            link.disconnect()
        for reader in (self._reader, *self._spare_readers):
            reader.disconnect()
        self._durability.disconnect()

    async def _call(self, name: str, **arguments: Any) -> Any:
        return await self._scripts.call(self._calls, name, **arguments)

    async def open_group(self, start: str, namespace: str) -> Era:
        """Create stream, group and era where they are missing; `FixYourCall` where keys of ours are not ours."""
        if strangers := await self._calls.run(lambda exchange: find_strangers(exchange, self._keys)):
            raise FixYourCall(f"Redis at {self.address}: {'; '.join(strangers)}: {mend_of(strangers[0])}")
        raw = await self._call("open_group", start=start, namespace=namespace, era=secrets.token_hex(5))
        era = answers.era(raw)
        self._era = {"era": era.id}
        await self._durability.connect()  # so that the first wait is no sign of a crash
        return era

    async def read_era(self) -> Era | None:
        """The era as it stands."""
        raw = await self._calls.command("HMGET", self._keys.era, "id", "namespace", "created")
        return None if None in raw else answers.era(raw)

    async def read(self, count: int, block_seconds: float) -> list[Entry]:
        """Deliver up to `count` new entries to this session."""
        if self._deliveries.is_doubtful:
            found = await self._call("recover", limit=RECOVERED)
            self._deliveries.recover([answers.entry(raw) for raw in found])
        until = trio.current_time() + block_seconds
        while not self._deliveries.has_unread():
            with self._deliveries.doubt():
                raw = await self._reader.read(
                    *("XREADGROUP", "GROUP", self._keys.group, self._session, "COUNT", count),
                    streams=(self._keys.stream, ">"),
                    block_seconds=until - trio.current_time(),
                )
            self._deliveries.arrive(answers.entries(raw))
            await trio.lowlevel.checkpoint_if_cancelled()  # what arrived with a cancel stays unread
            if trio.current_time() >= until:
                break
        return self._deliveries.take(count)

    def take_unread(self) -> list[Entry]:
        """Entries that arrived together with a cancel."""
        return self._deliveries.take()

    async def renew(self, lease_seconds: float, era: str, outages: str = "") -> Renewal:
        """Keep this session for another lease."""
        lease = round(lease_seconds * 1000)
        raw = await self._scripts.call(self._lease, "renew", era=era, lease=lease, outages=outages)
        return answers.renewal(raw)

    async def held(self) -> frozenset[str]:
        """The ids of the events that this session holds."""
        raw = await self._lease.command("SMEMBERS", self._keys.held(self._session))
        return frozenset(map(answers.text, raw))

    async def register(self, registrations: Sequence[Registration]) -> list[int]:
        """Write down events that were delivered."""
        epochs: list[int] = []
        for page in _pages(registrations):
            rows = [
                (
                    *(one.event_id, one.lane, _json(one.entry), one.task_id, str(one.planned), one.offer),
                    *(one.request_id, one.content, one.replay_of),
                )
                for one in page
            ]
            epochs += await self._call("register", registrations=rows, **self._era)
            self._deliveries.forget(one.event_id for one in page)
        return epochs

    async def tend(
        self, work_room: int, control_room: int, pipeline_room: int = 0, *, expire: bool, audit: bool
    ) -> Tending:
        """One look at all that is due."""
        rooms = {"work": work_room, "control": control_room, "pipelines": pipeline_room}
        with self._deliveries.doubt():
            asked = {**rooms, "expire": expire, "audit": audit, **self._era}
            raw = await self._call("tend", call=str(self._tend_call), **asked)
        self._tend_call += 1
        answer = answers.tending(raw)
        self._deliveries.give(answer.strays)
        return answer

    async def adopt(self, claim: Claim) -> bool:
        """Note in the progress that this session goes on with the event."""
        return bool(await self._call("adopt", claim=_token(claim)))

    async def record(self, writings: Sequence[Writing]) -> list[Written]:
        """Record accepted attempts and outcomes."""
        written = [Written(is_ours=True)] * len(writings)
        for page in _pages(list(_parts(writings))):
            raws = await self._call("record", writings=[row for _, row in page])
            for (at, _), raw in zip(page, raws, strict=True):
                part, so_far = answers.written(raw), written[at]
                is_ours = part.is_ours and so_far.is_ours
                written[at] = Written(is_ours, so_far.outcomes + part.outcomes if is_ours else ())
        return written

    async def read_progress(self, event_id: str) -> Progress | None:
        """The progress of one live event."""
        flat = await self._calls.command("HGETALL", self._keys.progress(event_id))
        return read_progress(event_id, answers.texts(flat)) if flat else None

    async def survey(self, task_id: str) -> list[LiveEvent]:
        """All live events of the work lane, of one task or of all."""
        found: list[LiveEvent] = []
        ids = await self.live_events()
        while ids:
            looked_at, facts = await self._call("survey", ids=ids[:PAGE], task_id=task_id)
            found += map(answers.live_event, facts)
            ids = ids[looked_at:]
        return found

    async def mark_victims(
        self,
        claim: Claim,
        wanted: int,
        candidates: Sequence[Candidate],
        *,
        last: bool,
        cause: str = "Stopped",
        passed_count: bool = False,
    ) -> tuple[tuple[str, int], ...] | None:
        """Choose victims in the order given, and mark them."""
        victims: tuple[tuple[str, int], ...] = ()
        pages = list(_pages(candidates)) or [[]]
        for number, page in enumerate(pages, start=1):
            raw = await self._call(
                "mark_victims",
                claim=_token(claim),
                wanted=wanted,
                candidates=[(one.event_id, one.index, one.outcome) for one in page],
                last=last and number == len(pages),
                cause=cause,
                passed_count=passed_count,
            )
            if raw == 0:
                return None
            victims = answers.victims(raw)
            if passed_count:
                wanted -= sum((one.event_id, one.index) not in victims for one in page)
        return victims

    async def offer(
        self, claims: Sequence[Claim], *, clean: Sequence[bool], delay_seconds: float = 0.0, failed: bool = False
    ) -> None:
        """Hand events over."""
        events = [(*_token(claim), is_clean) for claim, is_clean in zip(claims, clean, strict=True)]
        for page in _pages(events):
            await self._call("offer", events=page, delay=round(delay_seconds * 1000), failed=failed)

    async def leave(self) -> None:
        """End this session."""
        await self._call("leave")

    async def close(self, closing: Closing) -> Closed:
        """End an event."""
        given: dict[str, Any] = {"claim": _token(closing.claim)} if closing.claim else {}
        given |= {"kept": closing.kept} if closing.kept else {}
        given |= {"ended": closing.ended} if closing.ended else {}
        raw = await self._call(
            "close",
            id=closing.event_id,
            target=closing.target,
            pairs=[part for pair in closing.pairs for part in pair],
            fences=[(_json((fence.name, fence.uid)), fence.due) for fence in closing.fences],
            results_keep=self._retention.results_keep,
            results_max_bytes=self._retention.results_max_bytes,
            trim=self._retention.trim,
            **given,
        )
        self._deliveries.forget([closing.event_id])
        return answers.closed(raw)

    async def sweep(self, event_ids: Sequence[str]) -> frozenset[str]:
        """Which of these events are known."""
        known: set[str] = set()
        for page in list(_pages(event_ids)) or [[]]:
            found, seen = await self._call("sweep", ids=page, gone_after=HOUR_MS, **{"from": self._swept}, **self._era)
            known.update(map(answers.text, found))
            self._swept = self._swept + seen if seen == PAGE else 0
        return frozenset(known)

    async def reserve(self, used: int, want: int, total: int) -> int:
        """Declare slots used and wanted; how many this session has now."""
        return int(await self._call("reserve", used=used, want=want, total=total))

    async def list_fences(self) -> list[Fence]:
        """The fences of events that have closed."""
        query = (self._keys.fences, "-inf", "+inf", "WITHSCORES", "LIMIT", 0, 1000)
        return answers.fences(await self._calls.command("ZRANGEBYSCORE", *query))

    async def drop_fences(self, fences: Sequence[Fence]) -> None:
        """Forget fences whose pods were deleted."""
        for page in _pages(fences):
            members = [_json((fence.name, fence.uid)) for fence in page]
            await self._calls.command("ZREM", self._keys.fences, *members)

    @property
    def restarts(self) -> int:
        """Grows with each new connection of those that are used all the time."""
        return self._lease.connects + self._durability.connects

    async def wait_durable(self) -> None:
        """Return when all recorded before would survive a crash of Redis, as far as it can promise that."""
        await self._durability.wait()

    async def read_ending(self, event_id: str) -> tuple[str, dict[str, str]] | None:
        """How an event ended."""
        ending = await self._calls.command("GET", self._keys.done(event_id))
        if ending is None:
            return None
        target, _, entry_id = answers.text(ending).partition(" ")
        found = await self._calls.command("XRANGE", self._log(target), entry_id, entry_id)
        return target, answers.texts(found[0][1]) if found else {}

    async def read_entries(
        self, which: Literal["results", "dlq"], after: str, count: int, block_seconds: float
    ) -> list[tuple[str, dict[str, str]]]:
        """Up to `count` entries after an id."""
        until = trio.current_time() + block_seconds
        start = await self._last_id(which) if after == "$" else after
        async with self._borrow_reader() as reader:
            while True:
                raw = await reader.read(
                    *("XREAD", "COUNT", count),
                    streams=(self._log(which), start),
                    block_seconds=until - trio.current_time(),
                )
                await trio.lowlevel.checkpoint_if_cancelled()
                if raw:
                    return [(answers.text(id_), answers.texts(flat)) for id_, flat in raw[0][1]]
                if trio.current_time() >= until:
                    return []

    async def live_events(self) -> list[str]:
        """Ids of all events with progress."""
        raw = await self._calls.command("ZRANGEBYSCORE", self._keys.live, "-inf", "+inf")
        return sorted(map(answers.text, raw), key=parse_id)

    async def report(self) -> ServerReport:
        """Version, persistence and eviction policy of the server, and keys of ours that hold something else."""
        facts = await self._calls.run(read_facts)
        strangers = await self._calls.run(lambda exchange: find_strangers(exchange, self._keys))
        return replace(facts.report(), strangers=strangers)

    def _log(self, which: str) -> str:
        return self._keys.results if which == "results" else self._keys.dead_letters

    async def _last_id(self, which: str) -> str:
        newest = await self._calls.command("XREVRANGE", self._log(which), "+", "-", "COUNT", 1)
        return answers.text(newest[0][0]) if newest else "0"

    @asynccontextmanager
    async def _borrow_reader(self) -> AsyncIterator[Reader]:
        reader = self._spare_readers.pop() if self._spare_readers else Reader(self._address, timeout=self._timeout)
        try:
            yield reader
        finally:
            self._spare_readers.append(reader)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _token(claim: Claim) -> tuple[str, str, str]:
    return claim.event_id, claim.session, str(claim.epoch)


def _pages(things: Sequence[T], size: int = PAGE) -> Iterator[Sequence[T]]:
    return (things[start : start + size] for start in range(0, len(things), size))


def _parts(writings: Sequence[Writing]) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Rows for `record`, each with at most a page of attempts or outcomes, and the position of their writing."""
    for at, writing in enumerate(writings):
        accepted = [(f"a:{one.index}:{one.attempt}", encode_accepted(one), str(one.at)) for one in writing.accepted]
        outcomes = [
            (str(one.index), one.outcome, one.if_stopped, f"t:{one.index}:{one.retried}" if one.retried else "")
            for one in writing.outcomes
        ]
        token = _token(writing.claim)
        rows: list[tuple[Any, ...]] = [(token, page, []) for page in _pages(accepted)] + [
            (token, [], page) for page in _pages(outcomes)
        ]
        troubles = [(f"w:{index}", text) for index, text in writing.troubles]
        news = [writing.news.before, writing.news.texts] if writing.news else []
        first, *rest = rows or [(token, [], [])]
        yield at, (*first, troubles, news)
        yield from ((at, (*row, [], [])) for row in rest)
