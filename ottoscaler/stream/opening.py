"""Opening the stream that the settings name: Redis, or the twin in memory for `memory://`."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol, cast

from ottoscaler.errors import SettingsError
from ottoscaler.parsing import RedisAddress
from ottoscaler.stream.base import Stream
from ottoscaler.stream.keys import Keys
from ottoscaler.stream.memory import MemoryServer, MemoryStream
from ottoscaler.stream.redis import RedisStream
from ottoscaler.stream.retention import Retention, Trim

LONGEST_TIMEOUT = 5.0  # seconds


class StreamSettings(Protocol):
    """What of the settings concerns the stream."""

    @property
    def redis_address(self) -> RedisAddress:
        """Where Redis is and how to get in."""

    @property
    def redis_stream(self) -> str:
        """The event stream."""

    @property
    def redis_consumer_group(self) -> str:
        """The consumer group."""

    @property
    def redis_consumer(self) -> str:
        """First part of the session's name."""

    @property
    def redis_trim(self) -> str:
        """`auto`, `on` or `off`: whether closed entries leave the event stream."""

    @property
    def lease_seconds(self) -> float:
        """How long a session lasts without a renewal."""

    @property
    def results_keep(self) -> int:
        """How many results are kept."""

    @property
    def results_max_bytes(self) -> int:
        """How large the results may be together."""


def new_session_name(consumer: str) -> str:
    """A name that no other process start has: consumer names come back after a restart."""
    return f"{consumer}-{secrets.token_hex(4)}"


@asynccontextmanager
async def open_stream(settings: StreamSettings, session: str | None = None) -> AsyncIterator[Stream]:
    """The stream, for one session (with a new name, if none is given); its end closes every connection.

    Nothing is connected before the first call.
    """
    keys = Keys(settings.redis_stream, settings.redis_consumer_group)
    session = session or new_session_name(settings.redis_consumer)
    retention = Retention(settings.results_keep, settings.results_max_bytes, cast(Trim, settings.redis_trim))
    if settings.redis_address.scheme == "memory":
        yield MemoryStream(MemoryServer(keys, retention=retention), session)
        return
    _check_tls_files(settings.redis_address)
    timeout = min(settings.lease_seconds * 0.6, LONGEST_TIMEOUT)  # a call ends before the lease does
    stream = RedisStream(settings.redis_address, keys, session, retention=retention, timeout=timeout)
    try:
        yield stream
    finally:
        stream.disconnect()


def _check_tls_files(address: RedisAddress) -> None:
    """SettingsError names the option of REDIS_URL whose file TLS cannot use."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    name, expected = "ssl_ca_certs", "certificates"
    try:
        if ca := address.options.get(name):
            context.load_verify_locations(ca)
        name, expected = "ssl_certfile", "a certificate with its key, not encrypted,"
        if cert := address.options.get(name):  # without a password an encrypted key would ask for it
            context.load_cert_chain(cert, address.options.get("ssl_keyfile"), password="")
    except OSError as error:
        given = f"REDIS_URL has {name}={address.options[name]}"
        raise SettingsError([f"{given}, expected {expected} in PEM ({error.strerror or error})"]) from error
