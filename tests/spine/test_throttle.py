"""The writes to the API: few at a time, fair between verbs and events, slower when asked to be, and fast again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from itertools import pairwise

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from ottoscaler.errors import Ambiguous, Conflict, Unavailable, WritesSuspended
from ottoscaler.spine.creation import QUIET_SECONDS
from ottoscaler.spine.scaling import Scaling
from ottoscaler.throttle import LONGEST_OWN_PAUSE, LONGEST_PAUSE, Pace, Throttle
from tests.spine.stage import open_stage
from tests.spine.world import Plan, World

REQUEST_SECONDS = 0.05


def too_many(retry_after: float | None = None) -> Unavailable:
    """What an API answers that has too much to do."""
    return Unavailable("too many requests, please try again later", status=429, retry_after=retry_after)


class Api:
    """Takes its time for each request and notes who was begun, when, and how many were under way."""

    def __init__(self, throttle: Throttle) -> None:
        self.throttle = throttle
        self.begun: list[tuple[str, str]] = []
        self.times: list[float] = []
        self.most = 0
        self.refusals: list[Exception] = []
        self._under_way = 0

    async def ask(self, verb: str, event_id: str) -> None:
        """One request."""
        async with self.throttle.hold(verb, event_id):
            self.begun.append((verb, event_id))
            self.times.append(trio.current_time())
            self._under_way += 1
            self.most = max(self.most, self._under_way)
            await trio.sleep(REQUEST_SECONDS)
            self._under_way -= 1
            if self.refusals:
                raise self.refusals.pop()

    async def insist(self, verb: str, event_id: str) -> None:
        """The request again until it is served."""
        while True:
            try:
                return await self.ask(verb, event_id)
            except Unavailable:
                continue


async def test_a_storm_of_creates_delays_no_delete(autojump_clock: MockClock) -> None:
    """While 10,000 creates of one event wait, another event's delete is begun before as many as are under way end."""
    api = Api(Throttle(4))
    async with trio.open_nursery() as nursery:
        for _ in range(10_000):
            nursery.start_soon(api.ask, "create", "huge")
        await trio.sleep(1.01 * REQUEST_SECONDS)
        asked, before = trio.current_time(), len(api.begun)
        nursery.start_soon(api.ask, "delete", "small")
        nursery.start_soon(api.ask, "create", "small")
        await trio.sleep(2 * REQUEST_SECONDS)
        at = api.begun.index(("delete", "small"))
        assert at - before <= 4
        assert api.times[at] - asked <= REQUEST_SECONDS
        assert api.begun.index(("create", "small")) - before <= 2 * 4
        nursery.cancel_scope.cancel(reason="seen enough")
    assert api.most == 4
    assert api.throttle.statistics() == (0, 4, 0)


async def test_creates_and_deletes_take_turns_however_many_events_want_either(autojump_clock: MockClock) -> None:
    """Where 100 events create and one deletes, every second write is a delete, and no event is served twice in a
    round.
    """
    api = Api(Throttle(1))
    async with trio.open_nursery() as nursery:
        for number in range(100):
            for _ in range(3):
                nursery.start_soon(api.ask, "create", f"e{number}")
        for _ in range(60):
            nursery.start_soon(api.ask, "delete", "d")
    assert all(one != two for (one, _), (two, _) in pairwise(api.begun[2:100]))
    creating = [event_id for verb, event_id in api.begun if verb == "create"]
    assert [len(set(creating[at : at + 100])) for at in (1, 101)] == [100, 100]


async def test_it_pauses_for_as_long_as_the_api_asked(autojump_clock: MockClock) -> None:
    """After a 429 with Retry-After no write of any event is begun until the time is over; then they go on."""
    api = Api(Throttle(4))
    api.refusals = [too_many(retry_after=5.0)]
    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(api.insist, "create", f"e{number}")
    first_round = REQUEST_SECONDS
    assert not [at for at in api.times if first_round < at < first_round + 5.0]
    assert len(api.begun) == 41


async def test_it_halves_and_recovers(autojump_clock: MockClock) -> None:
    """A refusal of all four under way halves the limit once; two rounds of successes restore it."""
    throttle = Throttle(4)
    api = Api(throttle)
    api.refusals = [too_many() for _ in range(4)]
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(api.insist, "create", "e")
        await trio.sleep(1.5 * REQUEST_SECONDS)
        assert throttle.limit == 2
    assert throttle.limit == 3
    for _ in range(3):
        await api.ask("create", "e")
    assert throttle.limit == 4


async def test_an_api_that_keeps_refusing_is_asked_ever_more_rarely(autojump_clock: MockClock) -> None:
    """Without Retry-After pauses double up to 8 s, and one write at a time is left."""
    api = Api(Throttle(4))
    api.refusals = [too_many() for _ in range(1000)]
    with trio.move_on_after(100):
        await api.insist("create", "e")
    assert api.throttle.limit == 1
    assert 14 <= len(api.begun) <= 20
    assert api.times[-1] - api.times[-2] == pytest.approx(LONGEST_OWN_PAUSE + REQUEST_SECONDS)


