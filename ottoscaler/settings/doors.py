"""The settings of the doors: where others look in, and are let in."""

from typing import Annotated

from ottoscaler.parsing import choice, flag, matching, path, port, seconds, secret, text, whole
from ottoscaler.secret import Secret
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

    otto_handler_host: Annotated[
        str | None,
        Field(
            matching(r"[\w.\-\[\]:]+:\d{1,5}", "a host name or address with a port, such as otto-handler:8080"),
            None,
            "Where the logs of workers are forwarded to, line by line, and their states told; unset: nowhere.",
        ),
    ]
    otto_handler_tls: Annotated[bool, Field(flag(), "false", "Whether otto-handler is called with TLS.")]
    otto_handler_ca: Annotated[
        str | None, Field(path(), None, "Authority that otto-handler's certificate is checked by, in PEM.")
    ]
    otto_handler_token: Annotated[
        Secret | None, Field(secret(), None, "Bearer token for otto-handler; send it with TLS only.")
    ]
    log_sink: Annotated[
        str,
        Field(choice("none", "stdout"), "none", "Where the logs of workers go without OTTO_HANDLER_HOST."),
    ]
    log_grace_seconds: Annotated[
        float,
        Field(
            seconds(0, 86_400),
            "60",
            "How long after a worker's end its pod and its event wait for its log to be taken; then a gap is reported.",
        ),
    ]

    grpc_enabled: Annotated[
        bool, Field(flag(), "true", "Whether the gRPC door is opened, by which otto-handler scales and watches.")
    ]
    grpc_host: Annotated[
        str, Field(text("a host name or address"), "0.0.0.0", "Address on which gRPC is served; see GRPC_INSECURE.")
    ]
    grpc_port: Annotated[int, Field(port(), "9090", "Port of gRPC.")]
    grpc_insecure: Annotated[
        bool,
        Field(
            flag(),
            "false",
            "Whether gRPC is served in plain text to other machines; if not, and without GRPC_TLS_CERT, it is served "
            "on 127.0.0.1 only.",
        ),
    ]
    grpc_tls_cert: Annotated[
        str | None,
        Field(path(), None, "Certificate of the gRPC door with its chain, in PEM; read again when it changes."),
    ]
    grpc_tls_key: Annotated[str | None, Field(path(), None, "Key of GRPC_TLS_CERT, in PEM and not encrypted.")]
    grpc_tls_client_ca: Annotated[
        str | None,
        Field(path(), None, "Authority whose certificates clients must show (mutual TLS), in PEM."),
    ]
    grpc_tokens_file: Annotated[
        str | None,
        Field(
            path(),
            None,
            "Who may call: a YAML list of {name, sha256, roles}, with the SHA-256 of each bearer token and the roles "
            "scale or read; read again when it changes. Unset: everybody who reaches the port.",
        ),
    ]
    grpc_max_waiting_calls: Annotated[
        int,
        Field(
            whole(1, 10_000),
            "200",
            "ScaleUp, ScaleDown and ExecutePipeline calls at a time, half of them of one client.",
        ),
    ]
    grpc_max_message_bytes: Annotated[
        int, Field(whole(1024, 1 << 30, "bytes"), "4194304", "Calls with larger messages are refused.")
    ]
    grpc_calls_per_second: Annotated[
        int, Field(whole(0, 1_000_000), "500", "Calls a second that one client address may make; 0: no limit.")
    ]
