"""The scripts on who works on what, as they run in the in-memory twin: each function is one file of `lua/`."""

from __future__ import annotations

from collections.abc import Sequence

from ottoscaler.stream.base import Claim, Entry, Era, Registration, Renewal
from ottoscaler.stream.entry_id import format_id, parse_id
from ottoscaler.stream.memory_log import Group
from ottoscaler.stream.memory_requests import judge_request
from ottoscaler.stream.memory_state import MemoryServer, text_of
from ottoscaler.stream.progress import VERSION

PAGE = 500  # at most so many values are handled or unpacked at once


def open_group(server: MemoryServer, start: str, namespace: str, new_era: str) -> Era:
    """Create group and era where they are missing."""
    if server.keys.group not in server.events.groups:
        last = server.events.last if start == "$" else parse_id(start)
        server.events.groups[server.keys.group] = Group(last)
    if server.era is None:
        server.era = Era(new_era, namespace, server.now())
    return server.era


def renew(server: MemoryServer, session: str, lease_ms: int, era: str, outages: str) -> Renewal:
    """Keep a session for another lease, with what it tells of outages; writes nothing where the era is another one."""
    if server.era is None or server.era.id != era:
        return Renewal(existed=False, held=0, era_stands=False)
    existed = session in server.sessions
    server.sessions[session] = server.now() + lease_ms
    server.outages.pop(session, None)
    if outages:
        server.outages[session] = outages
    return Renewal(existed=existed, held=len(server.held.get(session, ())), era_stands=True)


def register(server: MemoryServer, session: str, registration: Registration) -> int:
    """Write one delivered event down; its epoch, 0 = offered, below = refused."""
    event_id, group = registration.event_id, server.keys.group
    if progress := server.progress.get(event_id):
        if progress["owner"] == session:
            return int(progress["epoch"])
        return -1 if progress["owner"] else 0
    if server.ending(event_id):
        server.events.acknowledge(group, parse_id(event_id))
        return -1
    pending = server.group().pending.get(parse_id(event_id))
    if pending is None or pending.consumer != session:
        return -1
    if registration.request_id and (
        refused := judge_request(
            server, event_id, registration.request_id, registration.content, registration.replay_of
        )
    ):
        return refused
    epoch = 0 if registration.offer else 1
    server.progress[event_id] = {
        "v": str(VERSION),
        "lane": registration.lane,
        "owner": "" if registration.offer else session,
        "epoch": str(epoch),
        "entry": text_of(registration.entry),
        "task_id": registration.task_id,
        "planned": str(registration.planned),
        "registered": str(server.now()),
    }
    if registration.offer:
        server.offered[registration.lane][event_id] = due_of(server, event_id)
    else:
        server.progress[event_id]["trial"] = str(epoch)
        hold(server, session, event_id)
    return epoch


def hold(server: MemoryServer, session: str, event_id: str) -> None:
    """Let a session hold an event; an unknown session becomes one that has expired, so that others look at it."""
    server.held[session].add(event_id)
    server.sessions.setdefault(session, server.now())


def due_of(server: MemoryServer, event_id: str) -> int:
    """From when on an offered event may be taken: the time in its id, where that is not in the future."""
    return min(parse_id(event_id)[0], server.now())


def make_offered(server: MemoryServer, event_id: str, due: int) -> None:
    """Nobody's any more from now on; where a stop mark waits for an outcome it waits for no scaling."""
    progress = server.progress[event_id]
    progress["owner"] = ""
    lane = "control" if int(progress.get("stopping", 0)) > 0 else progress["lane"]
    server.offered[lane][event_id] = due


def adopt(server: MemoryServer, claim: Claim) -> bool:
    """Note that the session has read the progress and goes on."""
    if not server.is_held(claim.event_id, claim.session, claim.epoch):
        return False
    server.progress[claim.event_id].pop("trial", None)
    note = text_of({"session": claim.session, "at": server.now()})
    server.progress[claim.event_id].setdefault(f"adopted:{claim.epoch}", note)
    return True


def offer(server: MemoryServer, claim: Claim, clean: bool, delay_ms: int, failed: bool) -> None:
    """Hand one event over."""
    if not server.is_held(claim.event_id, claim.session, claim.epoch):
        return
    progress = server.progress[claim.event_id]
    progress.pop("trial", None)
    if failed:
        progress["failures"] = str(int(progress.get("failures", 0)) + 1)
    progress.pop("clean", None)
    if clean:
        progress["clean"] = "1"
    server.held[claim.session].discard(claim.event_id)
    make_offered(server, claim.event_id, server.now() + delay_ms)


def leave(server: MemoryServer, session: str) -> None:
    """End a session: forgotten where nothing is left of it, else expired at once."""
    group = server.events.groups.get(server.keys.group)
    if server.held.get(session) or (group and group.pending_of(session)):
        server.sessions[session] = 0
    else:
        forget_session(server, session)


def forget_session(server: MemoryServer, session: str) -> None:
    """Remove every key of a session that holds nothing."""
    server.sessions.pop(session, None)
    server.outages.pop(session, None)
    server.notices.pop(session, None)
    server.tended.pop(session, None)
    server.held.pop(session, None)


def unregistered(server: MemoryServer, consumer: str) -> list[Entry]:
    """Entries pending for a consumer that have no progress; those that have ended are acknowledged on the way."""
    found, group = [], server.group()
    for id_ in group.pending_of(consumer):
        event_id = format_id(id_)
        if event_id in server.progress:
            continue
        if server.ending(event_id):
            server.events.acknowledge(server.keys.group, id_)
            continue
        found.append(Entry(event_id, server.events.entries.get(id_), group.pending[id_].deliveries))
    return found


def held(server: MemoryServer, session: str) -> frozenset[str]:
    """What a session holds."""
    return frozenset(server.held.get(session, ()))


def offer_all(server: MemoryServer, session: str, budget: int) -> int:
    """Offer up to `budget` events of a session that has expired; how many they were."""
    ids: Sequence[str] = sorted(server.held.get(session, ()))[:budget]
    for event_id in ids:
        server.held[session].discard(event_id)
        if server.progress.get(event_id, {}).get("owner") == session:
            make_offered(server, event_id, due_of(server, event_id))
    return len(ids)
