"""ExecutePipeline: a pipeline on the stream, and every change of it told to whoever asks, from the first on.

The pipeline belongs to the stream, not to the call: a client that leaves stops nothing, and who asks for the same
pipeline again joins it, on any replica, also when it has ended.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

import msgspec

from ottoscaler.calls.endings import written_by_newer
from ottoscaler.calls.following import Following
from ottoscaler.calls.pipeline_entry import pipeline_pairs, refusal
from ottoscaler.calls.submission import submit
from ottoscaler.errors import GiveUp, Unavailable
from ottoscaler.events import Limits
from ottoscaler.log import log
from ottoscaler.outcomes import newer_version
from ottoscaler.rpc.door import PipelineCall, PipelineNews, RequestMismatch
from ottoscaler.spine.site import Site
from ottoscaler.stages import request_id_of


class ExecutePipeline:
    """The call, and its counterpart for clients that tie a pipeline to their call."""

    def __init__(self, site: Site, limits: Limits, following: Following) -> None:
        self._site = site
        self._stream = site.ledger.stream
        self._limits = limits
        self._following = following

    async def run(self, call: PipelineCall) -> AsyncGenerator[PipelineNews]:
        """Begin the pipeline or join it; returns after its last news, whatever its stages did.

        Raises `InvalidCall`, `PolicyRefused`, `RequestMismatch` (the id stands for another pipeline), `Unavailable`,
        and `GiveUp` where it became a dead letter for no fault of the call.
        """
        pairs = pipeline_pairs(call, self._limits, self._site.now())
        try:
            requested = await submit(self._stream, pairs, request_id_of(call.pipeline_id))
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
        async with aclosing(self._following.follow(requested.event_id)) as news:
            async for text in news:
                yield msgspec.json.decode(text, type=PipelineNews)
        await self._refuse_unless_result(requested.event_id)

    async def cancel(self, pipeline_id: str, reason: str) -> None:
        """Ask for the end of a pipeline, once, if there is one that has not ended."""
        insist, stream = self._site.ledger.insist, self._stream
        request = await insist(partial(stream.read_request, request_id_of(pipeline_id)))
        if (
            request is None
            or (await insist(partial(stream.look, [request.event_id])))[request.event_id].where == "ended"
        ):
            return
        pairs = (("type", "cancel"), ("event_id", request.event_id), ("reason", reason))
        await insist(partial(stream.add_event, pairs, f"cancel:{request.event_id}"))
        log.info("pipeline is to be cancelled", event_id=request.event_id, pipeline_id=pipeline_id, reason=reason)

    async def _refuse_unless_result(self, event_id: str) -> None:
        """A pipeline that ended without a result was never carried out, or not to its end."""
        ending = await self._site.ledger.insist(partial(self._stream.read_ending, event_id))
        if ending is None:
            raise Unavailable(f"pipeline {event_id} is lost: its entry was trimmed unread, or Redis was emptied")
        where, fields = ending
        if version := newer_version(fields):
            if where == "dlq":
                raise GiveUp(f"pipeline {event_id} was not carried out; {written_by_newer(version)}")
            return
        reason = fields.get("reason", "its dead letter was removed since")
        if where == "dlq" and reason.startswith("field "):
            raise refusal(fields["cause"], reason)
        if where == "dlq":
            raise GiveUp(f"pipeline {event_id} was not carried out: {reason}")
