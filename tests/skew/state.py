"""All keys of a Redis as JSON, and back: what a version wrote, kept as a file that people can read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.stream.servers import Server


def dump(server: Server) -> dict[str, Any]:
    """Every key with its type and value; times to live are left out."""
    keys = sorted(key.decode() for key in server.command("KEYS", "*"))
    return {key: _dump(server, key) for key in keys}


def restore(server: Server, state: dict[str, Any]) -> None:
    """Write what `dump` read."""
    for key, kept in state.items():
        kind, value = kept["type"], kept["value"]
        if kind == "stream":
            _restore_stream(server, key, value, kept["groups"])
        elif kind == "zset":
            server.command("ZADD", key, *[part for member, score in value for part in (score, member)])
        elif kind == "hash":
            server.command("HSET", key, *[part for pair in value.items() for part in pair])
        else:
            words = [value] if kind == "string" else value
            server.command({"string": "SET", "set": "SADD"}[kind], key, *words)


def _dump(server: Server, key: str) -> dict[str, Any]:
    kind = server.command("TYPE", key).decode()
    value: Any
    match kind:
        case "hash":
            value = dict(_pairs(server.command("HGETALL", key)))
        case "set":
            value = sorted(_texts(server.command("SMEMBERS", key)))
        case "zset":
            value = _pairs(server.command("ZRANGE", key, 0, -1, "WITHSCORES"))
        case "stream":
            value = [[id_.decode(), _pairs(flat)] for id_, flat in server.command("XRANGE", key, "-", "+")]
            return {"type": kind, "value": value, "groups": _dump_groups(server, key)}
        case _:
            value = server.command("GET", key).decode()
    return {"type": kind, "value": value}


def _dump_groups(server: Server, key: str) -> list[dict[str, Any]]:
    groups = []
    for flat in server.command("XINFO", "GROUPS", key):
        facts = {flat[at].decode(): flat[at + 1] for at in range(0, len(flat), 2)}
        name, last = facts["name"].decode(), facts["last-delivered-id"].decode()
        pending = server.command("XPENDING", key, name, "-", "+", 1000)
        rows = [[id_.decode(), consumer.decode(), times] for id_, consumer, _, times in pending]
        groups.append({"name": name, "last": last, "pending": rows})
    return groups


def _restore_stream(server: Server, key: str, entries: list[Any], groups: list[dict[str, Any]]) -> None:
    for id_, pairs in entries:
        server.command("XADD", key, id_, *[part for pair in pairs for part in pair])
    for group in groups:
        server.command("XGROUP", "CREATE", key, group["name"], group["last"], "MKSTREAM")
        for id_, consumer, times in group["pending"]:
            claim = ("XCLAIM", key, group["name"], consumer, 0, id_, "FORCE", "RETRYCOUNT", times, "JUSTID")
            server.command(*claim)


def _texts(parts: Sequence[bytes]) -> list[str]:
    return [part.decode() for part in parts]


def _pairs(flat: Sequence[bytes]) -> list[list[str]]:
    return [_texts(flat[at : at + 2]) for at in range(0, len(flat), 2)]
