"""What a newer version began is not for this one to cancel."""

from __future__ import annotations

from trio.testing import MockClock

from ottoscaler.events import BadEntry
from tests.spine.stage import open_stage


async def test_a_cancel_of_a_newer_version_s_event_is_refused(autojump_clock: MockClock) -> None:
    """The refusal says why and what to do, and the event is as it was."""
    async with open_stage() as stage:
        target = await stage.add(type="scale_up", pod_count=1)
        fields = stage.stream._server.progress[target.event_id]
        fields |= {"v": "2", "o:1": "written in another way"}
        before = dict(fields)
        refused = await stage.work(await stage.add(type="cancel", event_id=target.event_id)).run()
        assert isinstance(refused, BadEntry)
        assert (refused.cause, refused.reason) == (
            "UnknownEvent",
            f"field event_id is '{target.event_id}', expected an event that no newer version began; "
            "replay this once all replicas are upgraded",
        )
        assert fields == before
