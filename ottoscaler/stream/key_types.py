"""Whether our keys can hold what is ours: a key of another type under one of our names stops every script that meets
it, and so does a cluster that scatters our keys over its nodes.
"""

from __future__ import annotations

import re

from redis.exceptions import ResponseError

from ottoscaler.stream.keys import Keys
from ottoscaler.stream.link import Exchange

HASH_TAG = re.compile(r"\{[^}]+\}")
"""Keys that share the text in the first braces are in one slot:
https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags
"""
SCATTERED = "is one of many on a cluster, expected a hash tag, such as {otto:scale}:events"


def find_strangers(exchange: Exchange, keys: Keys) -> tuple[str, ...]:
    """A sentence on each key that cannot be ours; empty, too, where the user may not ask (TYPE is optional)."""
    if b"cluster_enabled:1" in exchange("INFO", "cluster") and not HASH_TAG.search(keys.stream):
        return (f"key {keys.stream} {SCATTERED}",)
    expected = {
        keys.stream: "stream",
        keys.results: "stream",
        keys.dead_letters: "stream",
        keys.results_kept: "hash",
        keys.era: "hash",
        keys.slots: "hash",
        keys.outages: "hash",
        keys.requests: "hash",
        keys.sessions: "zset",
        keys.live: "zset",
        keys.fences: "zset",
        keys.offered("work"): "zset",
        keys.offered("control"): "zset",
        keys.offered("pipelines"): "zset",
        keys.marker: "string",
    }
    try:
        found = {key: exchange("TYPE", key).decode() for key in expected}
    except ResponseError:  # not permitted
        return ()
    return tuple(
        f"key {key} is a {found[key]}, expected a {kind} or nothing"
        for key, kind in expected.items()
        if found[key] not in (kind, "none")
    )


def mend_of(stranger: str) -> str:
    """What to do about one of these sentences; on a cluster the key is ours, and deleting it would lose events."""
    return (
        "set another REDIS_STREAM" if stranger.endswith(SCATTERED) else "set another REDIS_STREAM, or delete that key"
    )
