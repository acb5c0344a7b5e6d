"""Requests in Redis: a part of `RedisStream`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ottoscaler.stream.answers import text, texts
from ottoscaler.stream.keys import Keys
from ottoscaler.stream.link import Link
from ottoscaler.stream.requests import Request, Requested, Requests, Standing, decode_request, live_standing

PAGE = 500  # events looked at by one script call


class RedisRequests(Requests):
    """What a stream in Redis offers about requests."""

    _keys: Keys
    _calls: Link

    async def _call(self, name: str, **arguments: Any) -> Any:
        raise NotImplementedError  # RedisStream has it

    async def add_event(self, pairs: Sequence[tuple[str, str]], token: str) -> str:
        """Append an event, once per token."""
        return text(await self._call("add_event", pairs=_flat(pairs), token=token))

    async def request(self, pairs: Sequence[tuple[str, str]], request_id: str, content: str, token: str) -> Requested:
        """Add an event, once per request id."""
        if not request_id:
            return Requested(await self.add_event(pairs, token), "new")
        how, event_id = await self._call(
            "request", pairs=_flat(pairs), request_id=request_id, content=content, token=token
        )
        return Requested(text(event_id), "new" if how == b"new" else "known" if how == b"known" else "other")

    async def read_request(self, request_id: str) -> Request | None:
        """What stands under a request id."""
        flat = await self._calls.command("HGETALL", self._keys.request(request_id))
        return decode_request(texts(flat)) if flat else None

    async def look(self, event_ids: Collection[str]) -> dict[str, Standing]:
        """How each of these events stands."""
        ids, found = list(event_ids), dict[str, Standing]()
        for at in range(0, len(ids), PAGE):
            page = ids[at : at + PAGE]
            found |= zip(page, map(_standing, await self._call("look", ids=page)), strict=True)
        return found

    async def read_results_back(self, before: str, count: int) -> list[tuple[str, dict[str, str]]]:
        """Results that are older than an entry, the newest first."""
        end = f"({before}" if before else "+"
        raw = await self._calls.command("XREVRANGE", self._keys.results, end, "-", "COUNT", count)
        return [(text(id_), texts(flat)) for id_, flat in raw]


def _standing(raw: Any) -> Standing:
    if isinstance(raw, list):
        return live_standing(raw[:4], *raw[4:])
    if isinstance(raw, bytes):
        return Standing("ended", ending=text(raw).partition(" ")[0])
    return Standing("nowhere" if raw == -1 else "waiting")


def _flat(pairs: Sequence[tuple[str, str]]) -> list[str]:
    return [part for pair in pairs for part in pair]
