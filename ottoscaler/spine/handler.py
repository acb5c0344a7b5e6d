"""The event handler: takes events from the channel and gives each its own task, in the nursery of the work ring.

In: `Progress` of events that this process holds, from the poller (fresh) and the taker (taken over). Each becomes a
`Scaling` or `ScaleDown` that ends in a result. What can go wrong with one stays with it: an event that is lost just
ends here; one whose handling breaks is logged and offered again after a while.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Protocol

import trio

from ottoscaler.errors import FixYourCall, UnknownTemplate
from ottoscaler.events import BadEntry, Limits, Pairs, parse_entry
from ottoscaler.log import log
from ottoscaler.metrics import LEASES_LOST
from ottoscaler.outcomes import WorkerOutcome, dead_letter_pairs
from ottoscaler.pipelines.running import PipelineRun
from ottoscaler.pods import PodRecord
from ottoscaler.spine.cancelling import Cancel
from ottoscaler.spine.fences import Guard
from ottoscaler.spine.ledger import NotOurs
from ottoscaler.spine.roster import Roster
from ottoscaler.spine.scaledown import ScaleDown
from ottoscaler.spine.scaling import Scaling
from ottoscaler.spine.site import Site
from ottoscaler.stream.base import Claim, Closing
from ottoscaler.stream.progress import Progress
from ottoscaler.supervisor import Unrecoverable, first_of

NO_LIMITS = Limits(max_pods=10**9, max_metadata_bytes=10**9, max_fields=10**9, is_new=False)
"""What was accepted once is not judged again when it is taken over."""
OFFER_AGAIN_SECONDS = 10.0


class Work(Protocol):
    """The work on one event."""

    claim: Claim

    @property
    def is_untouched(self) -> bool:
        """Nothing depends on this process yet: hand over at once when a drain begins."""

    @property
    def is_clean(self) -> bool:
        """No create may still be carried out behind the next owner's back."""

    @property
    def queued(self) -> int:
        """How many of its workers have not begun."""

    def needs(self, record: PodRecord) -> bool:
        """Whether this pod of the event is still worked on, waits to be cleaned, or is kept as a fence."""

    def notice(self) -> None:
        """Its progress was changed by somebody else."""

    async def run(self) -> BadEntry | None:
        """Work until the result is written, or say why there can be none; raises `NotOurs` when the event was lost."""


