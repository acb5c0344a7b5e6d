"""The settings of Redis, its streams and the consumer group."""

import socket
from collections.abc import Mapping
from typing import Annotated

import msgspec

from ottoscaler.parsing import RedisAddress, choice, matching, path, port, redis_url, seconds, secret, text, whole
from ottoscaler.secret import Secret
from ottoscaler.settings.field import YEAR, Field


def _host_name(environ: Mapping[str, str]) -> str:
    return socket.gethostname() or "ottoscaler"


class RedisSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where events come from and results go to."""

    redis_host: Annotated[str, Field(text("a host name or address"), "localhost", "Host of Redis.")]
    redis_port: Annotated[int, Field(port(), "6379", "Port of Redis.")]
    redis_password: Annotated[
        Secret | None,
        Field(
            secret(), None, "Password of Redis, where REDIS_URL has none in it; a flag shows in the list of processes."
        ),
    ]
    redis_password_file: Annotated[
        str | None,
        Field(
            path(),
            None,
            "A file with the password of Redis, in place of REDIS_PASSWORD; read at every login: a change needs no "
            "restart.",
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

    @property
    def redis_address(self) -> RedisAddress:
        """Where Redis is, all of it: the URL, completed from the single settings. `str()` of it is fit for logs."""
        url = self.redis_url or RedisAddress(scheme="redis", host=self.redis_host, port=self.redis_port)
        return msgspec.structs.replace(
            url,
            db=self.redis_db if url.db is None else url.db,
            password=url.password or self.redis_password,
            password_file=None if url.password else self.redis_password_file,
        )
