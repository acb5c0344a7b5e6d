"""How a command reaches the Redis and the Kubernetes API of a running scaler."""

import os
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from ottoscaler.errors import SettingsError
from ottoscaler.settings import Settings

if TYPE_CHECKING:
    from ottoscaler.kube.client import Kube
    from ottoscaler.stream.base import Stream


def open_stream_of(settings: Settings) -> "AbstractAsyncContextManager[Stream]":
    """The stream that a scaler with the same settings serves; SettingsError for memory://, which nobody else sees."""
    if settings.redis_address.scheme == "memory":
        raise SettingsError(
            ["REDIS_URL is 'memory://', expected the address of a Redis: that stream lives in the scaler's own process"]
        )
    from ottoscaler.stream.opening import open_stream

    return open_stream(settings)


def open_kube_of(settings: Settings) -> "AbstractAsyncContextManager[Kube]":
    """The Kubernetes API that the settings name, for reading."""
    from ottoscaler.kube.access import load_access
    from ottoscaler.kube.client import open_kube

    return open_kube(load_access(settings.kubeconfig, None, os.environ), may_write=_never)


def _never() -> None:
    """Called before each write; commands that read make none."""
