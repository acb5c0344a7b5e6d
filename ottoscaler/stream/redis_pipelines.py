"""Pipelines in Redis: a part of `RedisStream`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ottoscaler.stream.answers import text
from ottoscaler.stream.base import Claim
from ottoscaler.stream.pipelines import News, Pipelines, Told

PAGE = 100  # pipelines that one script call looks at


class RedisPipelines(Pipelines):
    """What a stream in Redis offers about pipelines."""

    async def _call(self, name: str, **arguments: Any) -> Any:
        raise NotImplementedError  # RedisStream has it

    async def start_stage(self, claim: Claim, index: int, pairs: Sequence[tuple[str, str]], news: News) -> str | None:
        """Add the event of a stage, once."""
        event_id = await self._call(
            "start_stage",
            claim=(claim.event_id, claim.session, str(claim.epoch)),
            index=index,
            pairs=[part for pair in pairs for part in pair],
            news=(news.before, news.texts),
        )
        return None if event_id is None else text(event_id)

    async def read_news(self, known: Mapping[str, int]) -> dict[str, Told]:
        """What each of these pipelines told beyond what is known."""
        wanted, found = list(known.items()), dict[str, Told]()
        for at in range(0, len(wanted), PAGE):
            page = wanted[at : at + PAGE]
            raws = await self._call("read_news", wanted=page)
            for (event_id, _), (texts, is_over) in zip(page, raws, strict=True):
                found[event_id] = Told(tuple(map(text, texts)), bool(is_over))
        return found
