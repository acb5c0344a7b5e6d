"""The scripts `sweep` and `reserve` as they run in the in-memory twin."""

from __future__ import annotations

from collections.abc import Sequence

from ottoscaler.stream.entry_id import parse_id
from ottoscaler.stream.memory_ownership import PAGE, make_offered
from ottoscaler.stream.memory_state import MemoryServer


def sweep(server: MemoryServer, event_ids: Sequence[str], start: int) -> tuple[frozenset[str], int]:
    """Which events are known; a page of live events is put right on the way."""
    pending = server.group().pending
    known = frozenset(id_ for id_ in event_ids if id_ in server.progress or parse_id(id_) in pending)
    live = server.live_ids()[start : start + PAGE]
    for event_id in live:
        owner = server.progress[event_id]["owner"]
        is_offered = any(event_id in lane for lane in server.offered.values())
        if (not owner and not is_offered) or (owner and owner not in server.sessions):
            server.held[owner].discard(event_id)
            make_offered(server, event_id, server.now())
    return known, len(live)


def reserve(server: MemoryServer, session: str, used: int, want: int, total: int) -> int:
    """Declare slots used and wanted; how many the session may use."""
    server.slots = {name: count for name, count in server.slots.items() if name in server.sessions}
    others = sum(count for name, count in server.slots.items() if name != session)
    granted = max(0, min(want, total - others)) if session in server.sessions else 0
    server.slots[session] = max(used, granted)
    return granted
