"""The settings: one frozen object, read once at the start from the environment and from flags of the same name.

Each field says its kind (with unit and what is expected), default and effect in one place, here; help texts and
docs/settings.md are made from it. A flag wins over its variable; an empty value counts as unset.
"""

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args

import msgspec

from ottoscaler import parsing
from ottoscaler.errors import SettingsError
from ottoscaler.parsing import (
    Kind,
    RedisAddress,
    choice,
    flag,
    json_list,
    json_map,
    matching,
    port,
    quantity,
    redis_url,
    seconds,
    secret,
    text,
    whole,
)
from ottoscaler.secret import Secret

IN_CLUSTER_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
YEAR = 31_536_000.0
DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DNS_NAME = rf"{DNS_LABEL}(\.{DNS_LABEL})*"


def _host_name(environ: Mapping[str, str]) -> str:
    return socket.gethostname() or "ottoscaler"


def _own_namespace(environ: Mapping[str, str]) -> str:
    """The pod's own namespace when it is to reach the API as that pod; a kubeconfig wins over that."""
    if environ.get("KUBECONFIG", "").strip():
        return "default"
    try:
        return IN_CLUSTER_NAMESPACE.read_text().strip() or "default"
    except OSError:
        return "default"


class Field(NamedTuple):
    """What a setting is: kind, default as one would write it (None: unset), effect, the words for a found default."""

    kind: Kind
    default: str | Callable[[Mapping[str, str]], str] | None
    effect: str
    shown: str = ""

    @property
    def default_shown(self) -> str:
        """The default as help and docs show it; empty for a setting that is unset by default."""
        return self.shown or (self.default if isinstance(self.default, str) else "")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting of Ottoscaler, checked; made by `load_settings`. The variable is the attribute in upper case."""

    # Redis
    redis_host: Annotated[str, Field(text("a host name or address"), "localhost", "Host of Redis.")]
    redis_port: Annotated[int, Field(port(), "6379", "Port of Redis.")]
    redis_password: Annotated[
        Secret | None,
        Field(
            secret(), None, "Password of Redis, where REDIS_URL has none in it; a flag shows in the list of processes."
        ),
    ]
    redis_url: Annotated[
        RedisAddress | None,
        Field(
            redis_url(),
            None,
            "Address of Redis in place of REDIS_HOST and REDIS_PORT; rediss:// speaks TLS. memory:// keeps the stream "
            "in this process: for one replica, and a crash loses what was accepted.",
        ),
    ]
    redis_db: Annotated[int, Field(whole(0, 65535, "number"), "0", "Database of Redis, where REDIS_URL names none.")]
    redis_stream: Annotated[
        str,
        Field(
            text(),
            "otto:scale:events",
            "Stream that events are read from; the names of all other keys derive from it.",
        ),
    ]
    redis_consumer_group: Annotated[
        str,
        Field(text(), "ottoscaler", "Consumer group of the stream; the replicas of one group share its events."),
    ]
    redis_consumer: Annotated[
        str,
        Field(
            text(),
            _host_name,
            "First part of this process's name in the group; a random part per start follows it.",
            "the host name",
        ),
    ]
    redis_group_start: Annotated[
        str,
        Field(
            matching(r"0|\$|\d{1,20}(-\d{1,20})?", "0, $ or an entry id such as 1756659802903-0"),
            "0",
            "Where a group that does not exist yet begins: 0 takes what was added before, $ only what comes later.",
        ),
    ]
    redis_trim: Annotated[
        str,
        Field(
            choice("auto", "on", "off"),
            "auto",
            "Whether closed entries are removed from the event stream, never one that is pending or unread in any "
            "group; auto: only while ours is the stream's only group.",
        ),
    ]
    event_max_age_seconds: Annotated[
        float,
        Field(
            seconds(0, YEAR),
            "0",
            "Events older than this before their first start go to the dead letters; 0: no limit.",
        ),
    ]
    results_keep: Annotated[int, Field(whole(1, 10**9), "100000", "How many results are kept.")]
    results_max_bytes: Annotated[
        int,
        Field(whole(1 << 20, 1 << 40, "bytes"), "268435456", "Results beyond this size are trimmed, oldest first."),
    ]

    # Kubernetes
    kubeconfig: Annotated[
        str | None,
        Field(parsing.path(), None, "Kubeconfig file; set, it wins over the access that a pod has in its cluster."),
    ]
    namespace: Annotated[
        str,
        Field(
            matching(DNS_LABEL, "a namespace: up to 63 of a-z, 0-9 and -", 63),
            _own_namespace,
            "Namespace of the worker pods.",
            "the pod's own in a cluster, else default",
        ),
    ]
    instance_name: Annotated[
        str,
        Field(
            text(),
            "ottoscaler",
            "Tells installations apart that share a namespace; each touches only its own pods.",
        ),
    ]

    # Workers
    otto_agent_image: Annotated[
        str, Field(text("an image name"), "busybox:latest", "Image of the workers, where the template names none.")
    ]
    worker_command: Annotated[
        tuple[str, ...] | None,
        Field(
            json_list(),
            None,
            "Command of the workers, where the template has none; [] is the image's own. Given alone, it also "
            "replaces the arguments. Unset, the default image runs a short demonstration.",
        ),
    ]
    worker_args: Annotated[
        tuple[str, ...] | None,
        Field(json_list(), None, "Arguments of the workers; given alone, they also replace the command."),
    ]
    worker_template: Annotated[
        str | None,
        Field(
            parsing.path(),
            None,
            "A YAML file of a v1 PodTemplate, or a folder of them that events choose from by name (file stem); the "
            "one called default serves events that name none.",
        ),
    ]
    worker_service_account: Annotated[
        str | None,
        Field(
            matching(DNS_NAME, "the name of a service account: up to 253 of a-z, 0-9, - and ."),
            None,
            "Service account of the worker pods; unset, the namespace's default. Its token is not mounted.",
        ),
    ]
    worker_cpu_limit: Annotated[str, Field(quantity("1m", "500m"), "500m", "CPU limit and request of a worker.")]
    worker_memory_limit: Annotated[str, Field(quantity("1", "128Mi"), "128Mi", "Memory limit and request of a worker.")]

    # Limits
    max_workers: Annotated[
        int,
        Field(
            whole(1, 100_000),
            "1000",
            "Workers at a time over all events of a replica, shared fairly between the events.",
        ),
    ]
    max_events: Annotated[int, Field(whole(1, 100_000), "1000", "Scale-ups at a time of a replica.")]
    max_pods_per_event: Annotated[
        int,
        Field(whole(1, 1_000_000), "10000", "Events that ask for more go to the dead letters."),
    ]
    max_metadata_bytes: Annotated[
        int,
        Field(
            whole(0, 131_000, "bytes"),
            "65536",
            "Names and values of an event's metadata together; events with more go to the dead letters.",
        ),
    ]
    supervisor_max_restarts: Annotated[
        int,
        Field(
            whole(1, 1000),
            "5",
            "A part that crashes this often within a minute ends the process, after a hand-over.",
        ),
    ]

    # Times
    lease_seconds: Annotated[
        float,
        Field(seconds(0.1, 3600), "3", "A replica not heard of for this long is dead: others take its events over."),
    ]
    drain_seconds: Annotated[
        float,
        Field(
            seconds(0, YEAR),
            "20",
            "Time that running work gets after SIGTERM, before its events are handed over and its pods left running; "
            "0: none.",
        ),
    ]
    startup_timeout_seconds: Annotated[
        float,
        Field(seconds(0, YEAR), "60", "How long Redis and the API are tried at the start before giving up."),
    ]
    cleanup_delay_seconds: Annotated[
        float,
        Field(
            seconds(0, YEAR),
            "1",
            "How long a pod stays after its outcome is recorded and it is needed no more; those of a large event may "
            "stay up to 3.5 s longer, to go together.",
        ),
    ]
    create_fence_seconds: Annotated[
        float,
        Field(
            seconds(0, 86_400),
            "60",
            "After a create without an answer the finished pod stays this long, so that a late create cannot run it "
            "twice.",
        ),
    ]
    create_timeout_seconds: Annotated[
        float,
        Field(seconds(1, YEAR), "600", "How long creating one pod is tried while the API refuses for passing reasons."),
    ]
    pending_timeout_seconds: Annotated[
        float,
        Field(seconds(0, YEAR), "300", "How long a pod may wait for a node before its worker fails; 0: for ever."),
    ]
    image_pull_grace_seconds: Annotated[
        float,
        Field(seconds(0, YEAR), "30", "How long failing image pulls are waited out before a worker fails by them."),
    ]

    # Failures
    worker_max_attempts: Annotated[
        int, Field(whole(1, 100), "1", "Tries that a worker has for failures of its own; 1: it is not run again.")
    ]
    platform_max_attempts: Annotated[
        int, Field(whole(1, 100), "5", "Tries that a worker has for failures of the platform, such as an eviction.")
    ]
    platform_retry_started: Annotated[
        bool,
        Field(flag(), "false", "Whether a worker that had started is run again after a failure of the platform."),
    ]
    retry_policy: Annotated[
        Mapping[str, str] | None,
        Field(
            json_map(),
            None,
            "Causes of failure moved to another class (own, platform, final); the table of causes is in failures.md.",
        ),
    ]
    event_max_failures: Annotated[
        int, Field(whole(1, 100), "3", "An event whose handling itself broke so often goes to the dead letters.")
    ]
    orphan_grace_seconds: Annotated[
        float,
        Field(seconds(0, YEAR), "60", "A pod of ours whose event is unknown is deleted after this time."),
    ]
    max_workers_total: Annotated[
        int, Field(whole(0, 1_000_000), "0", "Workers at a time over all replicas; 0: no bound beyond MAX_WORKERS.")
    ]

    # Log
    log_level: Annotated[
        str,
        Field(choice("debug", "info", "warning", "error"), "info", "The least severe lines that are logged."),
    ]
    log_format: Annotated[
        str,
        Field(
            choice("auto", "text", "json"),
            "auto",
            "Form of the log lines; auto is text on a terminal and json elsewhere.",
        ),
    ]

    @property
    def redis_address(self) -> RedisAddress:
        """Where Redis is, all of it: the URL, completed from the single settings. `str()` of it is fit for logs."""
        url = self.redis_url or RedisAddress(scheme="redis", host=self.redis_host, port=self.redis_port)
        return msgspec.structs.replace(
            url,
            db=self.redis_db if url.db is None else url.db,
            password=url.password or self.redis_password,
        )


FIELDS: dict[str, Field] = {
    name.upper(): get_args(annotation)[1] for name, annotation in Settings.__annotations__.items()
}


def flag_of(variable: str) -> str:
    """The flag of a variable: REDIS_HOST is set by --redis-host."""
    return "--" + variable.lower().replace("_", "-")


def load_settings(environ: Mapping[str, str], flags: Mapping[str, str] | None = None) -> Settings:
    """Read and check every setting; `flags` are keyed like `environ` (REDIS_HOST) and win over it.

    Raises SettingsError with all problems at once, each naming what was given, its value and what was expected.
    """
    given = {**environ, **{name: value for name, value in (flags or {}).items() if value.strip()}}
    values: dict[str, Any] = {}
    problems: list[str] = []
    for variable, field in FIELDS.items():
        try:
            values[variable.lower()] = _value(field, given.get(variable, ""), given)
        except ValueError as error:
            source = flag_of(variable) if (flags or {}).get(variable, "").strip() else variable
            problems.append(_problem(field, source, given.get(variable, ""), error))
    if problems:
        raise SettingsError(problems)
    return Settings(**values)


def _value(field: Field, given: str, environ: Mapping[str, str]) -> Any:
    """The value of one field; a password keeps inner and outer spaces, but not the line end a file put behind it."""
    raw = given.rstrip("\r\n") if field.kind.parse is Secret else given.strip()
    if raw.strip():
        return field.kind.parse(raw)
    default = field.default(environ) if callable(field.default) else field.default
    return None if default is None else field.kind.parse(default)


def _problem(field: Field, source: str, raw: str, error: ValueError) -> str:
    """One sentence: what was given, its value (never a secret's) and what was expected."""
    shown = "***" if field.kind.parse in (Secret, parsing.parse_redis_url) else repr(raw.strip())
    detail = f" ({error})" if isinstance(error, parsing.WrongValue) else ""
    return f"{source} is {shown}, expected {field.kind.expected}{detail}"
