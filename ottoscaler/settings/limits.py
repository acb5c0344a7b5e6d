"""The settings of how many, how long and how often."""

from collections.abc import Mapping
from typing import Annotated

from ottoscaler.parsing import flag, json_map, path, seconds, whole
from ottoscaler.settings.field import YEAR, Field
from ottoscaler.settings.workers import WorkerSettings


class LimitSettings(WorkerSettings, frozen=True, kw_only=True):
    """Limits, times, and what is done about failures."""

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
            "How long a pod stays after its outcome is recorded and it is needed no more; the last ones of a large "
            "event stay until all show their final phase, at most 1.5 s longer, to go together.",
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
    policy_file: Annotated[
        str | None,
        Field(
            path(),
            None,
            "A YAML file that says which images, commands and how much events and calls may ask for (policy.md); "
            "unset: only images of the settings and templates.",
        ),
    ]
    max_workers_total: Annotated[
        int, Field(whole(0, 1_000_000), "0", "Workers at a time over all replicas; 0: no bound beyond MAX_WORKERS.")
    ]
