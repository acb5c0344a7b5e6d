"""One cancel: every worker of one event (of a pipeline, every stage) that has not ended is marked, and its event ends
as terminated, cause Cancelled.
"""

from __future__ import annotations

import trio

from ottoscaler.events import BadEntry
from ottoscaler.spine.scaledown import ScaleDown
from ottoscaler.stages import parse_pipeline
from ottoscaler.stream.progress import VERSION, Progress

LOOK_AGAIN_SECONDS = 0.5
"""Between two looks for an event whose entry waits to be read, or was delivered and is not yet registered."""


class Cancel(ScaleDown):
    """The work on one cancel: a scale_down of all that is left of one event."""

    cause = "Cancelled"

    async def _choose(self) -> tuple[tuple[str, int], ...] | BadEntry:
        if self._progress.victims_chosen:
            return self._progress.victims
        target = await self._find_target()
        if isinstance(target, BadEntry | None):
            return target or ()
        last_first = range(target.planned, 0, -1)  # each mark looks for one that is still open, from the first on
        open_indices = (index for index in last_first if index not in target.outcomes)
        names = _name_stages(target)
        candidates = (self._candidate(target.event_id, index, names.get(index)) for index in open_indices)
        return await self._mark(candidates, target.planned)

    async def _find_target(self) -> Progress | BadEntry | None:
        """The event's progress; None where it has ended; why not where it cannot be cancelled, or is nowhere."""
        ledger, target = self._site.ledger, self._event.target
        while True:
            progress = await ledger.insist(lambda: ledger.stream.read_progress(target))
            if progress is not None:
                return self._judge(progress)
            ending = await ledger.insist(lambda: ledger.stream.read_ending(target))
            if ending is not None:
                ended_at = ending[1].get("completed_at") or ending[1].get("failed_at") or "an unknown time"
                self._note = f"event {target} had ended at {ended_at} ({ending[1].get('status', ending[0])})"
                return None
            standings = await ledger.insist(lambda: ledger.stream.look([target]))
            if standings[target].where == "nowhere":
                return self._refuse("the id of an event that waits, runs or ended within a day")
            await trio.sleep(LOOK_AGAIN_SECONDS)

    def _judge(self, target: Progress) -> Progress | BadEntry:
        if target.version > VERSION:
            return self._refuse("an event that no newer version began; replay this once all replicas are upgraded")
        if target.lane == "control":
            kind = dict(target.entry).get("type")
            return self._refuse(f"that of a scale_up or a pipeline: this event is a {kind}, which cannot be cancelled")
        return target

    def _refuse(self, expected: str) -> BadEntry:
        reason = f"field event_id is {self._event.target!r}, expected {expected}"
        pairs = tuple((name.encode(), value.encode()) for name, value in self._event.entry)
        return BadEntry(self._event.id, "UnknownEvent", reason, pairs)


def _name_stages(target: Progress) -> dict[int, str]:
    """By index, where the event is a pipeline; empty elsewhere: its workers have names of their own."""
    text = dict(target.entry).get("otto.pipeline")
    return {at: stage.stage_id for at, stage in enumerate(parse_pipeline(text).stages, start=1)} if text else {}
