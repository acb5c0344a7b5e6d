"""The keeper of logs as the settings want it, with connections of its own."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from ottoscaler.errors import SettingsError
from ottoscaler.kube.access import Access
from ottoscaler.kube.client import Kube, open_kube
from ottoscaler.log import log
from ottoscaler.logs.keeping import LogKeeper
from ottoscaler.logs.tracked import Receiver
from ottoscaler.logs.turns import Turns
from ottoscaler.metrics import observe_request
from ottoscaler.settings import Settings
from ottoscaler.spine.site import Site


@asynccontextmanager
async def open_log_keeper(
    settings: Settings, access: Access, may_write: Callable[[], None], site: Site
) -> AsyncIterator[LogKeeper]:
    """A keeper for the time of the block; it follows once its `run` does. Raises SettingsError."""
    async with _open_receiver(settings, site, turns := Turns()) as receiver:
        async with _open_api(access, may_write) as kube:
            yield LogKeeper(
                kube,
                site.fleet,
                site.ledger,
                receiver,
                namespace=site.namespace,
                grace=settings.log_grace_seconds,
                build_pod=site.build_pod,
                now=site.now,
                traces=site.traces,
                max_waiting=settings.max_events // 2,  # of the room for those that wait, half is for deletes
                turns=turns,
            )


def _open_api(access: Access, may_write: Callable[[], None]) -> AbstractAsyncContextManager[Kube]:
    """Connections of their own: follows never share those of writes."""
    return open_kube(access, may_write=may_write, on_request=observe_request)


@asynccontextmanager
async def _open_receiver(settings: Settings, site: Site, turns: Turns) -> AsyncIterator[Receiver]:
    if not settings.otto_handler_host:
        from ottoscaler.logs.printing import PrintingReceiver

        if sys.stdout is None:  # its number may be a connection's by now
            raise SettingsError(["LOG_SINK is 'stdout', expected a stdout that is open"])
        is_text = settings.log_format == "text" or (settings.log_format == "auto" and os.isatty(sys.stdout.fileno()))
        yield PrintingReceiver(as_json=not is_text)
        return
    if settings.log_sink != "none":
        log.warning("LOG_SINK is not used: logs go to OTTO_HANDLER_HOST", host=settings.otto_handler_host)
    from ottoscaler.logs.forwarding import HandlerReceiver
    from ottoscaler.rpc.handler_link import open_handler

    token = settings.otto_handler_token
    if token and not settings.otto_handler_tls:
        log.warning("OTTO_HANDLER_TOKEN is sent in plain text: OTTO_HANDLER_TLS is false")
    ca = _read_ca(settings.otto_handler_ca)
    async with open_handler(settings.otto_handler_host, tls=settings.otto_handler_tls, ca=ca, token=token) as handler:
        yield HandlerReceiver(handler, site.wait_writable, turns)


def _read_ca(path: str | None) -> bytes | None:
    from ottoscaler.rpc.http2.client import client_tls

    try:
        ca = Path(path).read_bytes() if path else None
        client_tls(ca)
    except ssl.SSLError as error:
        raise SettingsError([f"OTTO_HANDLER_CA is {path!r}, expected certificates in PEM ({error.reason})"]) from error
    except OSError as error:
        expected = f"expected a file that can be read ({error.strerror})"
        raise SettingsError([f"OTTO_HANDLER_CA is {path!r}, {expected}"]) from error
    return ca
