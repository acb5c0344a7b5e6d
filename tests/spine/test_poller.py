"""The poller alone: what becomes of the room of an event whose registration was cut off."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.backoff import Backoff
from ottoscaler.events import Limits
from ottoscaler.spine.ledger import Ledger
from ottoscaler.spine.poller import Poller
from ottoscaler.spine.roster import Roster
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from ottoscaler.stream.progress import Progress


@pytest.mark.parametrize("is_given_back", [True, False])
async def test_an_event_that_is_offered_keeps_no_room(autojump_clock: MockClock, is_given_back: bool) -> None:
    """An event whose registration was cut off by a cancel or a crash, and which is offered then, is no event of this
    process: it takes no room, and no renewal reports it lost.
    """
    server, roster, backoff = MemoryServer(), Roster(1), Backoff(0.1, 1.0, jitter=0.0)
    stream = MemoryStream(server, "one")
    await stream.open_group("0", "otto")
    send, _receive = trio.open_memory_channel[Progress](1)
    poller = Poller(Ledger(stream, backoff), roster, "one", Limits(), send, backoff=backoff)
    event_id = await stream.add_event([("type", "scale_up"), ("pod_count", "1")], "up")
    entries = await stream.read(1, 1.0)
    server.weather = "silent"
    with trio.move_on_after(1):
        await poller.admit(entries)
    assert roster.ids() == {event_id}
    server.weather = "fine"
    await (poller.hand_back() if is_given_back else poller.admit(entries))
    assert list(server.offered["work"]) == [event_id]
    assert (roster.ids(), roster.rooms()["work"]) == (frozenset(), 1)
