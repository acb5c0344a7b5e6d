"""Steps that many tests of the stream share."""

from __future__ import annotations

import trio

from ottoscaler.stream.base import Claim, Entry, Era, Lane, Registration, Stream, Writing
from ottoscaler.stream.progress import Progress
from tests.stream.backends import Backend

PAIRS = (("type", "scale_up"), ("pod_count", "3"))
LEASE = 60.0  # seconds; for sessions that are not meant to expire


def registration(
    event_id: str, *, lane: Lane = "work", offer: bool = False, task: str = "", planned: int = 3
) -> Registration:
    """A registration of an event with three workers."""
    return Registration(event_id, lane, PAIRS, task, planned, offer)


async def open_session(backend: Backend, name: str, *, lease: float = LEASE) -> tuple[Stream, Era]:
    """A session that is open, on a group that exists."""
    stream = backend.open(name)
    era = await stream.open_group("0", "default")
    await stream.renew(lease, era.id)
    return stream, era


async def begin(
    backend: Backend, stream: Stream, *, lane: Lane = "work", offer: bool = False, task: str = "", planned: int = 3
) -> str:
    """Add an event, read it and register it."""
    event_id = backend.add(*PAIRS)
    assert [entry.id for entry in await stream.read(1, 1.0)] == [event_id]
    epochs = await stream.register([registration(event_id, lane=lane, offer=offer, task=task, planned=planned)])
    assert epochs == [0 if offer else 1]
    if not offer:  # the sign that its owner survived taking it
        await stream.record([Writing(claim(event_id, stream.session))])
    return event_id


async def lose(backend: Backend) -> str:
    """An event whose owner died with it, and whose entry others trimmed away."""
    dead, _ = await open_session(backend, "dead", lease=0.02)
    event_id = await begin(backend, dead)
    backend.trim(0)
    await trio.sleep(0.05)
    return event_id


async def take(stream: Stream, *, work: int = 10, control: int = 10, expire: bool = False) -> list[Progress]:
    """What one look takes."""
    return list((await stream.tend(work, control, expire=expire, audit=False)).taken)


async def strays(stream: Stream, *, audit: bool = False) -> list[Entry]:
    """What one look finds of dead sessions."""
    return list((await stream.tend(0, 0, expire=True, audit=audit)).strays)


def claim(event_id: str, session: str, epoch: int = 1) -> Claim:
    """A fencing token."""
    return Claim(event_id, session, epoch)
