"""Where the handler is, and who we are: given by the caller or found in the environment of a worker pod."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc

SWITCH = (
    {"": False} | dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)
)
OPTIONS = (("grpc.use_local_subchannel_pool", 1),)
"""Every channel has a connection of its own, without the memory of the last failure. No keepalive: servers that are not
told otherwise end a connection with "too many pings" when nothing else is sent; lines without an answer tell as much.
"""


class WrongSetting(ValueError):
    """A setting that cannot be: the message has its name, its value (never a token) and what was expected."""


@dataclass(frozen=True, slots=True)
class Handler:
    """An otto-handler: `address` is host:port; `ca` a PEM file, for TLS with an authority of one's own.

    Raises WrongSetting for a token that no call can carry.
    """

    address: str
    tls: bool = False
    ca: str = ""
    token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not (self.token.isascii() and self.token.isprintable()):
            raise WrongSetting("OTTO_HANDLER_TOKEN is no token: expected one line of visible ASCII characters")

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
    """The handler of OTTO_HANDLER_HOST, _TLS, _CA and _TOKEN; None where no host is said. Raises WrongSetting."""
    address = _text(environ, "OTTO_HANDLER_HOST").strip()
    if not address:
        return None
    host, _, port = address.rpartition(":")  # gRPC takes the remainder of a port that is too large
    is_whole = host and port.isascii() and port.isdecimal() and 0 < int(port[:6]) <= 65535
    if "://" not in address and not address.startswith("unix:") and not is_whole:
        raise WrongSetting(f"OTTO_HANDLER_HOST is {address!r}: expected host and port, such as otto-handler:8080")
    tls = SWITCH.get(_text(environ, "OTTO_HANDLER_TLS").strip().lower())
    if tls is None:
        raise WrongSetting(f"OTTO_HANDLER_TLS is {environ['OTTO_HANDLER_TLS']!r}: expected true or false")
    return Handler(
        address=address,
        tls=tls,
        ca=environ.get("OTTO_HANDLER_CA", "").strip(),
        token=environ.get("OTTO_HANDLER_TOKEN", "").strip(),
    )


def worker_from(environ: Mapping[str, str]) -> Worker:
    """This pod: its name is OTTO_WORKER_ID, POD_NAME, or the host name, which in a pod is the pod's name.

    Raises WrongSetting for a text that no message can carry.
    """
    name = next((text for each in ("OTTO_WORKER_ID", "POD_NAME", "HOSTNAME") if (text := _text(environ, each))), "")
    return Worker(
        worker_id=name or socket.gethostname(),
        task_id=_text(environ, "OTTO_TASK_ID"),
        namespace=_text(environ, "POD_NAMESPACE"),
        node_name=_text(environ, "NODE_NAME"),
        labels={label: text for label, variable in LABELS.items() if (text := _text(environ, variable))},
    )


def _text(environ: Mapping[str, str], variable: str) -> str:
    text = environ.get(variable, "")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # bytes that are no UTF-8 came as lone surrogates
        shown = text.encode(errors="surrogateescape").decode(errors="backslashreplace")
        raise WrongSetting(f"{variable} is '{shown}': expected UTF-8") from error
    return text


LABELS = {
    "event_id": "OTTO_EVENT_ID",
    "index": "OTTO_WORKER_INDEX",
    "attempt": "OTTO_ATTEMPT",
}
"""What a pod knows of itself, told once, when it registers."""
