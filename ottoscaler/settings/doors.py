"""The settings of the doors: where others look in, and are let in."""

from typing import Annotated

from ottoscaler.parsing import text, whole
from ottoscaler.settings.field import Field
from ottoscaler.settings.limits import LimitSettings


class DoorSettings(LimitSettings, frozen=True, kw_only=True):
    """What listens, and where."""

    http_host: Annotated[
        str,
        Field(text("a host name or address"), "0.0.0.0", "Address on which metrics and probes are served by HTTP."),
    ]
    http_port: Annotated[
        int,
        Field(whole(0, 65_535), "8080", "Port of /metrics, /livez, /readyz and /startupz; 0: they are not served."),
    ]
