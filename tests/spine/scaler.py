"""A whole scaler over the twins: the rings as the service builds them, on a world and a stream in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import trio

from ottoscaler.backoff import Backoff
from ottoscaler.drain import Drain
from ottoscaler.events import Limits
from ottoscaler.fair import FairLimiter
from ottoscaler.fleet import Fleet
from ottoscaler.logs.keeping import LogKeeper
from ottoscaler.outages import Outages
from ottoscaler.service import _build_policy
from ottoscaler.settings import Settings, load_settings
from ottoscaler.spine.ledger import Ledger
from ottoscaler.spine.rings import Doors, Rings
from ottoscaler.spine.site import Patience, Site
from ottoscaler.spine.standings import Standings
from ottoscaler.spine.traces import NO_TRACES, Traces
from ottoscaler.startup import Startup
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from ottoscaler.stream.session import Session
from ottoscaler.throttle import Throttle
from tests.spine.stage import INSTANCE, NAMESPACE, build_pod, name_pod
from tests.spine.world import World
from tests.spine.world_kube import WorldKube

BACKOFF = Backoff(0.1, 1.0, jitter=0.0)


class Scaler:
    """One process of the scaler. `run` is its life; cancelling it from outside is a `kill -9`."""

    def __init__(self, world: World, server: MemoryServer, session: str, **settings: str) -> None:
        self.settings: Settings = load_settings({name.upper(): value for name, value in settings.items()}, {})
        self.stream = MemoryStream(server, session)
        self.drain: Drain
        self.rings: Rings
        self.ready = trio.Event()
        self.kube = WorldKube(world)
        self.open_keeper: Callable[[Site], LogKeeper] | None = None
        """Who forwards the logs of workers, when somebody does."""
        self.open_traces: Callable[[str, Callable[[], float]], Traces] = lambda era, now: NO_TRACES
        """Who records traces: given the era and the clock."""
        self.skew = 0.0
        """So many seconds its clock is ahead."""
        self._name = session

    async def run(self, before: Callable[[Scaler], Any] = lambda scaler: None) -> None:
        """From the start to the end of the drain."""
        self.drain = Drain(self.settings.drain_seconds, armed=False)
        startup = Startup(60, self.drain, BACKOFF)
        era = await startup.reach("Redis", lambda: self.stream.open_group("0", NAMESPACE))
        outages = Outages(lambda: self.stream._server.now() / 1000)
        session = Session(
            self.stream,
            self.settings.lease_seconds,
            era.id,
            believed=lambda: self.rings.roster.ids() if hasattr(self, "rings") else frozenset(),
            on_lost=lambda lost: self.rings.lose(lost),
            on_restart=lambda: self.rings.remind() if hasattr(self, "rings") else None,
            outages=lambda: outages.look(self.rings.vitals) if hasattr(self, "rings") else "",
        )
        self.kube._may_write = session.check
        ledger = Ledger(self.stream, BACKOFF)
        site = Site(
            kube=self.kube,  # type: ignore[arg-type]  # the twin has the methods that the spine uses
            fleet=Fleet(),
            ledger=ledger,
            standings=Standings(ledger),
            namespace=NAMESPACE,
            instance=INSTANCE,
            era=era.id,
            build_pod=lambda event, index, attempt: _of_era(build_pod(event, index, attempt), era.id),
            name_pod=name_pod,
            wait_writable=session.wait_valid,
            slots=FairLimiter(self.settings.max_workers),
            writes=Throttle(4),
            patience=Patience(cleanup_delay=self.settings.cleanup_delay_seconds),
            backoff=BACKOFF,
            retries=_build_policy(self.settings),
            now=lambda: self.stream._server.now() / 1000 + self.skew,
        )
        site = replace(site, traces=self.open_traces(era.id, site.now))
        doors = Doors()
        if self.open_keeper is not None:
            keeper = self.open_keeper(site)
            site, doors = replace(site, logs=keeper), Doors(parts={"logs": keeper.run})
        self.rings = Rings(self.settings, self.drain, site, session, self._name, era, Limits(), doors)
        before(self)
        await self.rings.run(startup)


def _of_era(pod: dict[str, Any], era: str) -> dict[str, Any]:
    pod["metadata"]["labels"]["ottoscaler/era"] = era
    return pod
