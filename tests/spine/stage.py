"""A stage for tests of single events: world, fleet, ledger and twin stream, without the rings around them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import Any

import msgspec
import trio

from ottoscaler.backoff import Backoff
from ottoscaler.events import Event, Limits, parse_entry
from ottoscaler.fair import FairLimiter
from ottoscaler.fleet import Fleet
from ottoscaler.spine.cancelling import Cancel
from ottoscaler.spine.fences import Guard
from ottoscaler.spine.ledger import Ledger
from ottoscaler.spine.roster import Roster
from ottoscaler.spine.scaledown import ScaleDown
from ottoscaler.spine.scaling import Scaling
from ottoscaler.spine.site import Patience, Site
from ottoscaler.spine.standings import Standings
from ottoscaler.stream.base import Claim, Entry, Lane, Registration
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from ottoscaler.stream.progress import Progress
from ottoscaler.throttle import Throttle
from tests.spine.world import World
from tests.spine.world_kube import WorldKube

INSTANCE, ERA, NAMESPACE = "instance-1", "era-1", "otto"


def name_pod(event_id: str, index: int, attempt: int) -> str:
    """A pod's name as the product makes it."""
    return f"otto-agent-{index}-{event_id}" + (f"-r{attempt}" if attempt > 1 else "")


def build_pod(event: Event, index: int, attempt: int) -> dict[str, Any]:
    """A pod with no more than what the spine looks at."""
    labels = {
        "ottoscaler/instance": INSTANCE,
        "ottoscaler/era": ERA,
        "ottoscaler/event-id": event.id,
        "ottoscaler/index": str(index),
        "ottoscaler/attempt": str(attempt),
        "ottoscaler/task-id": event.task_id,
    }
    return {
        "metadata": {"name": name_pod(event.id, index, attempt), "labels": labels},
        "spec": {"containers": [{"name": "worker"}]},
    }


class Stage:
    """One scaler's view; several may share world and server."""

    def __init__(self, world: World, server: MemoryServer, session: str, **patience: float) -> None:
        self.world = world
        self.session = session
        self.stream = MemoryStream(server, session)
        self.kube = WorldKube(world)
        self.fleet = Fleet()
        self.roster = Roster(1000)
        self.ledger = Ledger(self.stream, Backoff(0.1, 1.0, jitter=0.0))
        self.site = Site(
            kube=self.kube,  # type: ignore[arg-type]  # the twin has the methods that the spine uses
            fleet=self.fleet,
            ledger=self.ledger,
            standings=Standings(self.ledger),
            namespace=NAMESPACE,
            instance=INSTANCE,
            era=ERA,
            build_pod=build_pod,
            name_pod=name_pod,
            wait_writable=trio.lowlevel.checkpoint,
            slots=FairLimiter(1000),
            writes=Throttle(4),
            patience=Patience(**patience),  # type: ignore[arg-type]  # all of them are seconds here
            backoff=Backoff(0.1, 1.0, jitter=0.0),
            now=trio.current_time,
        )

        self.guard = Guard(self.site, 3.0)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Stage]:
        """The outer ring: session, ledger, and a simple watch."""
        async with trio.open_nursery() as nursery:
            await self.stream.open_group("0", NAMESPACE)
            await self.stream.renew(3600.0, "")
            await nursery.start(self.ledger.run)
            await nursery.start(self.guard.run)
            await nursery.start(self._watch)
            yield self
            nursery.cancel_scope.cancel(reason="the test is over")

    async def _watch(self, *, task_status: trio.TaskStatus[None]) -> None:
        selector = f"ottoscaler/instance={INSTANCE}"
        pods, version = await self.kube.list_pods(NAMESPACE, selector)
        self.fleet.replace(pods, version)
        task_status.started()
        while True:
            async for kind, pod in self.kube.watch_pods(NAMESPACE, selector, self.fleet.version):
                self.fleet.apply(kind, pod)

    async def add(self, **fields: str | int) -> Progress:
        """Send an event, read it, and hold it."""
        await self.stream.add_event([(name, str(value)) for name, value in fields.items()], token_hex(8))
        (entry,) = await self.stream.read(1, 1.0)
        return await self.hold(entry)

    async def hold(self, entry: Entry) -> Progress:
        """Register a delivered entry as held by this scaler."""
        event = parse_entry(entry.id, entry.fields or (), Limits())
        assert isinstance(event, Event)
        lane: Lane = "work" if event.type == "scale_up" else "control"
        (epoch,) = await self.stream.register(
            [Registration(event.id, lane, event.entry, event.task_id, event.pod_count)]
        )
        return Progress(event.id, lane, self.session, epoch, event.entry, event.task_id, event.pod_count)

    def work(self, progress: Progress) -> Scaling | ScaleDown:
        """The work on an event, as the handler would make it."""
        claim = Claim(progress.event_id, self.session, progress.epoch)
        pairs = tuple((name.encode(), value.encode()) for name, value in progress.entry)
        event = parse_entry(progress.event_id, pairs, Limits())
        assert isinstance(event, Event)
        self.roster.enter(event.id, progress.lane)
        made: Scaling | ScaleDown
        if event.type != "scale_up":
            made = (Cancel if event.type == "cancel" else ScaleDown)(self.site, self.roster, event, progress, claim)
        else:
            made = Scaling(self.site, self.guard, event, progress, claim, lambda: self.roster.settle(event.id))
        self.roster.begin(made)
        return made

    def beside(self, session: str) -> Stage:
        """Another scaler's view of the same world and server."""
        return Stage(self.world, self.stream._server, session)

    async def take(self) -> Progress:
        """Take over the one event that is offered."""
        (taken,) = (await self.stream.tend(1, 1, expire=False, audit=False)).taken
        return taken

    async def pods_left(self) -> list[str]:
        """The pods that exist once those on their way out have had time to go."""
        await trio.sleep(5)
        return sorted(self.world.pods)

    async def results(self) -> list[dict[str, Any]]:
        """All results so far, their workers decoded."""
        entries = await self.stream.read_entries("results", "0", 1000, 0.0)
        return [fields | {"workers": msgspec.json.decode(fields["workers"])} for _, fields in entries]


@asynccontextmanager
async def open_stage(world: World | None = None, **patience: float) -> AsyncIterator[Stage]:
    """A world and one scaler in it."""
    world = world or World()
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        async with Stage(world, MemoryServer(), "s1", **patience).open() as stage:
            yield stage
        nursery.cancel_scope.cancel(reason="the test is over")


@asynccontextmanager
async def heeding(*stages: Stage) -> AsyncIterator[trio.Nursery]:
    """A nursery for works, beside which these scalers heed notices; what runs at the end of the block is cancelled."""
    async with trio.open_nursery() as nursery:
        for stage in stages:
            nursery.start_soon(_heed_notices, stage)
        yield nursery
        nursery.cancel_scope.cancel(reason="the test is over")


async def _heed_notices(stage: Stage) -> None:
    """What the taker does for notices."""
    while True:
        for event_id in (await stage.stream.tend(0, 0, expire=False, audit=False)).notices:
            if work := stage.roster.work_of(event_id):
                work.notice()
        await trio.sleep(0.25)
