"""One scaler over a real Redis and a world in memory, its site as the service builds it: pods have their real form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import trio

from ottoscaler.backoff import Backoff
from ottoscaler.drain import Drain
from ottoscaler.events import Limits
from ottoscaler.kube.templates import Templates
from ottoscaler.policy_file import PolicyFile
from ottoscaler.service import _build_site
from ottoscaler.settings import Settings, load_settings
from ottoscaler.spine.rings import Rings
from ottoscaler.startup import Startup
from ottoscaler.stream.redis import RedisStream
from ottoscaler.stream.session import Session
from tests.spine.world import Plan, World
from tests.spine.world_kube import WorldKube
from tests.stream.backends import RedisBackend
from tests.stream.servers import Server

NAMESPACE = "default"
SETTINGS = {"lease_seconds": "0.5", "worker_max_attempts": "2", "image_pull_grace_seconds": "600", "drain_seconds": "0"}
PLANS = {
    "stays": Plan(duration=600),
    "stays on": Plan(duration=600, ignores_term=True),
    "fails": Plan(duration=0.1, exit_code=1),
    "waits": Plan(stuck="ImagePullBackOff", reason="no such image"),
}
"""How a worker lives, by what its event says of its index in the field `worker_1`, `worker_2` ...; else it is short."""


def living_world() -> World:
    """A world whose workers live as their event says; one that fails does so at its first attempt only."""

    def plan(labels: Mapping[str, str]) -> Plan:
        word = _metadata(world, labels).get(f"worker_{labels['ottoscaler/index']}", "")
        return PLANS.get(
            "stays" if word == "fails" and labels["ottoscaler/attempt"] != "1" else word, Plan(duration=0.1)
        )

    world = World(plan, phase_lag=0.1)
    return world


def _metadata(world: World, labels: Mapping[str, str]) -> dict[str, str]:
    """What the event of the pod of these labels says beside its own fields."""
    (pod,) = (each for each in world.pods.values() if each["metadata"]["labels"] == labels)
    environment = {each["name"]: each.get("value", "") for each in pod["spec"]["containers"][0]["env"]}
    return dict(json.loads(environment["OTTO_METADATA"]))


class Replica:
    """One process of the scaler; cancelling `run` from outside is a `kill -9`."""

    def __init__(self, server: Server, world: World, name: str) -> None:
        self.backend = RedisBackend.at(server.address)
        self.backend.server = server
        self.settings: Settings = load_settings({key.upper(): value for key, value in SETTINGS.items()}, {})
        keys = type(self.backend.keys)(self.settings.redis_stream, self.settings.redis_consumer_group)
        self.backend.keys = keys
        self.stream: RedisStream = self.backend.open(name)
        self.kube = WorldKube(world)
        self.rings: Rings
        self._name = name

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """From the start until cancelled; started once it has a site."""
        drain = Drain(0.0, armed=False)
        startup = Startup(10, drain, Backoff(0.1, 1.0))
        era = await startup.reach("Redis", lambda: self.stream.open_group("0", NAMESPACE))
        session = Session(
            self.stream,
            self.settings.lease_seconds,
            era.id,
            believed=lambda: self.rings.roster.ids() if hasattr(self, "rings") else frozenset(),
            on_lost=lambda lost: self.rings.lose(lost),
            on_restart=lambda: self.rings.remind() if hasattr(self, "rings") else None,
        )
        kube: Any = self.kube  # it has the methods that the spine uses
        site = _build_site(self.settings, self.stream, session, kube, era, Templates(), PolicyFile(None))
        self.rings = Rings(self.settings, drain, site, session, self._name, era, Limits())
        task_status.started()
        await self.rings.run(startup)
