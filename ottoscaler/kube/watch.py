"""The one list and watch that feeds the fleet.

A service of the outer ring, run for as long as the process. In: pods and versions from the API. Out: the fleet, told of
everything. It lists without a resource version, so that a list is never older than what a create was answered, then
watches from there with bookmarks. It lists again when the version is too old (410), when a watch ends without a single
word or stays silent beyond its time (a version from the future is silent for ever), and after an outage. One that is
cut goes on from the last version. It ends by cancel, or by a refusal before the first list.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any, NoReturn, Protocol

import trio

from ottoscaler.backoff import Backoff
from ottoscaler.errors import Answered, Expired, OttoscalerError, TryAgain, Unavailable
from ottoscaler.fleet import Fleet
from ottoscaler.kube.client import WatchEvent
from ottoscaler.log import log
from ottoscaler.metrics import RELISTS

WATCH_SECONDS = 30
SILENCE_SECONDS = 5.0
"""A watch that is open this long beyond its time has lost its server."""
STALE_SECONDS = WATCH_SECONDS + 3 * SILENCE_SECONDS
"""Within this time a watch ends, and what comes after it has been heard of, or the API is lost."""
STEADY_SECONDS = 5.0
"""A watch that lived so long was a good one: the next delay is short again."""
RETRY = Backoff(initial=0.2, maximum=10.0)

OnOutage = Callable[[OttoscalerError | None], None]
"""Told the error when the API is lost, and None when it is back."""


class Watched(Protocol):
    """What is needed of the API: to list pods, and to watch them."""

    async def list_pods(self, namespace: str, selector: str) -> tuple[list[dict[str, Any]], int]:
        """All pods of the selector, and the version of the list."""

    def watch_pods(
        self, namespace: str, selector: str, resource_version: int, timeout_seconds: int = 30
    ) -> AsyncGenerator[WatchEvent, None]:
        """The events after that version."""


class WatchState:
    """What is known of the watch: when (clock of trio) the API last said something, and why it does not."""

    def __init__(self) -> None:
        self.heard_at = -math.inf
        self.outage = ""

    def hear(self) -> None:
        """The API said something just now."""
        self.heard_at = trio.current_time()

    def trouble(self) -> str:
        """Why the fleet may be out of date, in words; empty when all is well."""
        age = trio.current_time() - self.heard_at
        if not self.outage and age > STALE_SECONDS:
            return f"nothing was heard of the API for {age:.0f} s, expected at most {STALE_SECONDS:g} s"
        return self.outage


class _Outage:
    """Says once that the API is lost and once that it is back, and how long to wait between tries."""

    def __init__(self, retry: Backoff, on_outage: OnOutage | None, state: WatchState) -> None:
        self._state = state
        self._retry = retry
        self._delays: Iterator[float] = retry.delays()
        self._on_outage = on_outage
        self._is_lost = False
        self.was_reached = False

    def lose(self, error: OttoscalerError) -> float:
        """Note a failure; returns how many seconds to wait before the next try."""
        self._state.outage = str(error)
        if not self._is_lost:
            self._is_lost = True
            words = "the Kubernetes API is lost" if self.was_reached else "the Kubernetes API is not reached yet"
            log.warning(words, is_change=True, reason=str(error))
            if self._on_outage is not None:
                self._on_outage(error)
        asked = error.retry_after if isinstance(error, Unavailable) else None
        return max(self.next_delay(), asked or 0.0)

    def find(self) -> None:
        """Note that the API answers."""
        self._state.outage = ""
        self._state.hear()
        if self._is_lost:
            self._is_lost = False
            log.info("the Kubernetes API is back" if self.was_reached else "the Kubernetes API is reached")
            if self._on_outage is not None:
                self._on_outage(None)
        self.was_reached = True

    def next_delay(self) -> float:
        """Seconds to wait; more each time until `calm`."""
        return next(self._delays)

    def calm(self) -> None:
        """Begin with short delays again."""
        self._delays = self._retry.delays()


async def watch_fleet(
    kube: Watched,
    fleet: Fleet,
    namespace: str,
    selector: str,
    *,
    on_outage: OnOutage | None = None,
    retry: Backoff = RETRY,
    state: WatchState | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Keep the fleet up to date for ever; ready after the first list.

    While the API is away it tries again with `retry`, one log line when it is lost and one when it is back. A refusal
    for good (403, say) before the first list comes out as it is; later ones count as an outage.
    """
    state = state or WatchState()
    outage = _Outage(retry, on_outage, state)
    must_list = True
    while True:
        opened = trio.current_time()
        try:
            if must_list:
                await _list(kube, fleet, namespace, selector)
                is_first = not outage.was_reached
                outage.find()
                if is_first:
                    task_status.started()
            opened = trio.current_time()
            must_list = await _watch(kube, fleet, namespace, selector, state)
        except Expired:
            must_list = True
        except (TryAgain, Answered) as error:
            if not outage.was_reached and isinstance(error, Answered):
                raise
            must_list = True
            await trio.sleep(outage.lose(error))
            continue
        if trio.current_time() - opened >= STEADY_SECONDS:
            outage.calm()
        else:  # a server that ends every watch at once must not be asked without a pause
            await trio.sleep(outage.next_delay())


async def _list(kube: Watched, fleet: Fleet, namespace: str, selector: str) -> None:
    seen = fleet.newest  # what is answered while the list is under way may be newer than it
    pods, version = await kube.list_pods(namespace, selector)
    if fleet.synced:
        RELISTS.inc()
    rewound = version < seen
    if rewound:
        log.warning("the Kubernetes API went back in time: restored, or another one", seen=seen, now=version)
    fleet.replace(pods, version, rewound=rewound)


async def _watch(kube: Watched, fleet: Fleet, namespace: str, selector: str, state: WatchState) -> bool:
    """Follow one watch to its end; returns whether to list again because it never said a word or fell silent.

    One that is cut after it said something goes on from the last version; that is no outage yet.
    """
    is_heard = False
    with trio.move_on_after(WATCH_SECONDS + SILENCE_SECONDS) as scope:
        try:
            async with aclosing(kube.watch_pods(namespace, selector, fleet.version, WATCH_SECONDS)) as events:
                async for event in events:
                    is_heard = True
                    state.hear()
                    fleet.apply(event.type, event.object)
        except Unavailable as error:
            if not is_heard:
                raise
            log.debug("a watch was cut and goes on", version=fleet.version, reason=str(error))
    return scope.cancelled_caught or not is_heard
