"""A scaler's spine with a keeper of logs, on twins: world, stream, kubelet files and otto-handler, under any clock."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio

from ottoscaler.backoff import Backoff
from ottoscaler.errors import Unavailable
from ottoscaler.logs.forwarding import HandlerReceiver
from ottoscaler.logs.keeping import LogKeeper
from ottoscaler.rpc.v1.worker_logs_pb2 import WorkerLogEntry, WorkerStatusNotification
from ottoscaler.stream.memory import MemoryServer
from ottoscaler.stream.progress import Progress
from ottoscaler.supervisor import Supervisor
from tests.logs.kubelet import FakeKubelet
from tests.logs.receiver import FakeReceiver
from tests.spine.stage import Stage
from tests.spine.world import Plan, World


class LoggedWorld(World):
    """A world whose workers write `lines` numbered lines each, evenly over their lives."""

    def __init__(self, folder: Path, plan: Callable[[Mapping[str, str]], Plan], lines: int = 10) -> None:
        super().__init__(plan)
        self.lines = lines
        self.logs: dict[str, FakeKubelet] = {}
        self.is_away = False
        self.clock: Callable[[], float] | None = None
        """Unix time, for starts and stamps that agree with each other; without it they are made up."""
        self._starts: dict[str, str] = {}
        self._folder = folder
        self._streams: trio.Nursery

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Let pods live, and their logs be read."""
        async with trio.open_nursery() as self._streams:
            await super().run(task_status=task_status)

    def _set_state(self, name: str, uid: str, state: dict[str, Any], phase: str) -> bool:
        if "running" in state and self.clock is not None:
            began = datetime.fromtimestamp(self.clock(), UTC).replace(microsecond=0)
            self._starts[name] = state["running"]["startedAt"] = began.isoformat().replace("+00:00", "Z")
        facts = state.get("terminated")
        if facts is not None:
            facts.setdefault("startedAt", self._starts.get(name, "2026-01-01T00:00:01Z"))
            self._end(name)
        is_set = super()._set_state(name, uid, state, phase)
        if is_set and "running" in state:
            self._begin(name)
        return is_set

    def _begin(self, name: str) -> None:
        self.logs[name] = FakeKubelet(self._streams, self._folder / name, clock=self.clock)
        duration = self.plan(self.pods[name]["metadata"]["labels"]).duration
        self._streams.start_soon(self._write, self.logs[name], duration)

    async def _write(self, kubelet: FakeKubelet, duration: float) -> None:
        for number in range(1, self.lines + 1):
            kubelet.log.feed("stdout", b"line %d\n" % number)
            await trio.sleep(duration / (self.lines + 1))

    def _end(self, name: str) -> None:
        if name in self.logs:
            self.logs[name].log.close()

    async def read_log(
        self,
        namespace: str,
        name: str,
        container: str,
        *,
        follow: bool,
        since: str = "",
        limit_bytes: int | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """As `Kube.read_log`."""
        kubelet = self.logs[name]
        kubelet.is_gone, kubelet.is_away = name not in self.pods, self.is_away
        async for piece in kubelet.read(follow=follow, since=since, limit_bytes=limit_bytes):
            yield piece

    def close(self) -> None:
        """Close all files."""
        for kubelet in self.logs.values():
            kubelet.log.close()


@dataclass
class FakeHandler:
    """Otto-handler: streams and states."""

    receiver: FakeReceiver
    told: list[WorkerStatusNotification]
    refuses: int = 0
    """So many states are answered ERROR."""
    is_deaf: bool = False
    """It cannot be told states."""

    @property
    def open_log_stream(self) -> Any:
        """A stream."""
        return self.receiver.open

    async def notify(self, notification: bytes, *, wait_open: Callable[[], Awaitable[None]]) -> bool:
        """A state."""
        await trio.sleep(0.01)
        if self.receiver.is_away or self.is_deaf:
            raise Unavailable("nobody listens")
        if self.refuses:
            self.refuses -= 1
            return False
        self.told.append(WorkerStatusNotification.FromString(notification))
        return True

    def states(self, worker: str) -> list[str]:
        """What was told of a worker, in order."""
        name = WorkerStatusNotification.StatusType.Name
        return [name(one.status) for one in self.told if one.worker_id == worker]

    @property
    def entries(self) -> list[WorkerLogEntry]:
        """Every entry that came."""
        return [WorkerLogEntry.FromString(entry) for _, entry in self.receiver.got]

    def numbers(self, worker: str) -> list[int]:
        """The numbers of a worker's lines, in order of arrival."""
        return [int(one.metadata["line"]) for one in self.entries if one.worker_id == worker and one.metadata["line"]]

    @property
    def gaps(self) -> list[str]:
        """Why lines are missing, of all workers."""
        return [one.metadata["gap"] for one in self.entries if one.metadata["gap"]]


@dataclass
class House:
    """All of it."""

    world: LoggedWorld
    handler: FakeHandler
    stage: Stage
    keeper: LogKeeper

    async def take_from(self, dead: Stage, event_id: str) -> Progress:
        """Take over an event of a scaler that was killed."""
        server, session = self.stage.stream._server, self.stage.session
        server.held[dead.session].discard(event_id)
        server.progress[event_id] |= {"owner": session, "epoch": "2"}
        server.held[session].add(event_id)
        taken = await self.stage.stream.read_progress(event_id)
        assert taken is not None
        return taken


@asynccontextmanager
async def logged_stage(
    world: LoggedWorld, server: MemoryServer, handler: FakeHandler, session: str, grace: float, restarts: int = 0
) -> AsyncIterator[House]:
    """One scaler in a world that runs; leaving it is a `kill -9`. Its keeper may crash so often within a minute."""
    async with Stage(world, server, session).open() as stage, trio.open_nursery() as nursery:
        keeper = LogKeeper(
            world,
            stage.fleet,
            stage.ledger,
            HandlerReceiver(handler, trio.lowlevel.checkpoint),
            namespace="otto",
            grace=grace,
            build_pod=stage.site.build_pod,
            now=trio.current_time,
        )
        stage.site = replace(stage.site, logs=keeper)
        await nursery.start(Supervisor(restarts + 1, Backoff(0.1, 5.0)).run, "logs", keeper.run)
        yield House(world, handler, stage, keeper)
        nursery.cancel_scope.cancel(reason="killed by the test")


@asynccontextmanager
async def open_house(
    folder: Path, *, plan: Plan | None = None, lines: int = 10, grace: float = 60.0, restarts: int = 0
) -> AsyncIterator[House]:
    """A world with one scaler."""
    world = LoggedWorld(folder, lambda labels: plan or Plan(), lines)
    handler = FakeHandler(FakeReceiver(), [])
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        async with logged_stage(world, MemoryServer(), handler, "s1", grace, restarts) as house:
            yield house
        world.close()
        nursery.cancel_scope.cancel(reason="the test is over")
