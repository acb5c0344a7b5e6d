"""The three rings of a running service, from the first look at Redis to the hand-over.

    outer    ledger, session, watches, guard     end last: everything inside needs them
     └─ work    handler, one task per event      gets a deadline when the drain begins
         └─ intake   poller, taker, sweeper      cancelled first

Stop order is the nesting. Intake ends when a drain is requested or when Redis has forgotten our era. Then what is
not begun is handed over at once, and the rest of the work ends by itself or at the drain's deadline. What is left then
is handed over before its tasks are unwound: thousands of them take longer to end than others should have to wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import trio
import trio_util

from ottoscaler.backoff import Backoff
from ottoscaler.drain import Drain
from ottoscaler.errors import Answered, FixYourCall, Unavailable
from ottoscaler.events import Limits
from ottoscaler.gauges import Vitals
from ottoscaler.kube.warnings import watch_warnings
from ottoscaler.kube.watch import WatchState, watch_fleet
from ottoscaler.log import log
from ottoscaler.metrics import LEASES_LOST
from ottoscaler.pods import INSTANCE_LABEL
from ottoscaler.settings import Settings
from ottoscaler.spine.bound import Bound
from ottoscaler.spine.fences import Guard
from ottoscaler.spine.handler import Handler
from ottoscaler.spine.poller import Poller
from ottoscaler.spine.roster import Roster
from ottoscaler.spine.site import Site
from ottoscaler.spine.sweeper import Sweeper
from ottoscaler.spine.taker import Taker
from ottoscaler.startup import Startup
from ottoscaler.stream.base import Claim, Era, GroupLost
from ottoscaler.stream.progress import Progress
from ottoscaler.stream.session import Session
from ottoscaler.supervisor import Part, Supervisor, Unrecoverable
from ottoscaler.termination_log import write_termination_log

GIVE_BACK_SECONDS = 0.3
HAND_OVER_SECONDS = 0.4
"""Limits of the two steps that talk to Redis during a drain; a silent Redis must not hold up the end."""
SETTLE_SECONDS = 0.15
"""Of the hand-over: for answers to the last requests, and for writing down what they said."""


class Doors(NamedTuple):
    """What lets others ask: a door that serves until it has drained, and the parts behind it, by name."""

    door: Part | None = None
    parts: Mapping[str, Part] = {}


class Rings:
    """One life of the service: one era, one session. `run` returns when nothing of it is left."""

    def __init__(
        self,
        settings: Settings,
        drain: Drain,
        site: Site,
        session: Session,
        name: str,
        era: Era,
        limits: Limits,
        doors: Doors | None = None,
    ) -> None:
        backoff = Backoff(0.05, 1.0)
        self.roster = Roster(settings.max_events)
        self._settings = settings
        self._drain = drain
        self._site = site
        self._session = session
        self._supervisor = Supervisor(settings.supervisor_max_restarts, Backoff(0.1, 5.0))
        self._send, self._receive = trio.open_memory_channel[Progress](float("inf"))  # the roster's room bounds it
        self._name = name
        self._poller = Poller(
            site.ledger,
            self.roster,
            name,
            limits,
            self._send,
            max_age=settings.event_max_age_seconds,
            era_created=era.created,
            backoff=backoff,
            now=site.now,
            traces=site.traces,
        )
        self.vitals = Vitals(
            site, self.roster, session, self._supervisor, self._poller, watch=WatchState(), drain=drain
        )
        self._guard = Guard(site, settings.lease_seconds)
        self._handler: Handler | None = None
        self._doors = doors or Doors()
        self._door_closed = trio.Event()
        self._intake_ended = trio.Event()
        self._is_handed_over = False

    async def run(self, startup: Startup) -> None:
        """Open the rings from the outside in, and let them end from the inside out."""
        async with trio.open_nursery() as outer:
            await self._open_outer(outer, startup)
            async with trio.open_nursery() as work:
                outer.start_soon(self._end_work, work.cancel_scope)
                handler = Handler(
                    self._site,
                    self._guard,
                    self.roster,
                    self._name,
                    self._receive,
                    work,
                    give_up=partial(self._give_up, "handler"),
                    max_failures=self._settings.event_max_failures,
                )
                self._handler = handler
                await work.start(self._keep, "handler", handler.run)
                await self._take_in(handler)
                if self._session.era_lost.is_set():
                    work.cancel_scope.cancel(reason="EraLost: Redis has forgotten all events")
                else:
                    await self._give_back(handler)
                self._send.close()
                self._intake_ended.set()
            if not self._session.era_lost.is_set():
                await trio_util.wait_any(self._door_closed.wait, self._drain.wait_deadline)
            await self._hand_over()
            outer.cancel_scope.cancel(reason="all work has ended or was handed over")

    def lose(self, event_ids: frozenset[str]) -> None:
        """Redis says that these are not ours any more: end the work on them here, and touch nothing of it."""
        LEASES_LOST.inc(len(event_ids))
        for event_id in event_ids:
            if self._handler is not None:
                self._handler.cancel(event_id, "NotOurs: the session had expired and the event was taken over")

    def remind(self) -> None:
        """Redis may have forgotten what was last written: let all work look whether it has."""
        for work in self.roster:
            work.notice()

    async def _open_outer(self, outer: trio.Nursery, startup: Startup) -> None:
        site = self._site
        redis, api = f"Redis at {site.ledger.stream.address}", f"the Kubernetes API at {site.kube.address}"

        async def watch(*, task_status: trio.TaskStatus[None]) -> None:
            selector = f"{INSTANCE_LABEL}={site.instance}"
            try:
                where, state = (site.kube, site.fleet, site.namespace, selector), self.vitals.watch
                await watch_fleet(*where, state=state, task_status=task_status)
            except Answered as error:
                raise Unrecoverable(f"{api} refuses to list pods: {error}") from error

        async def warn(*, task_status: trio.TaskStatus[None]) -> None:
            is_there = site.fleet.records.__contains__
            await watch_warnings(site.kube, site.warnings, site.namespace, is_there, task_status=task_status)

        await outer.start(self._keep, "ledger", site.ledger.run)
        await startup.reach(redis, lambda: outer.start(self._keep, "session", self._session.run))
        await startup.reach(api, lambda: outer.start(self._keep, "watch", watch), lambda: self.vitals.watch.outage)
        await outer.start(self._keep, "warnings", warn)
        await outer.start(self._keep, "guard", self._guard.run)
        await outer.start(self._keep, "standings", site.standings.run)
        if self._settings.max_workers_total:
            total = self._settings.max_workers_total
            bound = Bound(site.ledger.stream, site.slots, self._settings.max_workers, total)
            await outer.start(self._keep, "bound", bound.run)
        await self._open_doors(outer)

    async def _open_doors(self, outer: trio.Nursery) -> None:
        """Last, when what calls ask for is there. A door closes by itself in a drain; calls end before the rings do."""
        for name, part in self._doors.parts.items():
            await outer.start(self._keep, name, part)
        door = self._doors.door
        if door is None:
            self._door_closed.set()
            return

        async def serve(*, task_status: trio.TaskStatus[None]) -> None:
            await door(task_status=task_status)
            self._door_closed.set()
            await trio.sleep_forever()

        await outer.start(self._keep, "grpc", serve)

    async def _keep(
        self, name: str, part: Part, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep a part running; when that is hopeless, everything ends, in order and not with exit code 0."""

        async def until_era_lost(*, task_status: trio.TaskStatus[None]) -> None:
            try:
                await part(task_status=task_status)
            except* GroupLost:  # alone, or out of a part's own nursery
                self._session.era_lost.set()

        try:
            await self._supervisor.run(name, until_era_lost, task_status=task_status)
        except Unrecoverable as error:
            self._give_up(name, error)
            await trio.sleep_forever()  # its ring ends it, in its turn

    def _give_up(self, name: str, error: Unrecoverable) -> None:
        log.error("cannot go on", part=name, reason=str(error))
        write_termination_log(str(error))
        self._drain.fail(str(error), error.exit_code)

    async def _take_in(self, handler: Handler) -> None:
        taker = Taker(
            self._site,
            self.roster,
            self._session,
            self._poller,
            handler,
            self._send,
            lease_seconds=self._settings.lease_seconds,
        )
        async with trio.open_nursery() as intake:
            intake.start_soon(self._open_intake, intake, taker)
            await trio_util.wait_any(self._drain.requested.wait, self._session.era_lost.wait)
            intake.cancel_scope.cancel(reason=self._drain.reason or "EraLost")

    async def _open_intake(self, intake: trio.Nursery, taker: Taker) -> None:
        await intake.start(self._keep, "poller", self._poller.run)
        await intake.start(self._keep, "taker", taker.run)
        sweeper = Sweeper(self._site, self._guard, self.roster, self._settings.orphan_grace_seconds)
        await intake.start(self._keep, "sweeper", sweeper.run)
        self.vitals.is_ready = True
        log.info("ready", session=self._name, era=self._site.era, namespace=self._site.namespace)

    async def _give_back(self, handler: Handler) -> None:
        """Offer what was read and not registered, and what was taken but not begun, at once."""
        untouched = [(work.claim, work.is_clean) for work in self.roster if work.is_untouched]
        for claim, _ in untouched:
            handler.cancel(claim.event_id, f"handed over unbegun ({self._drain.reason})")
        with trio.move_on_after(GIVE_BACK_SECONDS, shield=True), suppress(Unavailable, GroupLost, FixYourCall):
            await self._poller.hand_back()
            await self._offer(untouched)

    async def _end_work(self, work: trio.CancelScope) -> None:
        """At the deadline: hand over what is left of the work, and end it."""
        await self._intake_ended.wait()
        await self._drain.wait_deadline()
        await self._hand_over()
        work.cancel(reason=f"the drain's time is over ({self._drain.reason})")

    async def _hand_over(self) -> None:
        """Offer what is left; its pods keep running, and whoever takes it goes on with them."""
        if self._is_handed_over:
            return
        self._is_handed_over = True
        if self._session.era_lost.is_set():
            log.error("era lost", cause="EraLost", events=len(self.roster.ids()))
            return
        self._session.suspend()
        left: list[tuple[Claim, bool]] = []
        with trio.move_on_after(HAND_OVER_SECONDS, shield=True) as limit, suppress(Unavailable, FixYourCall):
            await self._settle()
            left += [(work.claim, work.is_clean) for work in self.roster]
            left += self._handler.take_unbegun() if self._handler else []
            await self._offer(left)
            await self._session.leave()
        if limit.cancelled_caught and left:
            log.warning("hand-over was cut off; the lease will tell others", events=len(left))

    async def _settle(self) -> None:
        """Writes have just been suspended: let those under way be answered, and what they bring be written down; let
        tasks that were just started take their first step, with which they enter the roster.
        """
        with trio.move_on_after(SETTLE_SECONDS):
            await self._site.writes.wait_idle()
            await self._site.ledger.wait_empty()
            await self._site.logs.hand_over()

    async def _offer(self, events: list[tuple[Claim, bool]]) -> None:
        """Hand over; beside each claim whether no create of the event is left without an answer."""
        if events:
            claims, clean = zip(*events, strict=True)
            await self._site.ledger.stream.offer(claims, clean=clean)
            log.info("events handed over", events=len(events), reason=self._drain.reason)
