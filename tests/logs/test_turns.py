"""Turns: those with much to do go behind those with little, and are not forgotten."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import trio
from hypothesis import given
from hypothesis import strategies as st

from ottoscaler.logs.turns import FEW_BYTES, MOST_LOOKS, SLICE_BYTES, Turns


async def pieces_of(pieces: Sequence[bytes]) -> AsyncGenerator[bytes, None]:
    """Pieces of a log that are there already."""
    for piece in pieces:
        await trio.lowlevel.checkpoint()
        yield piece


async def read(turns: Turns, pieces: Sequence[bytes]) -> list[bytes]:
    """What comes of them."""
    async with aclosing(turns.read(pieces_of(pieces))) as slices:
        return [piece async for piece in slices]


async def test_work_that_can_wait_leaves_most_of_the_loop_to_others(nursery: trio.Nursery) -> None:
    """While others are busy all the time it has a turn now and then, and one at every look once they are not."""
    turns, count = Turns(), 0

    async def be_loud() -> None:
        nonlocal count
        while True:
            await turns.wait()
            count += 1

    nursery.start_soon(be_loud)
    for _ in range(1000):
        await trio.lowlevel.checkpoint()
    assert 1000 // MOST_LOOKS - 1 <= count <= 250
    nursery.cancel_scope.cancel(reason="seen")


async def test_readers_do_not_crowd_out_who_sends(nursery: trio.Nursery) -> None:
    """Beside fifty logs that are read, sending has every other turn."""
    turns, slices = Turns(), 0

    async def be_read() -> None:
        nonlocal slices
        async with aclosing(turns.read(pieces_of([b"x" * SLICE_BYTES] * 50))) as pieces:
            async for _ in pieces:
                slices += 1

    for _ in range(50):
        nursery.start_soon(be_read)
    await trio.lowlevel.checkpoint()
    for _ in range(40):
        await turns.wait()
    assert 20 <= slices <= 44
    nursery.cancel_scope.cancel(reason="seen")


async def test_a_small_piece_waits_for_no_turn(nursery: trio.Nursery) -> None:
    """While others have the turn, a quiet log is read on."""
    turns = Turns()
    for _ in range(20):
        nursery.start_soon(turns.wait)
    await trio.lowlevel.checkpoint()
    before = trio.lowlevel.current_statistics().tasks_living
    assert await read(turns, [b"", b"x" * FEW_BYTES]) == [b"", b"x" * FEW_BYTES]
    assert trio.lowlevel.current_statistics().tasks_living == before
    nursery.cancel_scope.cancel(reason="seen")


async def test_who_leaves_gives_the_turn_back() -> None:
    """A reader that is cancelled while it waits keeps nobody from the next turn."""
    turns = Turns()
    with trio.CancelScope() as scope:
        scope.cancel(reason="by the test")
        await read(turns, [b"x" * SLICE_BYTES])
    with trio.fail_after(1):
        await turns.wait()
        assert await read(turns, [b"x" * SLICE_BYTES]) == [b"x" * SLICE_BYTES]


@given(st.lists(st.integers(0, 3 * SLICE_BYTES), max_size=8))
def test_the_bytes_of_a_log_stay_the_same(sizes: list[int]) -> None:
    """Whatever the pieces were, together they say the same, and none is larger than a turn allows."""
    pieces = [bytes([number]) * size for number, size in enumerate(sizes)]
    slices = trio.run(read, Turns(), pieces)
    assert b"".join(slices) == b"".join(pieces)
    assert max(map(len, slices), default=0) <= SLICE_BYTES
