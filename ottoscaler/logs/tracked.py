"""One worker whose log is forwarded: its lines' way from the kubelet to the receiver, and what was told of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

import msgspec
import trio

from ottoscaler.fleet import PodRecord
from ottoscaler.logs.backlog import Backlog, Room
from ottoscaler.logs.following import Following
from ottoscaler.logs.lane import Sender
from ottoscaler.logs.mark import Entry, Gap, Mark, seconds_of
from ottoscaler.logs.messages import Who
from ottoscaler.logs.outage import Outage
from ottoscaler.logs.outbox import Outbox
from ottoscaler.outcomes import WorkerOutcome
from ottoscaler.stream.base import Claim

PERHAPS_RAN = frozenset({"DeletedByOther", "NodeLost", "Stopped", "Cancelled"})
"""Causes with which nobody knows whether the worker ran, if nobody here saw its pod: one that is stopped may have been
gone, with all that it wrote, before its event came to this process.
"""


class WordingLike(Protocol):
    """How a receiver wants the entries of one worker."""

    def place(self, record: PodRecord | None) -> None:
        """Say from now on where the pod is."""

    def encode(self, entry: Entry) -> bytes:
        """One line or gap."""

    def created(self, record: PodRecord | None, now: float) -> bytes:
        """The pod was made."""

    def running(self, started_at: float, record: PodRecord | None) -> bytes:
        """The container began."""

    def ended(self, outcome: WorkerOutcome, now: float) -> bytes:
        """The worker ended."""


class Receiver(Protocol):
    """Where lines and states go."""

    @property
    def lines(self) -> Outage:
        """Since when it answers no lines."""

    @property
    def states(self) -> Outage:
        """Since when it answers no states."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send until cancelled."""

    def wording(self, who: Who) -> WordingLike:
        """How it wants to hear of a worker."""

    def attach(self, sender: Sender) -> None:
        """Take the lines of a worker."""

    def detach(self, sender: Sender) -> None:
        """Take them no more."""

    def leave_behind(self, entry: bytes) -> None:
        """Send one last entry of a worker that is looked after no more, when that is possible; nobody waits for it."""

    async def tell(self, notification: bytes) -> None:
        """Tell a state; returns when it was heard."""

    def suspend(self) -> None:
        """Send nothing more."""


class _File(NamedTuple):
    """What a mark says of the kubelet's file, as soon as `put` entries are done with."""

    put: int
    head: str
    sure: str