@pytest.mark.parametrize("error", [WritesSuspended("lease"), Ambiguous("reset"), Unavailable("refused")])
async def test_what_says_nothing_about_load_changes_nothing(error: Exception, autojump_clock: MockClock) -> None:
    """A lease that ran out or a connection that broke neither slows down nor counts as served."""
    throttle = Throttle(4)
    api = Api(throttle)
    api.refusals = [too_many(), error]
    for expected in (error, api.refusals[0]):
        with pytest.raises(type(expected)):
            await api.ask("create", "e")
    assert throttle.limit == 2


async def test_an_answer_of_no_is_an_answer(autojump_clock: MockClock) -> None:
    """An API that refuses one object has time to: the limit recovers."""
    throttle = Throttle(4)
    api = Api(throttle)
    api.refusals = [*(Conflict("exists", status=409) for _ in range(6)), too_many()]
    with pytest.raises(Unavailable):
        await api.ask("create", "e")
    for _ in range(6):
        with pytest.raises(Conflict):
            await api.ask("create", "e")
    assert throttle.limit == 4


async def test_a_cancel_during_a_pause_leaves_every_place_free(autojump_clock: MockClock) -> None:
    """Writes that are given up while they wait, for a place or for the pause's end, hold nothing."""
    throttle = Throttle(2)
    api = Api(throttle)
    api.refusals = [too_many(retry_after=30.0)]
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(api.insist, "create", f"e{number}")
        await trio.sleep(10)
        assert throttle.paused_until > trio.current_time()
        nursery.cancel_scope.cancel(reason="given up")
    assert throttle.statistics() == (0, 1, 0)
    await api.ask("delete", "e")
    assert trio.current_time() < 31


async def test_waiting_writes_are_given_up_in_any_order(autojump_clock: MockClock) -> None:
    """A cancel of a thousand that wait leaves nobody in the queue, and the place goes to the next who comes."""
    throttle = Throttle(1)
    async with throttle.hold("create", "e"):
        async with trio.open_nursery() as nursery:
            for _ in range(1_000):
                nursery.start_soon(throttle.acquire, "create", "e")
            await wait_all_tasks_blocked()
            assert throttle.statistics().waiting == 1_000
            nursery.cancel_scope.cancel(reason="drain")
    assert throttle.statistics() == (0, 1, 0)


EVENTS = st.lists(
    st.tuples(st.floats(0.01, 3.0), st.sampled_from(["served", "refused"]), st.sampled_from([None, 0.0, 2.0, 1e5])),
    max_size=60,
)


@given(most=st.integers(1, 8), events=EVENTS)
def test_the_pace_stays_within_its_bounds(most: int, events: list[tuple[float, str, float | None]]) -> None:
    """Between one and `most` always; pauses have a limit; successes bring `most` back."""
    pace, now = Pace(most), 0.0
    for seconds, how, retry_after in events:
        begun, now = now, now + seconds
        if how == "refused":
            pace.slow_down(begun, now, retry_after)
            assert now < pace.paused_until or begun <= pace._slowed_at
            assert pace.paused_until >= now + min(LONGEST_PAUSE, retry_after or 0.0)
        else:
            pace.recover(begun)
        assert 1 <= pace.limit <= most
        assert pace.paused_until <= now + LONGEST_PAUSE
    for _ in range(most * most):
        begun, now = now + 0.01, now + 1
        pace.recover(begun)
    assert pace.limit == most


async def test_a_worker_waits_as_long_as_the_api_asked(autojump_clock: MockClock) -> None:
    """Creates and deletes that are refused with Retry-After are repeated no earlier, and then succeed."""
    async with open_stage(World(lambda labels: Plan(duration=1))) as stage:
        refusals: Iterator[Exception] = iter([too_many(30.0)])
        more: Iterator[Exception] = iter([too_many(40.0)])
        stage.kube.fail = lambda verb, name: next({"create": refusals, "delete": more}.get(verb, iter(())), None)
        at = []
        write = stage.kube._write

        async def noting(verb: str, name: str) -> None:
            at.append((verb, trio.current_time()))
            await write(verb, name)

        stage.kube._write = noting  # type: ignore[method-assign]  # to see when
        await stage.work(await stage.add(type="scale_up", pod_count=1)).run()
        (result,) = await stage.results()
        assert result["status"] == "succeeded"
    (_, first), (_, second), (_, third), (_, fourth) = at
    assert [verb for verb, _ in at] == ["create", "create", "delete", "delete"]
    assert 30 <= second - first < 33
    assert 40 <= fourth - third < 43


async def test_a_stop_does_not_wait_for_the_api(autojump_clock: MockClock) -> None:
    """A worker that is stopped while the API asked its create to wait ends at once, without a pod."""
    async with open_stage() as stage:
        stage.kube.fail = lambda verb, name: too_many(500.0) if verb == "create" else None
        work = stage.work(await stage.add(type="scale_up", pod_count=1))
        assert isinstance(work, Scaling)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work.run)
            await trio.sleep(5)
            work._workers[1].stop()
            await trio.sleep(1)
            (result,) = await stage.results()
        assert result["status"] == "terminated"
        assert stage.world.runs == []


