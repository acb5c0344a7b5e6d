"""The lease of this process: renews its session, and says at any instant whether it may write.

Ends last of all: everything inside asks it before it sends anything. A process that was frozen wakes up in the middle
of anything, so `check()` looks at the clock right before bytes leave, not where a task began.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Never

import trio

from ottoscaler.errors import Unavailable, WritesSuspended
from ottoscaler.log import log
from ottoscaler.stream.base import Renewal, Stream


def _nothing() -> frozenset[str]:
    return frozenset()


def _ignore(lost: frozenset[str] = frozenset()) -> None:
    """Nobody wants to know."""


class Session:
    """Keeps one stream's session alive; times in seconds.

    `believed` says which events the process thinks it holds (without those whose close or offer is under way), and
    `on_lost` hears of those that it holds no more, before the lease counts as valid again; `on_restart`, that Redis may
    have forgotten something of those that it holds. `outages` says what each renewal tells of them. `era_lost` is set
    when a renewal found another era, or none: Redis has forgotten everything.
    """

    def __init__(
        self,
        stream: Stream,
        lease_seconds: float,
        era_id: str,
        *,
        believed: Callable[[], frozenset[str]] = _nothing,
        on_lost: Callable[[frozenset[str]], None] = _ignore,
        on_restart: Callable[[], None] = _ignore,
        outages: Callable[[], str] = str,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self.era_lost = trio.Event()
        self._stream = stream
        self._lease = lease_seconds
        self._era_id = era_id
        self._believed = believed
        self._on_lost = on_lost
        self._on_restart = on_restart
        self._restarts = stream.restarts
        self._outages = outages
        self._clock = clock
        self._valid_until = -math.inf
        self._calm_from = math.inf
        self._lost_at: float | None = None
        self._renewed = trio.Event()
        self._turn = trio.Lock()
        self._is_suspended = False
        self._has_left = False

    def is_valid(self) -> bool:
        """Whether the lease holds at this instant: nobody else can have taken our events."""
        return self._clock() < self._valid_until and not self._is_suspended

    def suspend(self) -> None:
        """Let nothing be written any more: what is held is about to be handed over."""
        self._is_suspended = True

    def check(self) -> None:
        """Call right before bytes are written. Raises `WritesSuspended` when the lease has run out."""
        if not self.is_valid():
            raise WritesSuspended("the lease has run out: nothing is written until Redis renews it")

    async def wait_valid(self) -> None:
        """Return when the lease holds."""
        while not self.is_valid():
            await self._renewed.wait()

    def may_expire_others(self) -> bool:
        """Whether silence of another process can be believed: not for one lease after a start or an outage of ours."""
        return self.is_valid() and self._clock() >= self._calm_from

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> Never:
        """Renew three times per lease until cancelled; started after the first success, or when the era is lost."""
        planned, is_started = self._clock(), False
        while True:
            is_answered = await self._renew(planned) or self.era_lost.is_set()
            if is_answered and not is_started:
                is_started = True
                task_status.started()
            planned += self._lease / 3
            delay = planned - self._clock()
            if delay <= 0:  # late already: never two renewals at once
                planned, delay = self._clock(), 0.0
            await trio.sleep(delay)

    async def leave(self) -> None:
        """End the session for the others, too, after a renewal that is under way and before any other: one that came
        later would bring it back. Raises `Unavailable`.
        """
        self._has_left = True
        async with self._turn:
            await self._stream.leave()

    async def _renew(self, planned: float) -> bool:
        async with self._turn:
            return not self._has_left and await self._renew_once(planned)

    async def _renew_once(self, planned: float) -> bool:
        sent, before = self._clock(), self._believed()
        try:
            renewal = await self._stream.renew(self._lease, self._era_id, self._outages())
            if renewal.era_stands:
                await self._find_lost(renewal, before)
        except Unavailable as error:
            self._note_outage(error)
            return False
        if not renewal.era_stands:
            self._calm_from = math.inf
            self.era_lost.set()
            return False
        self._note_success(sent, is_late=self._clock() - planned > self._lease / 3)
        if self._restarts != self._stream.restarts:
            self._restarts = self._stream.restarts
            self._on_restart()
        return True

    async def _find_lost(self, renewal: Renewal, before: frozenset[str]) -> None:
        """Tell which events another process took; ids that came or went during the question are no loss."""
        if not before or (renewal.existed and renewal.held == len(self._believed())):
            return
        held = await self._stream.held()
        if lost := (before & self._believed()) - held:
            self._on_lost(lost)

    def _note_outage(self, error: Unavailable) -> None:
        self._calm_from = math.inf
        if self._lost_at is None:
            self._lost_at = self._clock()
            log.warning(
                "Redis is lost: writes end with the lease", is_change=True, address=error.address, reason=str(error)
            )
            self._lost_address = error.address

    def _note_success(self, sent: float, *, is_late: bool) -> None:
        now = self._clock()
        if is_late or self._calm_from == math.inf:
            self._calm_from = now + self._lease
        if self._lost_at is not None:
            log.info("Redis is back", address=self._lost_address, seconds=round(now - self._lost_at, 1))
            self._lost_at = None
        self._valid_until = sent + self._lease
        self._renewed.set()
        self._renewed = trio.Event()
