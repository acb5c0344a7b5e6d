"""Contract of the stream: log marks beside the progress. Every keeper."""

from __future__ import annotations

import pytest
import trio

from ottoscaler.stream.marks import Marking
from tests.stream.backends import Backend
from tests.stream.steps import begin, claim, open_session, take

pytestmark = pytest.mark.slow_clock


async def test_the_next_owner_finds_the_marks(backend: Backend, clock: trio.abc.Clock) -> None:
    """A mark replaces the one before, and stands in the progress that the next owner takes."""
    one, _ = await open_session(backend, "one")
    two, _ = await open_session(backend, "two")
    event_id = await begin(backend, one)
    for text in ("a", '{"line":7}'):
        assert await one.write_marks([Marking(claim(event_id, "one"), ((1, 1, text), (2, 3, text + "!")))]) == [True]
    await one.offer([claim(event_id, "one")], clean=[True])
    (taken,) = await take(two)
    assert taken.marks == {(1, 1): '{"line":7}', (2, 3): '{"line":7}!'}


async def test_a_former_owner_writes_no_mark(backend: Backend, clock: trio.abc.Clock) -> None:
    """Each event's claim is judged by itself; what is not ours stays as it is."""
    one, _ = await open_session(backend, "one")
    ids = [await begin(backend, one) for _ in range(3)]
    await one.offer([claim(ids[1], "one")], clean=[True])
    before = backend.contents()
    assert await one.write_marks([Marking(claim(id_, "one", 2), ((1, 1, "x"),)) for id_ in ids]) == [False] * 3
    assert await one.write_marks([Marking(claim("1-1", "one"), ((1, 1, "x"),))]) == [False]
    assert backend.contents() == before
    assert await one.write_marks([Marking(claim(id_, "one"), ((1, 1, "x"),)) for id_ in ids]) == [True, False, True]
    assert await one.write_marks([]) == []


async def test_thousands_of_marks_are_written(backend: Backend, clock: trio.abc.Clock) -> None:
    """Beyond what one script call takes, every mark is written; a scale_down's view counts no worker by them."""
    one, _ = await open_session(backend, "one")
    event_id = await begin(backend, one, planned=1200)
    marks = tuple((index, 1, f"mark {index}") for index in range(1, 1201))
    assert await one.write_marks([Marking(claim(event_id, "one"), marks)]) == [True]
    progress = await one.read_progress(event_id)
    assert progress is not None
    assert progress.marks == {(index, 1): text for index, _, text in marks}
    (live,) = await one.survey("")
    assert (live.settled, live.accepted) == (frozenset(), frozenset())
