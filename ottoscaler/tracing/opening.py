"""Traces as the environment wants them, for the life of a process. Imports opentelemetry only where they are on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

import trio

from ottoscaler.log import log
from ottoscaler.spine.traces import NO_TRACES, Traces
from ottoscaler.tracing.switch import read_switch

FLUSH_SECONDS = 1.0
"""So long the last spans are waited for at the end, at most."""


class Place(NamedTuple):
    """Where events come from, and where their workers run."""

    stream: str
    group: str
    namespace: str
    era: str


TracesOf = Callable[[Place], Traces]


@asynccontextmanager
async def open_traces(environ: Mapping[str, str], until: Callable[[], float]) -> AsyncIterator[TracesOf]:
    """Gives what records the traces of a place; where they are off or cannot be on, nobody does, which is said.

    At the end what waits is sent, for a second and not past `until` (clock of trio).
    """
    traces_of, end = _open(environ)
    try:
        yield traces_of
    finally:
        if end is not None:
            limit = min(FLUSH_SECONDS, max(0.0, until() - trio.current_time()))
            with trio.move_on_after(limit, shield=True):
                await trio.to_thread.run_sync(end, abandon_on_cancel=True)


def _open(environ: Mapping[str, str]) -> tuple[TracesOf, Callable[[], None] | None]:
    """What records, and what sends all that waits and then nothing more, if there is anything."""
    endpoint, problem = read_switch(environ)
    if endpoint:
        try:
            from ottoscaler.tracing.sending import open_provider
            from ottoscaler.tracing.spans import SpanTraces

            provider, ids, processor = open_provider(environ, endpoint)
        except Exception as error:  # noqa: BLE001 - not installed, or its variables are wrong: events go on without
            problem = f"{error}, expected ottoscaler[otel]" if isinstance(error, ImportError) else str(error)
        else:
            log.info("traces are sent", endpoint=endpoint)
            return partial(SpanTraces, provider, ids), processor.shutdown
    if problem:
        log.warning("no traces are sent", cause="TracingOff", reason=problem)
    return (lambda place: NO_TRACES), None
