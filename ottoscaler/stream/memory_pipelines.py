"""Pipelines in the in-memory twin: a part of `MemoryStream`, and its scripts as plain functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import TypeVar

import msgspec

from ottoscaler.stream.base import Accepted, Claim
from ottoscaler.stream.memory_requests import count, is_nowhere
from ottoscaler.stream.memory_state import MemoryServer
from ottoscaler.stream.pipelines import News, Pipelines, Told
from ottoscaler.stream.progress import encode_accepted

T = TypeVar("T")
DAY = 86_400_000  # ms
PAGE = 100  # news of one pipeline in one answer


class MemoryPipelines(Pipelines):
    """What the stream in memory offers about pipelines."""

    _server: MemoryServer

    async def _call(self, name: str, script: Callable[[], T]) -> T:
        raise NotImplementedError  # MemoryStream has it

    async def start_stage(self, claim: Claim, index: int, pairs: Sequence[tuple[str, str]], news: News) -> str | None:
        """Add the event of a stage, once."""
        return await self._call("start_stage", lambda: start_stage(self._server, claim, index, pairs, news))

    async def read_news(self, known: Mapping[str, int]) -> dict[str, Told]:
        """What each of these pipelines told beyond what is known."""
        return await self._call("read_news", lambda: {id_: read(self._server, id_, at) for id_, at in known.items()})


def start_stage(
    server: MemoryServer, claim: Claim, index: int, pairs: Sequence[tuple[str, str]], news: News
) -> str | None:
    """Add the event of a stage, once; its id, empty where it is not to be started, None where the claim is void."""
    if not server.is_held(claim.event_id, claim.session, claim.epoch):
        return None
    progress = server.progress[claim.event_id]
    if accepted := progress.get(f"a:{index}:1"):
        return str(msgspec.json.decode(accepted)["uid"])
    if f"s:{index}" in progress or f"o:{index}" in progress:
        return ""
    event_id, now = server.add_entry(pairs), server.now()
    progress.pop("trial", None)
    progress[f"a:{index}:1"] = encode_accepted(Accepted(index, 1, event_id, now))
    progress.setdefault("started", str(now))
    count(progress, "created")
    tell(server, claim.event_id, news)
    return event_id


def tell(server: MemoryServer, event_id: str, news: News) -> None:
    """Add news, unless they were added before."""
    progress = server.progress[event_id]
    if int(progress.get("news", 0)) == news.before:
        server.news.setdefault(event_id, []).extend(news.texts)
        progress["news"] = str(news.before + len(news.texts))


def read(server: MemoryServer, event_id: str, known: int) -> Told:
    """A page of what one pipeline told."""
    is_gone = server.news_until.get(event_id, math.inf) <= server.now()
    texts = [] if is_gone else server.news.get(event_id, [])[known : known + PAGE]
    is_over = bool(server.ending(event_id)) or is_nowhere(server, event_id)
    return Told(tuple(texts), is_over and len(texts) < PAGE)


def end_news(server: MemoryServer, event_id: str) -> None:
    """Keep the news of a pipeline that ends for another day; those whose day is over go."""
    if event_id not in server.news:
        return
    now = server.now()
    server.news_until[event_id] = now + DAY
    for oldest in list(takewhile(lambda each: server.news_until[each] <= now, server.news_until)):
        del server.news[oldest], server.news_until[oldest]
