"""A handler that is away: one grace at most is waited for it in all, whatever comes meanwhile."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock

from ottoscaler.cli.playground import find_free_port
from ottoscaler.errors import Unavailable
from ottoscaler.gauges import exposition
from ottoscaler.kube.access import Access
from ottoscaler.logs.forwarding import HandlerReceiver
from ottoscaler.logs.keeping import LogKeeper
from ottoscaler.logs.lane import Lane
from ottoscaler.logs.opening import _open_api
from ottoscaler.logs.outage import Outage
from ottoscaler.metrics import REGISTRY
from ottoscaler.rpc.v1.worker_logs_pb2 import WorkerLogEntry
from ottoscaler.spine.site import Site
from ottoscaler.stream.memory import MemoryServer
from tests.logs.house import FakeHandler, LoggedWorld, open_house
from tests.logs.receiver import FakeAnswer, FakeReceiver
from tests.logs.test_keeping import names, run_event
from tests.logs.test_lane import Worker, told
from tests.spine.scaler import Scaler
from tests.spine.world import Plan

GAUGES = ("ottoscaler_logs_followed", "ottoscaler_logs_waiting_bytes", "ottoscaler_otto_handler_reachable")


def keeper_of(
    world: LoggedWorld, handler: FakeHandler, site: Site, grace: float = 60.0, max_waiting: int = 10_000
) -> LogKeeper:
    """What forwards the logs of a scaler."""
    receiver = HandlerReceiver(handler, site.wait_writable)
    return LogKeeper(
        world,
        site.fleet,
        site.ledger,
        receiver,
        namespace=site.namespace,
        grace=grace,
        build_pod=site.build_pod,
        now=site.now,
        max_waiting=max_waiting,
    )


async def time_events(folder: Path, count: int, *, max_events: int, handler: FakeHandler) -> float:
    """Send so many small events at once; the seconds until all have ended."""
    world = LoggedWorld(folder, lambda labels: Plan(duration=1.0), lines=1)
    server = MemoryServer(started_at=1_760_000_000.0)
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        scaler = Scaler(world, server, "one", max_events=str(max_events), max_workers="1000")
        scaler.open_keeper = partial(keeper_of, world, handler, max_waiting=max_events // 2)
        nursery.start_soon(scaler.run)
        await trio.sleep(1)
        for _ in range(count):
            server.add_entry([("type", "scale_up"), ("pod_count", "1")])
        begun = trio.current_time()
        while len(server.results) < count or server.progress:  # noqa: ASYNC110 - the twin of Redis tells nobody
            await trio.sleep(0.25)
        took = trio.current_time() - begun
        world.close()
        nursery.cancel_scope.cancel(reason="the test is over")
    return took


async def test_many_events_wait_for_one_grace_in_all(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Five times as many events as there is room for: with the handler away they take one grace longer, and no more."""
    here, away = FakeHandler(FakeReceiver(), []), FakeHandler(FakeReceiver(), [])
    away.receiver.is_away = True
    usual = await time_events(tmp_path / "here", 300, max_events=60, handler=here)
    assert await time_events(tmp_path / "away", 300, max_events=60, handler=away) <= usual + 60
    assert len({entry.worker_id for entry in here.entries}) == 300


