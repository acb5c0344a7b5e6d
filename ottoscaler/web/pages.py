"""What is served by HTTP: `/metrics`, and the probes `/livez`, `/readyz` and `/startupz`."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

from ottoscaler.errors import SettingsError, Unavailable
from ottoscaler.gauges import TEXT_FORMAT, exposition
from ottoscaler.health import Check, Health
from ottoscaler.stream.backlog import Backlog
from ottoscaler.web.server import Answer, Page, Server

REDIS_SECONDS = 1.0
"""A scrape asks Redis for the backlog this long; without an answer it is absent."""


@asynccontextmanager
async def open_http_door(host: str, port: int, health: Health) -> AsyncIterator[None]:
    """Serve the pages while the block runs; port 0: none. Raises `SettingsError` where the port cannot be had."""
    if not port:
        yield
        return
    listeners = await _listen(host, port)
    async with trio.open_nursery() as nursery:
        await nursery.start(health.run)
        await nursery.start(partial(trio.serve_listeners, Server(pages(health)).handle, listeners))
        yield
        nursery.cancel_scope.cancel(reason="the service has ended")


async def _listen(host: str, port: int) -> list[trio.SocketListener]:
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            problem = f"HTTP_PORT is '{port}', expected a port that is free on {host}, or 0 for none ({reason})"
        else:
            problem = f"HTTP_HOST is {host!r}, expected an address of this machine ({reason})"
        raise SettingsError([problem]) from error


def pages(health: Health) -> dict[str, Page]:
    """The pages by their paths."""
    return {
        "/metrics": partial(_metrics, health),
        "/livez": partial(_probe, health.live),
        "/readyz": partial(_probe, health.ready),
        "/startupz": partial(_probe, health.startup),
    }


async def _probe(look: Callable[[], list[Check]]) -> Answer:
    checks = look()
    lines = (f"{check.name}: {check.problem or 'ok'}\n" for check in checks)
    return Answer(503 if any(check.problem for check in checks) else 200, "".join(lines).encode())


async def _metrics(health: Health) -> Answer:
    backlog = await _ask_backlog(health)
    return Answer(200, exposition(health.vitals, backlog), TEXT_FORMAT)


async def _ask_backlog(health: Health) -> Backlog | None:
    if health.vitals is not None:
        with trio.move_on_after(REDIS_SECONDS):
            try:
                return await health.vitals.site.ledger.stream.backlog()
            except Unavailable:
                return None
    return None
