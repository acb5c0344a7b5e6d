"""Raw answers of Redis (bytes, numbers, nested lists) read into the stream's records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ottoscaler.stream.base import Closed, Entry, Era, Fence, LiveEvent, Renewal, Tending, Written
from ottoscaler.stream.progress import Progress, read_progress

Raw = Any
FlatPairs = Sequence[bytes]


def text(raw: bytes) -> str:
    """UTF-8; bytes that are none become a mark, for what we wrote ourselves always is."""
    return raw.decode("utf-8", "replace")


def texts(flat: FlatPairs) -> dict[str, str]:
    """A flat list of names and values as a dictionary."""
    return {text(flat[at]): text(flat[at + 1]) for at in range(0, len(flat), 2)}


def entry(raw: Raw) -> Entry:
    """`[id, fields or nil]`, or `[id, fields or nil, deliveries]`."""
    id_, flat, *deliveries = raw
    fields = None if flat is None else tuple((flat[at], flat[at + 1]) for at in range(0, len(flat), 2))
    return Entry(text(id_), fields, *deliveries)


def entries(raw: Raw) -> list[Entry]:
    """Answer to XREADGROUP on one stream."""
    return [entry(one) for one in raw[0][1]] if raw else []


def era(raw: Raw) -> Era:
    """Answer of `open_group`."""
    id_, namespace, created = map(text, raw)
    return Era(id_, namespace, int(created))


def renewal(raw: Raw) -> Renewal:
    """Answer of `renew`."""
    return Renewal(existed=bool(raw[0]), held=raw[1], era_stands=bool(raw[2]))


def progress(raw: Raw) -> Progress:
    """`[id, flat hash]`."""
    return read_progress(text(raw[0]), texts(raw[1]))


def tending(raw: Raw) -> Tending:
    """Answer of `tend`."""
    notices, taken, strays, fences, offered, is_idle = raw
    return Tending(
        notices=tuple(map(text, notices)),
        taken=tuple(map(progress, taken)),
        strays=tuple(map(entry, strays)),
        fences=tuple(_fence(fences[at], fences[at + 1]) for at in range(0, len(fences), 2)),
        offered=offered,
        is_idle=is_idle == 1,
    )


def fences(raw: Raw) -> list[Fence]:
    """A flat list of members and due times."""
    return [_fence(raw[at], raw[at + 1]) for at in range(0, len(raw), 2)]


def _fence(member: bytes, due: bytes) -> Fence:
    name, uid = msgspec.json.decode(member)
    return Fence(name, uid, int(float(due)))


def written(raw: Raw) -> Written:
    """One answer of `record`."""
    return Written(is_ours=False) if raw is None else Written(True, tuple(map(text, raw)))


def live_event(raw: Raw) -> LiveEvent:
    """One answer of `survey`."""
    id_, task_id, planned, epoch, owner, settled, accepted = map(text, raw)
    return LiveEvent(
        event_id=id_,
        task_id=task_id,
        planned=int(planned),
        epoch=int(epoch),
        owner=owner,
        settled=frozenset(map(int, settled.split())),
        accepted=frozenset(map(int, accepted.split())),
    )


def victims(raw: Raw) -> tuple[tuple[str, int], ...]:
    """JSON list of `[event id, index]`."""
    return tuple((event_id, index) for event_id, index in msgspec.json.decode(raw))


def closed(raw: Raw) -> Closed:
    """Answer of `close`."""
    return msgspec.convert({"how": text(raw[0]), "entry_id": text(raw[1])}, Closed)
