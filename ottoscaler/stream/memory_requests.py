"""Requests in the in-memory twin: a part of `MemoryStream`, and its scripts as plain functions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import takewhile
from typing import TypeVar

from ottoscaler.stream.base import MISMATCHED, REPEATED
from ottoscaler.stream.entry_id import format_id, parse_id
from ottoscaler.stream.memory_state import MemoryServer, text_of
from ottoscaler.stream.progress import is_newer
from ottoscaler.stream.requests import Request, Requested, Requests, Standing, decode_request, live_standing

T = TypeVar("T")
DAY = 86_400_000  # ms
HOUR = 3_600_000  # ms


class MemoryRequests(Requests):
    """What the stream in memory offers about requests."""

    _server: MemoryServer

    async def _call(self, name: str, script: Callable[[], T]) -> T:
        raise NotImplementedError  # MemoryStream has it

    async def request(self, pairs: Sequence[tuple[str, str]], request_id: str, content: str, token: str) -> Requested:
        """Add an event, once per request id."""
        return await self._call("request", lambda: request(self._server, pairs, request_id, content, token))

    async def read_request(self, request_id: str) -> Request | None:
        """What stands under a request id."""
        fields = await self._call("read_request", lambda: dict(_stands(self._server, request_id)))
        return decode_request(fields) if fields else None

    async def look(self, event_ids: Collection[str]) -> dict[str, Standing]:
        """How each of these events stands."""
        return await self._call("look", lambda: {id_: _standing(self._server, id_) for id_ in event_ids})

    async def read_results_back(self, before: str, count: int) -> list[tuple[str, dict[str, str]]]:
        """Results that are older than an entry, the newest first."""
        found = await self._call("read_results_back", lambda: self._server.results.before(before, count))
        return [(id_, {name.decode(): value.decode() for name, value in pairs}) for id_, pairs in found]


def add_event(server: MemoryServer, pairs: Sequence[tuple[str, str]], token: str) -> str:
    """Append an event once per token."""
    entry_id, until = server.tokens.get(token, ("", 0))
    if until <= server.now():
        entry_id = server.add_entry(pairs)
        server.tokens.pop(token, None)  # an expired one leaves its place, so that places stay in order of expiry
        server.remember(server.tokens, token, entry_id, HOUR)
    return entry_id


def request(
    server: MemoryServer, pairs: Sequence[tuple[str, str]], request_id: str, content: str, token: str
) -> Requested:
    """Add an event once per request id."""
    if not request_id:
        return Requested(add_event(server, pairs, token), "new")
    stands = _stands(server, request_id)
    if stands and not is_nowhere(server, stands["event"]):
        if stands["content"] not in content.split():
            return Requested(stands["event"], "other")
        return Requested(stands["event"], "new" if stands["token"] == token else "known")
    event_id = server.add_entry(pairs)
    claim_request(server, request_id, event_id, content, token)
    return Requested(event_id, "new")


def judge_request(server: MemoryServer, event_id: str, request_id: str, content: str, replay_of: str) -> int:
    """Claim the request id of an entry that is registered (0); else `REPEATED` or `MISMATCHED`."""
    stands = _stands(server, request_id)
    if stands and stands["event"] == event_id:
        return 0
    is_replay = stands and stands["event"] == replay_of and (server.ending(replay_of) or "").startswith("dlq ")
    if stands and not is_replay and not is_nowhere(server, stands["event"]):
        return REPEATED if stands["content"] in content.split() else MISMATCHED
    claim_request(server, request_id, event_id, content, "")
    return 0


def _stands(server: MemoryServer, request_id: str) -> Mapping[str, str]:
    until = server.requests_until.get(request_id)
    return {} if until is not None and until <= server.now() else server.requests.get(request_id, {})


def claim_request(server: MemoryServer, request_id: str, event_id: str, content: str, token: str) -> None:
    """From now on a request id means this event, until a day after its end."""
    if former := _stands(server, request_id):
        server.requested.pop(former["event"], None)
    server.requests_until.pop(request_id, None)
    server.requests[request_id] = {"event": event_id, "content": content.partition(" ")[0], "token": token}
    server.requested[event_id] = request_id


def pass_request(server: MemoryServer, former: str, event_id: str, request_id: str) -> None:
    """From now on the request id of an event, where it has one, means its replay."""
    stands = _stands(server, request_id)
    if stands and stands["event"] == former:
        claim_request(server, request_id, event_id, stands["content"], "")


def end_request(server: MemoryServer, event_id: str, progress: Mapping[str, str], not_created: str, kept: str) -> None:
    """Keep the request id of an event that ends for another day; those whose day is over go."""
    if (request_id := server.requested.pop(event_id, None)) is None:
        return
    if progress:
        server.requests[request_id] |= {"planned": progress["planned"], "not_created": not_created or "[]"}
    if kept:
        server.requests[request_id] |= {"kept": kept}
    now = server.now()
    server.requests_until[request_id] = now + DAY
    for oldest in list(takewhile(lambda each: server.requests_until[each] <= now, server.requests_until)):
        del server.requests[oldest], server.requests_until[oldest]


def is_nowhere(server: MemoryServer, event_id: str) -> bool:
    """Whether nothing is known of an event and nobody will be given its entry: that was trimmed away before anybody got
    it, or it ended and its end is forgotten, though the entry may be kept. So is an id that is not written as such.
    """
    id_, group = parse_id(event_id), server.events.groups.get(server.keys.group)
    if event_id in server.progress or server.ending(event_id):
        return False
    if format_id(id_) == event_id and group and id_ in group.pending:
        return False
    return format_id(id_) != event_id or id_ not in server.events.entries or (group is not None and id_ <= group.last)


def count(progress: dict[str, str], name: str) -> None:
    """One worker more."""
    progress[name] = str(int(progress.get(name, 0)) + 1)


def was_created(progress: Mapping[str, str], index: int) -> bool:
    """Whether the API ever accepted a pod of a worker."""
    attempt = 1
    while f"a:{index}:{attempt}" not in progress:
        if f"t:{index}:{attempt}" not in progress:
            return False
        attempt += 1
    return True


def list_not_created(progress: Mapping[str, str]) -> str:
    """Indices of the workers whose pod the API never accepted, as JSON; empty where there are none."""
    if "not_created" not in progress:
        return ""
    return text_of([index for index in range(1, int(progress["planned"]) + 1) if not was_created(progress, index)])


def _standing(server: MemoryServer, event_id: str) -> Standing:
    progress = server.progress.get(event_id)
    if progress is not None and not is_newer(progress):
        numbers = [progress.get(name) for name in ("planned", "created", "not_created", "ended")]
        return live_standing(numbers, progress.get("trouble"), progress["task_id"], progress.get("retried"))
    if ending := server.ending(event_id):
        return Standing("ended", ending=ending.partition(" ")[0])
    return Standing("nowhere" if is_nowhere(server, event_id) else "waiting")
