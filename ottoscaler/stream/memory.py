"""The in-memory twin of Redis: `memory://`, and the stream of tests under a virtual clock.

`MemoryServer` is what all sessions share; `MemoryStream` is one session's view of it. The scripts are plain functions
without an await, so that each is atomic, as a script in Redis is. Every call can be cancelled before and after its
change: as with Redis, a cancelled or failed call may have been carried out.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, TypeVar

import trio

from ottoscaler.errors import Unavailable
from ottoscaler.stream import memory_ownership as ownership
from ottoscaler.stream import memory_sweep as sweeping
from ottoscaler.stream import memory_work as work
from ottoscaler.stream.base import (
    Candidate,
    Claim,
    Closed,
    Closing,
    Entry,
    Era,
    Fence,
    Lane,
    LiveEvent,
    Pairs,
    Registration,
    Renewal,
    Stream,
    Tending,
    Writing,
    Written,
)
from ottoscaler.stream.entry_id import parse_id
from ottoscaler.stream.memory_backlog import MemoryBacklog
from ottoscaler.stream.memory_dead_letters import MemoryDeadLetters
from ottoscaler.stream.memory_log import BytePairs
from ottoscaler.stream.memory_marks import MemoryMarks
from ottoscaler.stream.memory_pipelines import MemoryPipelines
from ottoscaler.stream.memory_requests import MemoryRequests, add_event
from ottoscaler.stream.memory_state import MemoryServer
from ottoscaler.stream.memory_tending import tend
from ottoscaler.stream.progress import Progress, read_progress
from ottoscaler.stream.recovery import Deliveries
from ottoscaler.stream.safekeeping import ServerReport

__all__ = ["MemoryServer", "MemoryStream"]

T = TypeVar("T")
ADDRESS = "memory://"


class MemoryStream(MemoryDeadLetters, MemoryMarks, MemoryRequests, MemoryBacklog, MemoryPipelines, Stream):
    """One session's view of a `MemoryServer`."""

    def __init__(self, server: MemoryServer, session: str) -> None:
        self._server = server
        self.address = ADDRESS
        self.session = self._session = session
        self._deliveries = Deliveries()
        self._swept = 0
        self._tend_call = 1
        self._era = ""

    async def _call_here(self, name: str, script: Callable[[], T]) -> T:
        """A script that the server refuses to a session of another era."""

        def refused_or_run() -> T:
            self._server.refuse_past(self._era)
            return script()

        return await self._call(name, refused_or_run)

    async def _call(self, name: str, script: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()
        while self._server.weather == "silent":
            await self._server.changed.wait()
        answer = self._carry_out(name, script)
        await trio.lowlevel.checkpoint()
        return answer

    def _carry_out(self, name: str, script: Callable[[], T]) -> T:
        """What happens in the server."""
        if self._server.weather == "refusing":
            raise Unavailable("the in-memory stream was told to refuse every call", address=ADDRESS)
        answer = script()
        if name in self._server.lose_answer_of:
            self._server.lose_answer_of.discard(name)
            raise Unavailable(f"the answer of {name} was told to get lost", address=ADDRESS)
        return answer

    async def open_group(self, start: str, namespace: str) -> Era:
        """Create stream, group and era where they are missing."""
        new_era = secrets.token_hex(5)
        era = await self._call("open_group", lambda: ownership.open_group(self._server, start, namespace, new_era))
        self._era = era.id
        return era

    async def read_era(self) -> Era | None:
        """The era as it stands."""
        return await self._call("read_era", lambda: self._server.era)

    async def read(self, count: int, block_seconds: float) -> list[Entry]:
        """Deliver up to `count` new entries to this session."""
        if self._deliveries.is_doubtful:
            found = await self._call("recover", lambda: ownership.unregistered(self._server, self._session))
            self._deliveries.recover(found)
        with trio.CancelScope() as patience:
            while not self._deliveries.has_unread():
                changed = self._server.changed
                with self._deliveries.doubt():
                    await self._call("read", lambda: self._deliver(count))
                if self._deliveries.has_unread():
                    break
                patience.deadline = min(patience.deadline, trio.current_time() + block_seconds)
                await changed.wait()
        return self._deliveries.take(count)

    def _deliver(self, count: int) -> None:
        self._server.group()
        found = self._server.events.deliver(self._server.keys.group, self._session, count)
        if "read" not in self._server.lose_answer_of:
            self._deliveries.arrive([Entry(entry_id, pairs) for entry_id, pairs in found])

    def take_unread(self) -> list[Entry]:
        """Entries that arrived together with a cancel."""
        return self._deliveries.take()

    async def renew(self, lease_seconds: float, era: str, outages: str = "") -> Renewal:
        """Keep this session for another lease."""
        lease_ms = round(lease_seconds * 1000)
        return await self._call("renew", lambda: ownership.renew(self._server, self._session, lease_ms, era, outages))

    async def held(self) -> frozenset[str]:
        """The ids of the events that this session holds."""
        return await self._call("held", lambda: ownership.held(self._server, self._session))

    async def register(self, registrations: Sequence[Registration]) -> list[int]:
        """Write down events that were delivered."""
        epochs = await self._call_here(
            "register",
            lambda: [ownership.register(self._server, self._session, registration) for registration in registrations],
        )
        self._deliveries.forget(registration.event_id for registration in registrations)
        return epochs

    async def tend(
        self, work_room: int, control_room: int, pipeline_room: int = 0, *, expire: bool, audit: bool
    ) -> Tending:
        """One look at all that is due."""
        rooms: dict[Lane, int] = {"work": work_room, "control": control_room, "pipelines": pipeline_room}
        with self._deliveries.doubt():
            answer = await self._call_here(
                "tend",
                lambda: tend(
                    self._server,
                    self._session,
                    self._tend_call,
                    rooms,
                    expire=expire,
                    audit=audit,
                ),
            )
        self._tend_call += 1
        self._deliveries.give(answer.strays)
        return answer

    async def adopt(self, claim: Claim) -> bool:
        """Note in the progress that this session goes on with the event."""
        return await self._call("adopt", lambda: ownership.adopt(self._server, claim))

    async def record(self, writings: Sequence[Writing]) -> list[Written]:
        """Record accepted attempts and outcomes."""
        return await self._call("record", lambda: [work.record(self._server, writing) for writing in writings])

    async def read_progress(self, event_id: str) -> Progress | None:
        """The progress of one live event."""
        fields = await self._call("read_progress", lambda: dict(self._server.progress.get(event_id, {})))
        return read_progress(event_id, fields) if fields else None

    async def survey(self, task_id: str) -> list[LiveEvent]:
        """All live events of the work lane, of one task or of all."""
        return await self._call("survey", lambda: work.survey(self._server, task_id))

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
        script = partial(work.mark_victims, self._server, claim, wanted, candidates)
        return await self._call("mark_victims", lambda: script(last=last, cause=cause, passed_count=passed_count))

    async def offer(
        self, claims: Sequence[Claim], *, clean: Sequence[bool], delay_seconds: float = 0.0, failed: bool = False
    ) -> None:
        """Hand events over."""
        delay_ms = round(delay_seconds * 1000)

        def script() -> None:
            for claim, is_clean in zip(claims, clean, strict=True):
                ownership.offer(self._server, claim, is_clean, delay_ms, failed)

        await self._call("offer", script)

    async def leave(self) -> None:
        """End this session."""
        await self._call("leave", lambda: ownership.leave(self._server, self._session))

    async def close(self, closing: Closing) -> Closed:
        """End an event."""
        closed = await self._call("close", lambda: work.close(self._server, closing))
        self._deliveries.forget([closing.event_id])
        return closed

    async def sweep(self, event_ids: Sequence[str]) -> frozenset[str]:
        """Which of these events are known."""
        known, seen = await self._call_here("sweep", lambda: sweeping.sweep(self._server, event_ids, self._swept))
        self._swept = self._swept + seen if seen == ownership.PAGE else 0
        return known

    async def reserve(self, used: int, want: int, total: int) -> int:
        """Declare slots used and wanted; how many this session has now."""
        script = partial(sweeping.reserve, self._server, self._session, used, want, total)
        return await self._call("reserve", script)

    async def list_fences(self) -> list[Fence]:
        """The fences of events that have closed."""
        return await self._call("list_fences", lambda: work.list_fences(self._server))

    async def drop_fences(self, fences: Sequence[Fence]) -> None:
        """Forget fences whose pods were deleted."""
        await self._call(
            "drop_fences", lambda: [self._server.fences.pop((fence.name, fence.uid), None) for fence in fences]
        )

    @property
    def restarts(self) -> int:
        """None: it ends with the process."""
        return 0

    async def wait_durable(self) -> None:
        """Nothing survives a crash in memory, so nothing is waited for."""
        await trio.lowlevel.checkpoint()

    async def add_event(self, pairs: Pairs, token: str) -> str:
        """Append an event, once per token."""
        return await self._call("add_event", lambda: add_event(self._server, pairs, token))

    async def read_ending(self, event_id: str) -> tuple[str, dict[str, str]] | None:
        """How an event ended."""
        return await self._call("read_ending", lambda: work.read_ending(self._server, event_id))

    async def read_entries(
        self, which: Literal["results", "dlq"], after: str, count: int, block_seconds: float
    ) -> list[tuple[str, dict[str, str]]]:
        """Up to `count` entries after an id."""
        log = self._server.log(which)
        start = log.last if after == "$" else parse_id(after)
        found: list[tuple[str, BytePairs]] = []
        with trio.CancelScope() as patience:
            while not found:
                changed = self._server.changed
                found = await self._call("read_entries", lambda: self._server.log(which).after(start, count))
                if found:
                    break
                patience.deadline = min(patience.deadline, trio.current_time() + block_seconds)
                await changed.wait()
        return [(id_, {name.decode(): value.decode() for name, value in pairs}) for id_, pairs in found]

    async def live_events(self) -> list[str]:
        """Ids of all events with progress."""
        return await self._call("live_events", self._server.live_ids)

    async def report(self) -> ServerReport:
        """What memory can promise: nothing beyond this process."""
        await trio.lowlevel.checkpoint()
        promise = "kept in this process only: a crash loses every event that was accepted and not yet ended"
        return ServerReport("memory", append_only=False, fsync=None, eviction=None, promise=promise)
