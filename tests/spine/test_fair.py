"""The shared limit: nobody starves, nothing leaks, whatever is cancelled."""

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from ottoscaler.fair import FairLimiter


async def test_keys_take_turns(autojump_clock: trio.testing.MockClock) -> None:
    """A key with one waiting task gets its turn after one of the huge key's, not after all of them."""
    limiter, order = FairLimiter(1), []

    async def use(key: str) -> None:
        async with limiter.hold(key):
            order.append(key)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(use, "huge")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(use, "small")
    assert order.index("small") <= 2
    assert limiter.statistics().used == 0


async def test_units_beyond_the_limit_are_counted(autojump_clock: trio.testing.MockClock) -> None:
    """Adopted work takes units beyond the limit; newcomers wait until it is below again."""
    limiter = FairLimiter(1)
    limiter.acquire_beyond()
    limiter.acquire_beyond()
    got = trio.Event()

    async def newcomer() -> None:
        async with limiter.hold("new"):
            got.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(newcomer)
        await trio.testing.wait_all_tasks_blocked()
        limiter.release()
        await trio.testing.wait_all_tasks_blocked()
        assert not got.is_set()
        limiter.release()
    assert got.is_set()


@settings(deadline=None, max_examples=60)
@given(
    limit=st.integers(1, 3),
    tasks=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 6), st.integers(0, 6)), max_size=12),
)
def test_no_unit_is_lost_by_cancels(limit: int, tasks: list[tuple[str, int, int]]) -> None:
    """Tasks that come, hold and are cancelled at any time never exceed the limit and leave every unit free."""
    limiter, most = FairLimiter(limit), 0

    async def use(key: str, hold: int, cancel_after: int) -> None:
        nonlocal most
        with trio.move_on_after(cancel_after):
            async with limiter.hold(key):
                most = max(most, limiter.used)
                await trio.sleep(hold)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(use, *task)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert most <= limit
    assert limiter.statistics() == (0, limit, 0)
