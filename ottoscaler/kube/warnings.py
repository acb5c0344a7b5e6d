"""The one list and watch of warnings about pods, which tell causes that the pods themselves do not show.

A service of the outer ring. In: events of the API. Out: `PodWarnings`, told of each. Nothing waits for it, and without
it (its right is the third rule of the Role) a verdict is only less precise; so it reports ready at once, says once
what keeps it away, and tries again for ever. It ends by cancel.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, NoReturn, Protocol

import trio

from ottoscaler.backoff import Backoff
from ottoscaler.errors import Answered, Expired, TryAgain, Unavailable
from ottoscaler.kube.client import WatchEvent
from ottoscaler.kube.watch import RETRY, SILENCE_SECONDS, STEADY_SECONDS, WATCH_SECONDS
from ottoscaler.log import log
from ottoscaler.pod_warnings import PodWarnings

REFUSED_SECONDS = 300.0
"""A right that is missing may be given later."""


class Warned(Protocol):
    """What is needed of the API: to list the warnings of pods, and to watch them."""

    async def list_warnings(self, namespace: str) -> tuple[list[dict[str, Any]], int]:
        """All of them, and the version of the list."""

    def watch_warnings(
        self, namespace: str, resource_version: int, timeout_seconds: int = 30
    ) -> AsyncGenerator[WatchEvent, None]:
        """Those after that version."""


async def watch_warnings(
    kube: Warned,
    warnings: PodWarnings,
    namespace: str,
    is_there: Callable[[str], bool],
    *,
    retry: Backoff = RETRY,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Keep the warnings up to date for ever; `is_there` says whether a pod of that name exists."""
    task_status.started()
    version, delays, is_refused = 0, retry.delays(), False
    while True:
        opened = trio.current_time()
        try:
            version = version or await _list(kube, warnings, namespace)
            version = await _watch(kube, warnings, namespace, version)
        except Expired:
            version = 0
        except Answered as error:
            if not is_refused:
                log.warning("no warnings of pods: causes may be less precise", reason=str(error))
            version, is_refused = 0, True
            await trio.sleep(REFUSED_SECONDS)
            continue
        except TryAgain as error:  # the watch of pods says that the API is lost
            log.debug("warnings of pods are tried again", reason=str(error))
            version = 0
        warnings.forget_absent(is_there)
        if version and trio.current_time() - opened >= STEADY_SECONDS:
            delays = retry.delays()
        else:
            await trio.sleep(next(delays))


async def _list(kube: Warned, warnings: PodWarnings, namespace: str) -> int:
    events, version = await kube.list_warnings(namespace)
    for event in events:
        warnings.note(event)
    return version


async def _watch(kube: Warned, warnings: PodWarnings, namespace: str, version: int) -> int:
    """Follow one watch to its end; returns the version to go on from, 0 where only a list can tell it."""
    is_heard = False
    with trio.move_on_after(WATCH_SECONDS + SILENCE_SECONDS) as scope:
        try:
            async with aclosing(kube.watch_warnings(namespace, version, WATCH_SECONDS)) as events:
                async for kind, event in events:
                    is_heard = True
                    version = int((event.get("metadata") or {}).get("resourceVersion") or version)
                    if kind in ("ADDED", "MODIFIED"):
                        warnings.note(event)
        except Unavailable:
            if not is_heard:
                raise
    return version if is_heard and not scope.cancelled_caught else 0
