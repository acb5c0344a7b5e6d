"""The script `tend` as it runs in the in-memory twin: notices, dead sessions, taking, fences, in one look."""

from __future__ import annotations

from collections.abc import Mapping

from ottoscaler.stream.base import Entry, Fence, Lane, Tending
from ottoscaler.stream.entry_id import parse_id
from ottoscaler.stream.memory_ownership import PAGE, forget_session, hold, offer_all, unregistered
from ottoscaler.stream.memory_state import MemoryServer, Tended, due
from ottoscaler.stream.progress import Progress, is_newer, read_progress

STRAYS = 100  # entries claimed from dead sessions in one call
FENCES = 100  # fences lent in one call
FENCE_LOAN = 10_000  # ms
SEEN = 5000  # offered events of a lane looked at in one call, to get past those that may not be taken
Offer = tuple[Lane, str]


def tend(
    server: MemoryServer, session: str, call: int, rooms: Mapping[Lane, int], *, expire: bool, audit: bool
) -> Tending:
    """One look at all that is due. The same `call` again gives again what it gave, and what is due since."""
    last = server.tended.get(session)
    again = last if last and last.call == call else None
    notices = tuple(sorted({*(again.notices if again else ()), *server.notices.pop(session, ())}))
    if audit:
        _expire_unknown_consumers(server, session)
    strays = _expire(server, session) if expire else []
    taken = {id_: read_progress(id_, server.progress[id_]) for id_ in _still_held(server, session, again)}
    _take(server, session, call, {**rooms, "work": rooms["work"] - len(taken)}, taken)
    if notices or taken:
        server.tended[session] = Tended(call, notices, tuple(taken))
    group = server.events.groups.get(server.keys.group)
    return Tending(
        notices=notices,
        taken=tuple(taken.values()),
        strays=tuple(strays),
        fences=_lend_fences(server),
        offered=len(server.offered["work"]),
        is_idle=group is not None and not group.pending,
    )


def _still_held(server: MemoryServer, session: str, again: Tended | None) -> list[str]:
    return [id_ for id_ in (again.taken if again else ()) if server.progress.get(id_, {}).get("owner") == session]


def _take(server: MemoryServer, session: str, call: int, rooms: Mapping[Lane, int], taken: dict[str, Progress]) -> None:
    """Take what fits. An event that broke before is taken alone, so that it takes no other down with it; it has every
    eighth turn, so that many of them do not hold up the others.
    """
    if not any(server.offered.values()):
        return
    healthy, suspects = list[Offer](), list[Offer]()
    for lane, room in rooms.items():
        found, broken = _look_through(server, lane, room)
        healthy, suspects = healthy + found, broken[:1] + suspects
    if suspects and not taken and (not healthy or call % 8 == 0):
        healthy = suspects[:1]
    elif any(progress.failures for progress in taken.values()):
        return
    for lane, event_id in healthy:
        del server.offered[lane][event_id]
        taken[event_id] = _take_one(server, session, event_id)


def _look_through(server: MemoryServer, lane: Lane, room: int) -> tuple[list[Offer], list[Offer]]:
    """What of a lane may be taken: at most `room` events that never broke, and those that did. In the control lane wait
    also events that are to be stopped: commands wait for them, so a page of them is taken whatever the room. Another
    page is looked at only where what may not be taken stands in the way: a newer version's, or commands without room.
    """
    healthy, suspects = list[Offer](), list[Offer]()
    rooms = {False: room, True: PAGE if lane == "control" else 0}  # by whether an event is to be stopped
    for start in range(0, SEEN if max(rooms.values()) > 0 else 0, PAGE):
        passed = 0
        for event_id in due(server.offered[lane], server.now(), start + PAGE)[start:]:
            fields = server.progress.get(event_id)
            is_stop = lane == "control" and fields is not None and fields["lane"] != "control"
            if max(rooms.values()) <= 0:
                break
            if fields is None:
                del server.offered[lane][event_id]
            elif is_newer(fields) or rooms[is_stop] <= 0:
                passed += 1
            elif _failures(fields):
                suspects.append((lane, event_id))
            else:
                rooms[is_stop] -= 1
                healthy.append((lane, event_id))
        if passed == 0 or max(rooms.values()) <= 0:
            break
    return healthy, suspects


def _failures(fields: dict[str, str]) -> int:
    """How often the handling of an event broke: each owner that went without a sign after taking it counts."""
    if fields.pop("trial", None):
        fields["failures"] = str(int(fields.get("failures", 0)) + 1)
    return int(fields.get("failures", 0))


def _take_one(server: MemoryServer, session: str, event_id: str) -> Progress:
    fields = server.progress[event_id]
    epoch = str(int(fields["epoch"]) + 1)
    fields |= {"owner": session, "epoch": epoch, "trial": epoch}
    hold(server, session, event_id)
    server.events.claim(server.keys.group, session, parse_id(event_id))
    progress = read_progress(event_id, fields)
    fields.pop("clean", None)
    return progress


def _expire_unknown_consumers(server: MemoryServer, session: str) -> None:
    for consumer in server.group().consumers():
        if consumer != session:
            server.sessions.setdefault(consumer, 0)


def _expire(server: MemoryServer, session: str) -> list[Entry]:
    """Offer what expired sessions held, claim what was delivered to them only, forget those that have nothing left."""
    budget, strays = PAGE, list[Entry]()
    for expired in due(server.sessions, server.now(), 20):
        if expired == session:
            continue
        budget -= offer_all(server, expired, budget)
        if server.held.get(expired) or budget <= 0:
            break
        found = unregistered(server, expired)[: STRAYS - len(strays)]
        for entry in found:
            if entry.fields is not None:  # a trimmed entry stays: a claim would remove it from the pending ones
                server.events.claim(server.keys.group, session, parse_id(entry.id))
        strays += found
        if len(strays) >= STRAYS:
            break
        if not any(entry.fields is None for entry in found):
            forget_session(server, expired)
    return strays


def _lend_fences(server: MemoryServer) -> tuple[Fence, ...]:
    if not server.fences:
        return ()
    now = server.now()
    found = sorted((due_at, fence) for fence, due_at in server.fences.items() if due_at <= now)[:FENCES]
    for _, fence in found:
        server.fences[fence] = now + FENCE_LOAN
    return tuple(Fence(name, uid, due_at) for due_at, (name, uid) in found)
