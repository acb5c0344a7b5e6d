"""The probes: each thing that goes wrong fails the right one, and only that."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.drain import Drain
from ottoscaler.errors import Unavailable
from ottoscaler.health import LAG_SECONDS, POLLER_SECONDS, Check, Health
from ottoscaler.kube.watch import STALE_SECONDS
from ottoscaler.stream.memory import MemoryServer
from ottoscaler.web.pages import REDIS_SECONDS, pages
from tests.spine.scaler import Scaler
from tests.spine.world import World


class Patient:
    """A running scaler and its health; `server` is its Redis, `world` its API."""

    def __init__(self, world: World, server: MemoryServer) -> None:
        self.world = world
        self.server = server
        self.scaler = Scaler(world, server, "one", drain_seconds="60")
        self.health: Health

    def failing(self, look: Callable[[Health], list[Check]]) -> list[str]:
        """The names of what fails."""
        return [check.name for check in look(self.health) if check.problem]

    @property
    def ailments(self) -> dict[str, list[str]]:
        """What fails, by probe."""
        looks = {"live": Health.live, "ready": Health.ready, "startup": Health.startup}
        return {name: failing for name, look in looks.items() if (failing := self.failing(look))}


@asynccontextmanager
async def open_patient(before: Callable[[Scaler], Any] = id) -> AsyncIterator[Patient]:
    """One that has been well for a while; `before` sees the scaler right before it starts."""
    async with trio.open_nursery() as nursery:
        patient = Patient(World(), MemoryServer(started_at=1_760_000_000.0))
        await nursery.start(patient.world.run)

        async def live(*, task_status: trio.TaskStatus[None]) -> None:
            with ExitStack() as stack:

                def begin(scaler: Scaler) -> None:
                    patient.health = Health(scaler.drain)
                    stack.enter_context(patient.health.follow(scaler.rings.vitals))
                    before(scaler)
                    task_status.started()

                await patient.scaler.run(begin)

        await nursery.start(live)
        nursery.start_soon(patient.health.run)
        yield patient
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_all_is_well(autojump_clock: MockClock) -> None:
    """Before it is ready only startup and ready fail; afterwards nothing does, however long nothing happens."""
    async with open_patient() as patient:
        assert patient.ailments == {"ready": ["start", "redis", "api"], "startup": ["start"]}
        await trio.sleep(5)
        assert patient.ailments == {}
        await trio.sleep(300)
        assert patient.ailments == {}


async def test_a_silent_redis_fails_readiness_alone(autojump_clock: MockClock) -> None:
    """With the lease run out it is not ready, and live for as long as that lasts; then it is ready again."""
    async with open_patient() as patient:
        await trio.sleep(5)
        patient.server.weather = "refusing"
        await trio.sleep(4)
        assert patient.ailments == {"ready": ["redis"]}
        await trio.sleep(300)
        assert patient.ailments == {"ready": ["redis"]}
        patient.server.weather = "fine"
        await trio.sleep(5)
        assert patient.ailments == {}


async def test_an_api_that_is_away_fails_readiness_alone(autojump_clock: MockClock) -> None:
    """A watch that cannot be opened is an outage of the API, and no reason for a restart."""
    async with open_patient() as patient:
        await trio.sleep(5)

        async def away(*args: Any, **kwargs: Any) -> Any:
            raise Unavailable("the API is away", address="here")
            yield  # type: ignore[unreachable]  # a watch is a generator, though this one never gives

        async def list_away(*args: Any, **kwargs: Any) -> Any:
            raise Unavailable("the API is away", address="here")

        vars(patient.scaler.kube).update(watch_pods=away, list_pods=list_away)
        await trio.sleep(STALE_SECONDS)
        assert patient.ailments == {"ready": ["api"]}
        assert [check.problem for check in patient.health.ready() if check.problem] == ["the API is away"]


async def test_a_stale_watch_fails_readiness_alone(autojump_clock: MockClock) -> None:
    """An API that accepts a watch or a list and says nothing is not reachable, though it never said no."""
    async with open_patient() as patient:
        await trio.sleep(5)

        async def silent(*args: Any, **kwargs: Any) -> Any:
            await trio.sleep_forever()
            yield  # type: ignore[unreachable]  # a generator, too

        async def list_silent(*args: Any, **kwargs: Any) -> Any:
            await trio.sleep_forever()

        vars(patient.scaler.kube).update(watch_pods=silent, list_pods=list_silent)
        await trio.sleep(2 * STALE_SECONDS)
        assert patient.ailments == {"ready": ["api"]}


async def test_a_hanging_poller_fails_liveness_alone(autojump_clock: MockClock) -> None:
    """A poller that begins no call for long will never do so: only a restart helps."""
    async with open_patient() as patient:
        await trio.sleep(5)
        patient.scaler.rings._poller._read_once = trio.sleep_forever  # type: ignore[method-assign]  # it hangs
        await trio.sleep(POLLER_SECONDS / 2)
        assert patient.ailments == {}
        await trio.sleep(POLLER_SECONDS)
        assert patient.ailments == {"live": ["poller"]}


async def test_a_part_that_ended_fails_liveness_alone(autojump_clock: MockClock) -> None:
    """A part that returns, which none should, is named."""

    def install(scaler: Scaler) -> None:
        async def end_soon(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            task_status.started()
            await trio.sleep(10)

        scaler.rings._guard.run = end_soon  # type: ignore[method-assign]  # the bug

    async with open_patient(install) as patient:
        await trio.sleep(5)
        assert patient.ailments == {}
        await trio.sleep(10)
        assert patient.ailments == {"live": ["parts"]}
        assert "guard ended, expected to run for ever" in [check.problem for check in patient.health.live()]


async def test_a_drain_fails_readiness_alone(autojump_clock: MockClock) -> None:
    """While the running work ends nothing new comes this way, and nobody restarts it."""
    async with open_patient() as patient:
        await trio.sleep(5)
        patient.server.add_entry([("type", "scale_up"), ("pod_count", "1")])
        await trio.sleep(0.5)
        patient.scaler.drain.request("SIGTERM")
        await trio.sleep(0.3)
        assert patient.ailments == {"ready": ["drain"]}


async def test_a_blocked_loop_fails_liveness() -> None:
    """A loop that was held up for long says so, until it has turned again."""
    health = Health(Drain(1, armed=False))
    async with trio.open_nursery() as nursery:
        await nursery.start(health.run)
        health._beat_at -= LAG_SECONDS + 1.5
        assert [check.name for check in health.live() if check.problem] == ["loop"]
        nursery.cancel_scope.cancel(reason="the test is over")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz", "/metrics"])
async def test_answers_come_within_a_second_whatever_hangs(autojump_clock: MockClock, path: str) -> None:
    """A Redis that takes every call and answers none delays no probe, and a scrape by its limit alone."""
    async with open_patient() as patient:
        await trio.sleep(5)
        patient.server.weather = "silent"
        await trio.sleep(10)
        start = trio.current_time()
        answer = await pages(patient.health)[path]()
        assert trio.current_time() - start <= REDIS_SECONDS
        assert answer.status == (503 if path == "/readyz" else 200)
        assert (b"redis: the lease has run out" in answer.body) == (path == "/readyz")
        assert b"\nottoscaler_events_waiting " not in answer.body


async def test_two_scalers_are_told_apart(autojump_clock: MockClock) -> None:
    """Each scaler of one process shows its own figures."""
    async with open_patient() as one, open_patient() as other:
        await trio.sleep(5)
        other.scaler.drain.request("SIGTERM")
        texts = [(await pages(patient.health)["/metrics"]()).body for patient in (one, other)]
        assert b"ottoscaler_draining 0.0" in texts[0]
        assert b"ottoscaler_draining 1.0" in texts[1]