class Handler:
    """Starts the work on each event and keeps the roster of it.

    `work` is the nursery of the work ring; every event's task lives there, whatever becomes of this handler.
    """

    def __init__(
        self,
        site: Site,
        guard: Guard,
        roster: Roster,
        session: str,
        events: trio.MemoryReceiveChannel[Progress],
        work: trio.Nursery,
        *,
        give_up: Callable[[Unrecoverable], None],
        max_failures: int = 3,
    ) -> None:
        self._site = site
        self._give_up = give_up
        self._guard = guard
        self._max_failures = max_failures
        self._roster = roster
        self._session = session
        self._events = events
        self._work = work
        self._scopes: dict[str, trio.CancelScope] = {}
        self._ended: dict[str, trio.Event] = {}
        self._noticed: set[str] = set()  # events that were changed before their work began here
        self._in_hand: Progress | None = None  # a crash of this loop must not lose it

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start work until all senders are gone (a drain closes them first)."""
        task_status.started()
        while True:
            if self._in_hand is None:
                try:
                    self._in_hand = await self._events.receive()
                except trio.EndOfChannel:
                    return
            if self._is_news(self._in_hand):
                await self._end_former(self._in_hand.event_id)
                self._begin(self._in_hand)
            self._in_hand = None

    def cancel(self, event_id: str, reason: str) -> None:
        """End the work on one event here; its pods stay as they are."""
        if scope := self._scopes.get(event_id):
            scope.cancel(reason=reason)

    def notice(self, event_id: str) -> None:
        """Tell the work on an event that its progress was changed, or tell it when it begins."""
        if work := self._roster.work_of(event_id):
            work.notice()
        elif event_id in self._roster:
            self._noticed.add(event_id)

    def take_unbegun(self) -> list[tuple[Claim, bool]]:
        """The events that came and were never begun, for the hand-over: their claims, and whether they are clean."""
        left = [self._in_hand] if self._in_hand else []
        self._in_hand = None
        with suppress(trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
            while True:
                left.append(self._events.receive_nowait())
        return [(Claim(one.event_id, self._session, one.epoch), one.clean or one.epoch == 1) for one in left]

    def _is_news(self, progress: Progress) -> bool:
        """Whether no work goes on under this epoch: what was found twice must not run twice, from a stale progress."""
        work = self._roster.work_of(progress.event_id)
        return work is None or work.claim.epoch < progress.epoch

    async def _end_former(self, event_id: str) -> None:
        """An event that was lost and came back must not have two tasks."""
        if (ended := self._ended.get(event_id)) is not None:
            self.cancel(event_id, "the event was lost and has been taken again")
            await ended.wait()

    def _begin(self, progress: Progress) -> None:
        event_id = progress.event_id
        self._roster.enter(event_id, progress.lane, progress.epoch)
        self._scopes[event_id] = trio.CancelScope()
        self._ended[event_id] = trio.Event()
        self._work.start_soon(self._see_through, progress, name=f"event {event_id}")

    async def _see_through(self, progress: Progress) -> None:
        """One event from here to its end; nothing but a cancel of the whole ring leaves this task.

        Work that a cancelled ring cuts off stays in the roster, for the hand-over.
        """
        event_id = progress.event_id
        scope = self._scopes[event_id]
        is_over = False
        try:
            with scope:
                await self._contain(progress, Claim(event_id, self._session, progress.epoch))
                is_over = True
        finally:
            if is_over or scope.cancelled_caught:
                self._roster.leave(event_id, progress.epoch)
            del self._scopes[event_id]
            self._ended.pop(event_id).set()

    async def _contain(self, progress: Progress, claim: Claim) -> None:
        """Do the work; a bug in it ends here, too: the event is offered again after a while."""
        work: Work | None = None
        crash: ExceptionGroup[Exception] | None = None
        try:
            made = self._make(progress, claim)
            if isinstance(made, BadEntry):
                await self._bury(made, claim)
                return
            work = made
            self._roster.begin(work)
            if progress.event_id in self._noticed:
                self._noticed.discard(progress.event_id)
                work.notice()
            if bad := await work.run():
                await self._bury(bad, claim)
        except* NotOurs:
            LEASES_LOST.inc()
            log.warning("event lost to another owner", event_id=claim.event_id, cause="NotOurs")
        except* Exception as group:  # noqa: BLE001 - whatever a bug raises, the other events go on
            crash = group
        if crash is not None:
            await self._survive(crash, progress, claim, is_clean=work is not None and work.is_clean)

    async def _survive(
        self, crash: ExceptionGroup[Exception], progress: Progress, claim: Claim, *, is_clean: bool
    ) -> None:
        """After a bug the event is offered again; one whose template is gone (from this replica) is refused. For what
        no event can help, and no waiting mends, this process gives up, and the event counts no failure.

        What fails even here is logged, and leaves the event ours in Redis and unknown here: the taker finds it.
        """
        try:
            if gone := crash.subgroup(UnknownTemplate):
                reason = str(first_of(gone, UnknownTemplate))
                await self._bury(BadEntry(claim.event_id, "UnknownTemplate", reason, _pairs(progress)), claim)
                return
            if (hopeless := first_of(crash, FixYourCall)) is not None:
                self._give_up(Unrecoverable(str(hopeless), exit_code=2))
                await trio.sleep_forever()  # in the roster, until the ring hands over
            log.error("event handling broke", error=crash, event_id=claim.event_id)
            stream = self._site.ledger.stream
            offer = partial(stream.offer, [claim], clean=[is_clean], delay_seconds=OFFER_AGAIN_SECONDS, failed=True)
            await self._site.ledger.insist(offer)
        except NotOurs:
            LEASES_LOST.inc()
            log.warning("event lost to another owner", event_id=claim.event_id, cause="NotOurs")
        except Exception as error:  # noqa: BLE001 - the same
            log.error("event could not be offered again", error=error, event_id=claim.event_id)

    def _make(self, progress: Progress, claim: Claim) -> Work | BadEntry:
        pairs = _pairs(progress)
        event = parse_entry(progress.event_id, pairs, NO_LIMITS)
        if progress.failures >= self._max_failures:
            reason = f"its handling broke {progress.failures} times, expected fewer than {self._max_failures}"
            return BadEntry(progress.event_id, "HandlingFailed", f"{reason} (EVENT_MAX_FAILURES)", pairs)
        if isinstance(event, BadEntry):
            return event
        if event.type == "pipeline":
            return PipelineRun(self._site, self._roster, event, progress, claim)
        if event.type != "scale_up":
            kind = Cancel if event.type == "cancel" else ScaleDown
            return kind(self._site, self._roster, event, progress, claim)
        return Scaling(self._site, self._guard, event, progress, claim, lambda: self._roster.settle(progress.event_id))

    async def _bury(self, bad: BadEntry, claim: Claim) -> None:
        """End an event as a dead letter; who waits for a worker of it to stop is told that it has."""
        ended = WorkerOutcome("", 0, 0, "failed", bad.cause, bad.reason).to_json()
        pairs = dead_letter_pairs(bad, deliveries=claim.epoch, failed=self._site.now())
        await self._site.ledger.close(Closing(claim.event_id, "dlq", pairs, claim, ended=ended))
        self._site.traces.event_refused(bad)
        log.warning("event refused", event_id=claim.event_id, cause=bad.cause, reason=bad.reason)


def _pairs(progress: Progress) -> Pairs:
    return tuple((name.encode(), value.encode()) for name, value in progress.entry)
