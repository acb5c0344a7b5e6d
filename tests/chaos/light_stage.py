"""What light chaos plays on: one run and what came of it, and replicas that can be harmed."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import trio

from ottoscaler.calls.door import Calls
from ottoscaler.errors import Unavailable
from ottoscaler.events import Limits
from ottoscaler.startup import StartupFailed, StartupStopped
from ottoscaler.stream.dead_letters import Replayed
from ottoscaler.stream.memory import MemoryServer
from tests.chaos.aimed_truth import Truth
from tests.chaos.asking import Asked
from tests.spine.forgetting import CrashingRedis, CrashingStream
from tests.spine.scaler import Scaler
from tests.spine.world import World
from tests.spine.world_kube import WorldKube

T = TypeVar("T")


@dataclass
class Run:
    """One run and what came of it."""

    seed: int
    world: World
    server: MemoryServer
    sent: dict[str, dict[str, str]] = field(default_factory=dict)
    harm: list[str] = field(default_factory=list)
    excused: set[str] = field(default_factory=set)
    """Pods that the harm itself took away or made unreachable: their workers may fail."""
    unseen: set[str] = field(default_factory=set)
    """Those of them that it took away before an owner had recorded or could see them: their workers may run again, in
    one of the windows that docs/design.md names.
    """
    attempts: int = 1
    """WORKER_MAX_ATTEMPTS of this run."""
    evictions: int = 0
    forgotten: set[str] = field(default_factory=set)
    """Events that Redis had when it was emptied: nobody can know what became of them."""
    results: list[dict[str, str]] = field(default_factory=list)
    dead: list[dict[str, str]] = field(default_factory=list)
    left: dict[str, Any] = field(default_factory=dict)
    scene: str = ""
    """What of `aimed_scenes.py` was played; none in light chaos."""
    truth: Truth | None = None
    """What became of every pod, where somebody notes it."""
    is_cured: bool = False
    """Whether the events of the task `poison` can be handled by now."""
    replays: list[Replayed] = field(default_factory=list)
    """What was answered to who replayed dead letters."""
    is_run_again: bool = False
    """Whether workers that had started are run again when their pods are taken away (PLATFORM_RETRY_STARTED)."""
    calm_at: float = 0.0
    """When all harm had ended (virtual s)."""
    waited: float = 0.0
    """So long after that the last event had its entry (s)."""
    asked: Asked = field(default_factory=Asked)
    redis: CrashingRedis = field(init=False)
    """What can make the server forget."""
    replicas: list[Replica] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.redis = CrashingRedis(self.server)

    def is_poison(self, pod: str) -> bool:
        """Whether this is a pod of an event whose handling breaks."""
        return any(id_ in pod for id_, fields in self.sent.items() if fields.get("task_id") == "poison")

    steps: int = 0
    """How many of these there were until all was well (`aimed.py`)."""
    on_step: Callable[[str], None] = lambda what: None
    """Told of every call of a replica before its effect and before its answer, in a word."""


def no_fault(verb: str, name: str) -> None:
    """The API answers."""


class Replica:
    """A scaler that can be killed, drained, frozen and started again, each time as a new session."""

    def __init__(self, run: Run, number: int, **settings: str) -> None:
        self.run = run
        self.number = number
        self._settings = {"drain_seconds": "2", "worker_max_attempts": str(run.attempts), **settings}
        self.starts = 0
        self.scaler: Scaler | None = None
        self.calls: Calls | None = None
        self.api_fault: Callable[[str, str], Exception | None] = no_fault
        self.link = "fine"
        """Its own way to Redis: `refusing` = no call arrives, `deaf` = all are carried out and no answer comes back,
        `silent` and `slow` = nothing arrives, or comes back, until it is fine again.
        """
        self.skew = 0.0
        """So many seconds its clock is ahead."""
        self.is_retired = False
        self._life: trio.CancelScope | None = None
        self._thawed = trio.Event()
        self._thawed.set()
        self._frozen_until = 0.0

    async def live(self) -> None:
        """Start, and start again whenever it has ended, until it is retired or cancelled."""
        while not self.is_retired:
            self.starts += 1
            name = f"r{self.number}-{self.starts}"
            self.scaler = Scaler(self.run.world, self.run.server, name, **self._settings)
            self.scaler.kube.fail = self._fail
            self.scaler.skew = self.skew
            self.scaler.stream = Redis(self.run.server, name, self)
            self._freeze_writes(self.scaler.kube)
            with trio.CancelScope() as self._life:
                with suppress_ends():
                    async with trio.open_nursery() as nursery:
                        await self.scaler.run(partial(self._open_calls, nursery))
                        nursery.cancel_scope.cancel(reason="drained")
            self.calls = None
            await trio.sleep(0.5)

    def _open_calls(self, nursery: trio.Nursery, scaler: Scaler) -> None:
        self.calls = Calls(scaler.rings._site, Limits())
        nursery.start_soon(self.calls.run)

    def kill(self) -> None:
        """`kill -9`."""
        if self._life is not None:
            self._life.cancel(reason="kill -9")

    def drain(self) -> None:
        """SIGTERM."""
        if self.scaler is not None and hasattr(self.scaler, "drain"):
            self.scaler.drain.request("SIGTERM")

    def retire(self) -> None:
        """SIGTERM, and no other takes its place."""
        self.is_retired = True
        self.drain()

    async def freeze(self, seconds: float) -> None:
        """SIGSTOP and SIGCONT, as far as others can see it: it says nothing for a while."""
        self.stop(seconds)
        await trio.sleep(seconds)
        self.go_on()

    def stop(self, seconds: float) -> None:
        """SIGSTOP; `go_on` is to follow in so many seconds."""
        self._frozen_until = max(self._frozen_until, trio.current_time() + seconds)
        if self._thawed.is_set():  # else whoever waits there would never hear of the end
            self._thawed = trio.Event()

    def go_on(self) -> None:
        """SIGCONT, where no other SIGSTOP lasts longer."""
        if trio.current_time() >= self._frozen_until:
            self._thawed.set()

    def set_skew(self, seconds: float) -> None:
        """Its clock is so much ahead, now and in its next lives."""
        self.skew = seconds
        if self.scaler is not None:
            self.scaler.skew = seconds

    def recover(self) -> None:
        """All harm is over."""
        self.api_fault, self.link = no_fault, "fine"
        if self.scaler is not None:
            self.scaler.kube.list_delay = self.scaler.kube.silent_until = 0.0
        self._thawed.set()

    def is_idle(self) -> bool:
        """Whether it runs, and works on nothing."""
        rings = getattr(self.scaler, "rings", None)
        return rings is not None and rings.vitals.is_ready and not rings.roster.ids()

    def is_session(self, name: str) -> bool:
        """Whether it is this session that runs."""
        return self.scaler is not None and self.scaler.stream.session == name

    def can_delete(self) -> bool:
        """Whether its lease holds, and the API answers it at once and has not put writes off."""
        rings = getattr(self.scaler, "rings", None)
        if self.scaler is None or rings is None or self.api_fault is not no_fault or not self._thawed.is_set():
            return False
        kube = self.scaler.kube
        if self.link != "fine" or kube.silent_until > trio.current_time() or kube.list_delay:
            return False
        is_prompt = kube._latency < 0.1 and rings._site.writes.paused_until <= trio.current_time()
        return is_prompt and rings.vitals.is_ready and bool(rings._session.is_valid())

    async def wait_thawed(self) -> None:
        """Return when it is not frozen; at once, and without a checkpoint, where it is not now."""
        if not self._thawed.is_set():
            await self._thawed.wait()

    def _fail(self, verb: str, name: str) -> Exception | None:
        self.run.on_step(verb)
        if verb == "create" and not self.run.is_cured and self.run.is_poison(name):
            raise RuntimeError(f"a bug that only {name} meets")
        return self.api_fault(verb, name)

    def _freeze_writes(self, kube: WorldKube) -> None:
        for name in ("create_pod", "delete_pod", "delete_finished_pods"):
            setattr(kube, name, self._gated(getattr(kube, name)))

    def _gated(self, method: Callable[..., Any]) -> Callable[..., Any]:
        async def gated(*args: Any, **kwargs: Any) -> Any:
            await self.wait_thawed()
            answer = await method(*args, **kwargs)
            await self.wait_thawed()
            return answer

        return gated


class Redis(CrashingStream):
    """Redis as a replica sees it. A call takes one turn of the loop, by chance on its way there or on its way back: in
    either others may come in between, and one for both is most of what a run costs.
    """

    def __init__(self, server: MemoryServer, session: str, replica: Replica) -> None:
        super().__init__(server, session, replica.run.redis)
        self._replica = replica
        self._wait_thawed = replica.wait_thawed
        self._on_step = replica.run.on_step

    async def _call(self, name: str, script: Callable[[], T]) -> T:
        restarts = self.restarts
        if is_late := random.random() < 0.5:
            await trio.lowlevel.checkpoint()
        await self._wait_thawed()
        while self._server.weather == "silent":
            await self._server.changed.wait()
        self._on_step(name)
        while self._replica.link == "silent":  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.05)
        if self._replica.link == "refusing":
            raise Unavailable("this replica cannot reach Redis", address="memory://")
        answer = self._carry_out(name, script)
        if self._replica.link == "deaf":
            raise Unavailable("this replica does not hear Redis", address="memory://")
        while self._replica.link == "slow":  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.05)
        self._on_step(f"{name} done")
        if not is_late:
            await trio.lowlevel.checkpoint()
        await self._wait_thawed()
        if restarts != self.restarts:
            raise Unavailable("Redis has crashed meanwhile", address="memory://")
        return answer


class suppress_ends(suppress):  # noqa: N801 - used as a function
    """Ends in order at the start, which a process would answer with an exit code."""

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if not isinstance(error, BaseExceptionGroup):
            return isinstance(error, StartupStopped | StartupFailed)
        _, rest = error.split((StartupStopped, StartupFailed))
        return rest is None
