"""ExecutePipeline: a pipeline on the stream, and every change of it told to whoever asks, from the first on.

The pipeline belongs to the stream, not to the call: a client that leaves stops nothing, and who asks for the same
pipeline again joins it, on any replica, also when it has ended.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial

import msgspec

from ottoscaler.calls.asking import Pairs
from ottoscaler.calls.departures import Departed, Departures
from ottoscaler.calls.endings import written_by_newer
from ottoscaler.calls.following import Following
from ottoscaler.calls.pipeline_entry import pipeline_pairs, refusal
from ottoscaler.calls.submission import new_token, submit
from ottoscaler.errors import Unavailable
from ottoscaler.events import Limits
from ottoscaler.log import log
from ottoscaler.outcomes import newer_version
from ottoscaler.rpc.door import DeadLetter, PipelineCall, PipelineNews, RequestMismatch
from ottoscaler.spine.site import Site
from ottoscaler.stages import request_id_of
from ottoscaler.stream.requests import Requested


class ExecutePipeline:
    """The call; what becomes of a pipeline whose client tied it to the call and leaves is for `Departures`."""

    def __init__(self, site: Site, limits: Limits, following: Following, departures: Departures) -> None:
        self._site = site
        self._stream = site.ledger.stream
        self._limits = limits
        self._following = following
        self._departures = departures

    async def run(self, call: PipelineCall, is_abandoned: Callable[[], bool]) -> AsyncGenerator[PipelineNews]:
        """Begin the pipeline or join it; returns after its last news, whatever its stages did.

        Where it ends early because its client has left (`is_abandoned`), and the pipeline is to end with the call, that
        is the end of the one pipeline that this call has begun or joined, and of no other that has its id.

        Raises `InvalidCall`, `PolicyRefused`, `RequestMismatch` (the id stands for another pipeline), `Unavailable`,
        and `DeadLetter` where it became a dead letter for no fault of the call.
        """
        pairs = await pipeline_pairs(call, self._limits, self._site.now())
        departed = Departed(call.pipeline_id, new_token())
        try:
            requested = await self._submit(call, pairs, departed.token)
            departed = departed._replace(event_id=requested.event_id)
            async with aclosing(self._following.follow(requested.event_id)) as news:
                async for text in news:
                    yield msgspec.json.decode(text, type=PipelineNews)
        finally:
            if call.ends_with_call and is_abandoned():
                self._departures.note(departed)
        await self._refuse_unless_result(requested.event_id)

    async def _submit(self, call: PipelineCall, pairs: Pairs, token: str) -> Requested:
        try:
            requested = await submit(self._stream, pairs, request_id_of(call.pipeline_id), token)
        except RequestMismatch:
            raise RequestMismatch("pipeline_id", call.pipeline_id) from None
        facts = {"event_id": requested.event_id, "pipeline_id": call.pipeline_id}
        say = log.debug if requested.how == "known" else log.info  # asked again, the event has its line
        say(
            "call is on the stream",
            call="ExecutePipeline",
            **facts,
            stage="added",
            repeated=requested.how == "known" or None,
        )
        return requested

    async def _refuse_unless_result(self, event_id: str) -> None:
        """A pipeline that ended without a result was never carried out, or not to its end."""
        ending = await self._site.ledger.insist(partial(self._stream.read_ending, event_id))
        if ending is None:
            raise Unavailable(f"pipeline {event_id} is lost: its entry was trimmed unread, or Redis was emptied")
        where, fields = ending
        if version := newer_version(fields):
            if where == "dlq":
                said = f"pipeline {event_id} was not carried out; {written_by_newer(version)}"
                raise DeadLetter(said, event_id=event_id, cause="")
            return
        reason = fields.get("reason", "its dead letter was removed since")
        if where == "dlq" and reason.startswith("field "):
            raise refusal(fields["cause"], reason)
        if where == "dlq":
            said = f"pipeline {event_id} was not carried out: {reason}"
            raise DeadLetter(said, event_id=event_id, cause=fields.get("cause", ""))