async def test_a_long_retry_after_does_not_outlast_the_create_timeout(autojump_clock: MockClock) -> None:
    """An API that asks for an hour is asked once more at the end of the worker's time; then the worker has failed."""
    async with open_stage(create_timeout=100.0) as stage:
        stage.kube.fail = lambda verb, name: too_many(3600.0) if verb == "create" else None
        await stage.work(await stage.add(type="scale_up", pod_count=1)).run()
        (result,) = await stage.results()
        assert result["workers"][0]["cause"] == "ApiUnavailable"
    assert 100 <= trio.current_time() < 165


async def test_one_refused_event_slows_all_writes_of_the_process(autojump_clock: MockClock) -> None:
    """While the API asked to wait, other events' first writes wait, too."""
    async with open_stage() as stage:
        refusals: Iterator[Exception] = iter([too_many(20.0)])
        stage.kube.fail = lambda verb, name: next(refusals, None) if verb == "create" else None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.work(await stage.add(type="scale_up", pod_count=1)).run)
            await trio.sleep(1)
            written = len(stage.world.writes)
            nursery.start_soon(stage.work(await stage.add(type="scale_up", pod_count=3)).run)
            await trio.sleep(18)
            assert len(stage.world.writes) == written
        assert [result["status"] for result in await stage.results()] == ["succeeded"] * 2


@pytest.mark.parametrize("retry_after", [None, 1.0, 30.0])
@pytest.mark.parametrize("count", [1, 100])
async def test_an_api_that_puts_all_creates_off_is_named_soon(
    autojump_clock: MockClock, count: int, retry_after: float | None
) -> None:
    """However many workers take turns, the progress names the cause within 10 s, and not before it has lasted or will
    last 5 s.
    """
    async with open_stage() as stage, trio.open_nursery() as nursery:
        stage.kube.fail = lambda verb, name: too_many(retry_after) if verb == "create" else None
        progress = await stage.add(type="scale_up", pod_count=count)
        nursery.start_soon(stage.work(progress).run)
        asked = trio.current_time()
        while True:
            await trio.sleep(0.1)
            now = await stage.stream.read_progress(progress.event_id)
            assert now is not None
            if now.troubles:
                break
        assert trio.current_time() - asked < 10
        assert (
            stage.site.writes.paused_until - asked >= QUIET_SECONDS - 0.1
            or trio.current_time() - asked >= QUIET_SECONDS
        )
        nursery.cancel_scope.cancel(reason="seen enough")


async def test_a_trouble_that_others_have_is_known_to_who_meets_it_later(autojump_clock: MockClock) -> None:
    """A worker that is refused first when the API has refused others for a while names the cause at once."""
    async with open_stage() as stage, trio.open_nursery() as nursery:
        stage.kube.fail = lambda verb, name: too_many() if verb == "create" else None
        nursery.start_soon(stage.work(await stage.add(type="scale_up", pod_count=1)).run)
        await trio.sleep(30)
        progress = await stage.add(type="scale_up", pod_count=1)
        nursery.start_soon(stage.work(progress).run)
        await trio.sleep(18)
        now = await stage.stream.read_progress(progress.event_id)
        assert now is not None
        assert [trouble["cause"] for trouble in now.troubles.values()] == ["ApiUnavailable"]
        nursery.cancel_scope.cancel(reason="seen enough")


async def test_who_waits_for_a_turn_gives_up_in_time_too(autojump_clock: MockClock) -> None:
    """An API that refuses all creates fails a hundred workers when their time is over, not one pause after another."""
    async with open_stage(create_timeout=100.0) as stage:
        stage.kube.fail = lambda verb, name: too_many() if verb == "create" else None
        await stage.work(await stage.add(type="scale_up", pod_count=100)).run()
        assert 100 <= trio.current_time() < 120
        (result,) = await stage.results()
        assert {worker["cause"] for worker in result["workers"]} == {"ApiUnavailable"}
        assert all("too many requests" in worker["reason"] for worker in result["workers"])


async def test_a_queue_that_moves_fails_nobody_who_waits(autojump_clock: MockClock) -> None:
    """Where the API refuses now and then only, a turn that comes after CREATE_TIMEOUT_SECONDS is used all the same."""
    async with open_stage(World(lambda labels: Plan(duration=1)), create_timeout=20.0) as stage:
        asked, late = itertools.count(), list[float]()

        def fail(verb: str, name: str) -> Exception | None:
            if verb != "create" or next(asked) % 10 != 5:
                return None
            late.extend([trio.current_time()] if trio.current_time() >= 20 else [])
            return too_many(2.0)

        stage.kube.fail = fail
        await stage.work(await stage.add(type="scale_up", pod_count=150)).run()
        (result,) = await stage.results()
        assert 0 < len(late) < 10
        assert int(result["succeeded"]) >= 150 - len(late)