@pytest.mark.parametrize("is_refusing", [False, True], ids=["slow", "refusing"])
async def test_a_handler_that_is_slow_or_refuses_holds_up_no_new_events(
    is_refusing: bool, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Ten times as many events as there is room for: with a handler that takes a line in five seconds, or none ever,
    all have ended one grace after the time that they take without logs, and each log that was given up has its gap.
    """
    slow = FakeHandler(FakeReceiver(), [])
    if is_refusing:
        slow.receiver.judge = lambda entry: FakeAnswer("RETRY" if b"line " in entry else "ACK")
    else:
        slow.receiver.delay = 5.0
    assert await time_events(tmp_path, 200, max_events=20, handler=slow) <= 45 + 60
    whys = ("Crowded",) if not is_refusing else ("Crowded", "GraceOver")
    assert set(slow.gaps) <= set(whys)
    if is_refusing:
        assert len(slow.gaps) == 200


async def test_a_healthy_handler_costs_nobody_a_line_however_many_end_at_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A crowd that waits a moment is none: with answers in time no log is given up."""
    handler = FakeHandler(FakeReceiver(), [])
    await time_events(tmp_path, 200, max_events=20, handler=handler)
    assert handler.gaps == []
    assert len({entry.worker_id for entry in handler.entries}) == 200


async def test_events_wait_again_once_it_is_back(tmp_path: Path, autojump_clock: MockClock) -> None:
    """While it is away nothing waits; from its first answer on logs are waited for as before, and gaps are told."""
    async with open_house(tmp_path, grace=30.0) as house:
        house.handler.receiver.is_away = True
        house.handler.receiver.cut()
        assert 30 < await run_event(house, 3) < 36
        assert await run_event(house, 3) < 6
        house.handler.receiver.is_away = False
        house.handler.receiver.delay = 0.1
        await trio.sleep(20)
        assert house.handler.gaps == ["GraceOver"] * 6
        known = set(house.world.logs)
        await run_event(house, 3)
        for name in set(house.world.logs) - known:
            assert house.handler.numbers(name) == list(range(1, 11))
            assert house.handler.states(name)[-1] == "COMPLETED"


async def test_running_workers_go_on_when_it_is_back(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Whoever runs through the whole outage has every line forwarded, those once that were answered before it."""
    async with open_house(tmp_path, plan=Plan(duration=300), lines=300, grace=30.0) as house:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_event, house, 2)
            await trio.sleep(60)
            (first, second), before = names(house), len(house.handler.entries)
            house.handler.receiver.is_away = True
            house.handler.receiver.cut()
            await trio.sleep(120)
            assert len(house.handler.entries) == before
            house.handler.receiver.is_away = False
        for name in (first, second):
            numbers = house.handler.numbers(name)
            assert sorted(set(numbers)) == list(range(1, 301))
            assert len(numbers) - 300 <= 1, "a line was under way when the stream was cut"
        assert house.handler.gaps == []


async def test_states_alone_may_find_no_ear(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A handler that takes lines but no states: after one grace events wait for their lines, and no longer."""
    async with open_house(tmp_path, grace=30.0) as house:
        house.handler.is_deaf = True
        assert 25 < await run_event(house, 2) < 36
        house.handler.receiver.delay = 0.2
        assert await run_event(house, 2) < 8
        for name in names(house):
            assert house.handler.numbers(name) == list(range(1, 11))
        assert house.handler.gaps == []


async def test_a_stream_that_nobody_needs_may_end(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A handler that is replaced while nothing runs, and comes back unseen, is not held to be away."""
    async with open_house(tmp_path, grace=30.0) as house:
        await run_event(house, 1)
        house.handler.receiver.is_away = True
        house.handler.receiver.cut()
        await trio.sleep(3600)
        assert house.keeper.statistics().is_taken
        house.handler.receiver.is_away = False
        await run_event(house, 1)
        assert house.handler.gaps == []


async def test_answers_are_taken_in_while_nothing_may_be_sent(autojump_clock: MockClock) -> None:
    """A Redis that is away for minutes makes no outage of the handler: what it answered before counts, once."""
    receiver, outage, allowed = FakeReceiver(), Outage(), [trio.Event()]
    allowed[0].set()
    lane = Lane(receiver.open, lambda: allowed[0].wait(), outage=outage)
    worker = Worker(lane, "w")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lane.run)
        receiver.delay = 0.5
        await worker.say(2)
        await trio.sleep(0.1)
        allowed[0] = trio.Event()
        await trio.sleep(300)
        assert not outage.is_silent_for(60)
        assert (worker.outbox.mark.line, receiver.opened) == (2, 1)
        allowed[0].set()
        await worker.say(1)
        await trio.sleep(5)
        assert told(receiver, "w") == [1, 2, 3]
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_what_waits_and_what_became_of_it_is_counted(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Lines by answer, gaps by reason, bytes that wait, and whether the handler answers."""

    def counted(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    async with open_house(tmp_path, plan=Plan(duration=60), lines=60, grace=30.0) as house:
        refused, seen = {b"line 3", b"line 4"}, set[bytes]()

        def judge(entry: bytes) -> FakeAnswer:
            message = WorkerLogEntry.FromString(entry).message.encode()
            if message in refused and message not in seen:
                seen.add(message)
                return FakeAnswer("RETRY")
            return FakeAnswer("DROP" if message == b"line 5" else "ACK")

        house.handler.receiver.judge = judge
        before = {status: counted("ottoscaler_log_lines_total", outcome=status) for status in ("ack", "drop", "retry")}
        gaps = counted("ottoscaler_log_gaps_total", reason="GraceOver")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_event, house, 1)
            await trio.sleep(20)
            calm = house.keeper.statistics()
            assert (calm.workers, calm.disk, calm.is_taken) == (1, 0, True)
            house.handler.receiver.is_away = True
            house.handler.receiver.cut()
            await trio.sleep(20)
            late = house.keeper.statistics()
            assert late.memory > calm.memory + 15 * len("line 30")
            assert not late.is_taken
        answered = len(house.handler.entries)
        grown = {status: counted("ottoscaler_log_lines_total", outcome=status) - before[status] for status in before}
        assert grown == {"ack": answered - 3, "drop": 1, "retry": 2}
        assert counted("ottoscaler_log_gaps_total", reason="GraceOver") - gaps == 1
        assert house.keeper.statistics()[:3] == (0, 0, 0)


@pytest.mark.slow_clock
async def test_requests_for_logs_are_timed() -> None:
    """What the follower asks of the API counts like every other request."""
    name, labels = "ottoscaler_api_request_seconds_count", {"verb": "log", "code": "none"}
    before = REGISTRY.get_sample_value(name, labels) or 0.0
    async with _open_api(Access(server=f"http://127.0.0.1:{find_free_port()}"), lambda: None) as kube:
        with pytest.raises(Unavailable):
            await anext(kube.read_log("otto", "p", "worker", follow=False))
    assert (REGISTRY.get_sample_value(name, labels) or 0.0) - before == 1


async def test_without_logs_nothing_is_said_of_them(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The gauges of logs are there where logs are forwarded, and nowhere else."""
    world, handler = LoggedWorld(tmp_path, lambda labels: Plan()), FakeHandler(FakeReceiver(), [])
    found: list[dict[str, float]] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        for keeper in (None, partial(keeper_of, world, handler)):
            scaler = Scaler(world, MemoryServer(started_at=1_760_000_000.0), "one")
            scaler.open_keeper = keeper
            nursery.start_soon(scaler.run)
            await trio.sleep(2)
            families = text_string_to_metric_families(exposition(scaler.rings.vitals, None).decode())
            samples = [sample for family in families if family.name in GAUGES for sample in family.samples]
            found.append({sample.name + sample.labels.get("place", ""): sample.value for sample in samples})
        nursery.cancel_scope.cancel(reason="the test is over")
    followed, waiting, reachable = GAUGES
    assert found == [{}, {followed: 0, f"{waiting}memory": 0, f"{waiting}disk": 0, reachable: 1}]
