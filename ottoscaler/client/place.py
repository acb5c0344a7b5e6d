"""Where the handler is, and who we are: given by the caller or found in the environment of a worker pod."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc

YES = {"1", "true", "yes", "on"}
OPTIONS = (("grpc.use_local_subchannel_pool", 1),)
"""Every channel has a connection of its own, without the memory of the last failure. No keepalive: servers that are not
told otherwise end a connection with "too many pings" when nothing else is sent; lines without an answer tell as much.
"""


@dataclass(frozen=True, slots=True)
class Handler:
    """An otto-handler: `address` is host:port; `ca` a PEM file, for TLS with an authority of one's own."""

    address: str
    tls: bool = False
    ca: str = ""
    token: str = field(default="", repr=False)

    def open_channel(self) -> grpc.Channel:
        """A channel that connects at its first call. OSError where `ca` cannot be read."""
        if not (self.tls or self.ca):
            return grpc.insecure_channel(self.address, OPTIONS)
        roots = Path(self.ca).read_bytes() if self.ca else None
        return grpc.secure_channel(self.address, grpc.ssl_channel_credentials(roots), OPTIONS)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()


@dataclass(frozen=True, slots=True)
class Worker:
    """The pod that sends; `worker_id` is its name."""

    worker_id: str
    task_id: str = ""
    namespace: str = ""
    node_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


def handler_from(environ: Mapping[str, str]) -> Handler | None:
    """The handler of OTTO_HANDLER_HOST, _TLS, _CA and _TOKEN; None where no host is said."""
    address = environ.get("OTTO_HANDLER_HOST", "").strip()
    if not address:
        return None
    return Handler(
        address=address,
        tls=environ.get("OTTO_HANDLER_TLS", "").strip().lower() in YES,
        ca=environ.get("OTTO_HANDLER_CA", "").strip(),
        token=environ.get("OTTO_HANDLER_TOKEN", "").strip(),
    )


def worker_from(environ: Mapping[str, str]) -> Worker:
    """This pod: its name is OTTO_WORKER_ID, POD_NAME, or the host name, which in a pod is the pod's name."""
    name = next(filter(None, map(environ.get, ("OTTO_WORKER_ID", "POD_NAME", "HOSTNAME"))), "")
    labels = {label: environ[variable] for label, variable in LABELS.items() if environ.get(variable)}
    return Worker(
        worker_id=name or socket.gethostname(),
        task_id=environ.get("OTTO_TASK_ID", ""),
        namespace=environ.get("POD_NAMESPACE", ""),
        node_name=environ.get("NODE_NAME", ""),
        labels=labels,
    )


LABELS = {
    "event_id": "OTTO_EVENT_ID",
    "index": "OTTO_WORKER_INDEX",
    "attempt": "OTTO_ATTEMPT",
}
"""What a pod knows of itself, told once, when it registers."""