class Tracked:
    """The state of one worker. `mark` is how far everything is, `written` what of it Redis knows."""

    def __init__(self, who: Who, claim: Claim, mark: Mark, wording: WordingLike, room: Room) -> None:
        self.who = who
        self.claim = claim
        self.written = mark
        self.told = mark.told
        self.is_ended = mark.ended
        self.wording = wording
        self.rest: Gap | None = None
        """What of the log was given up."""
        self.gaps = 0
        self.accepted_at = 0.0
        """When the API accepted the pod, as an owner before us saw it (Unix s, 0: it did not)."""
        self.tell_end: Callable[[Tracked], None] | None = None
        """To be told once the log was forwarded to its end here, or given up."""
        self.outcome: WorkerOutcome | None = None
        self.has_outcome = trio.Event()
        self.forwarded = trio.Event()
        """No line of it is waited for any more."""
        self.settled = trio.Event()
        """Neither a line nor a state is."""
        self.needed_until = math.inf
        """When the grace after its end is over (clock of trio)."""
        self._answered = trio.Event()
        self._room = room
        self._open(mark)

    def _open(self, mark: Mark) -> None:
        """Everything that serves from a mark on to the end, or to a crash of the part that runs it."""
        self.life = trio.CancelScope()
        self.forwarding = trio.CancelScope()
        """Is cancelled when its lines cannot be sent,"""
        self.failure: Exception | None = None
        """for this."""
        self.following: Following | None = None
        self._put = 0
        """How many entries were taken in."""
        self._file = _File(0, mark.head, mark.sure)
        """What is known of the kubelet's file once all of them are done with."""
        self._files = [self._file]
        """The same for fewer of them; the first is what the mark says."""
        self.backlog = Backlog(self._room, lambda: self.sender.stir())
        self.outbox = Outbox(self.backlog, mark)
        self.sender = Sender(self.outbox, self.backlog, self.wording.encode, self._note_answer, self._break)

    def begin_anew(self) -> None:
        """What was under way is left: the log goes on at its mark. The old backlog has to be closed."""
        self._open(self.mark)

    def settle(self) -> None:
        """Neither a line nor a state is waited for any more."""
        self.forwarded.set()
        self.settled.set()

    def __repr__(self) -> str:
        return f"<Tracked {self.who.name} line={self.outbox.mark.line} backlog={len(self.backlog)}>"

    @property
    def mark(self) -> Mark:
        """How far the log is forwarded and the states are told, now. Of the kubelet's file it knows no more than the
        entries that are done with: whether there is a gap is seen by what a mark does not know yet.
        """
        self._note_file()
        done = self.outbox.done
        while len(self._files) > 1 and self._files[1].put <= done:
            del self._files[0]
        file = self._files[0]
        return msgspec.structs.replace(
            self.outbox.mark,
            head=file.head,
            sure=self.rest.begin if self.rest else file.sure,
            told=self.told,
            ended=self.is_ended,
            gap=self.rest.why if self.rest else "",
        )

    def give_up(self, why: str) -> Gap:
        """Nothing more of it is sent: the gap, which reaches back to the last look where a file may have been put away
        that nobody was told of.
        """
        mark, following = self.mark, self.following
        is_one_file = following is not None and following.is_small and self._file.head == mark.head
        begin = mark.stamp if is_one_file else min(mark.sure, mark.stamp, key=seconds_of)
        self.rest = Gap(begin, "", why, certain=self.has_lines)
        return self.rest

    @property
    def started_at(self) -> float | None:
        """When the container began, as the outcome says (Unix s)."""
        text = self.outcome.started_at if self.outcome is not None else ""
        return datetime.fromisoformat(text).timestamp() if text else None

    @property
    def has_lines(self) -> bool:
        """Whether lines wait that were read."""
        return bool(len(self.backlog)) or not self.outbox.is_empty

    def end(self, outcome: WorkerOutcome, grace: float) -> None:
        """The attempt has ended; `grace`: seconds from now for which its log is waited for."""
        self.outcome = outcome
        self.needed_until = trio.current_time() + grace
        self.has_outcome.set()
        self.hurry()

    def hurry(self) -> None:
        """Let the follower wait for nothing that may not come, once the attempt has ended."""
        if self.outcome is not None and self.following is not None:
            self.following.hurry(may_have_run=bool(self.outcome.started_at) or self.outcome.cause in PERHAPS_RAN)

    async def deliver(self, entries: Sequence[Entry], record: PodRecord | None) -> None:
        """Take in what the follower read."""
        self.wording.place(record)
        self._note_file()
        self._put += len(entries)
        await self.backlog.put(entries)

    def _note_file(self) -> None:
        """What the follower knows of the kubelet's file holds once everything is done with that it handed on so far."""
        if self.following is None:
            return
        position, known = self.following.position, self._file
        if position.head != known.head or position.sure != known.sure:
            self._file = _File(self._put, position.head, position.sure)
            self._files.append(self._file)

    async def wait_empty(self) -> None:
        """Return when everything that was taken in is done with."""
        while self.has_lines:
            self._answered = trio.Event()
            await self._answered.wait()

    def _note_answer(self) -> None:
        self._answered.set()

    def _break(self, error: Exception) -> None:
        self.failure = error
        self.forwarding.cancel(reason="its lines cannot be sent")
