"""ScaleUp and ScaleDown: an event on the stream, the wait for what becomes of it, and the answer.

Nothing here scales. What is asked for stands on the stream before anything is waited for; a client that goes away, or
whose deadline passes, ends the waiting and nothing else.
"""

from __future__ import annotations

from functools import partial

import msgspec

from ottoscaler.calls.asking import scale_down_pairs, scale_up_pairs
from ottoscaler.calls.endings import (
    accepted_answer,
    ended_answer,
    forgotten_answer,
    kept_result,
    lost_answer,
    refused_answer,
    stopped_answer,
    written_by_newer,
)
from ottoscaler.calls.submission import new_token, submit
from ottoscaler.events import Limits
from ottoscaler.log import log
from ottoscaler.outcomes import newer_version
from ottoscaler.rpc.door import ScaleAnswer, ScaleDownCall, ScaleUpCall
from ottoscaler.spine.site import Site
from ottoscaler.stream.requests import Request, Requested, Standing


class Scale:
    """The two calls that change the number of workers."""

    def __init__(self, site: Site, limits: Limits) -> None:
        self._site = site
        self._stream = site.ledger.stream
        self._limits = limits

    async def up(self, call: ScaleUpCall) -> ScaleAnswer:
        """Answer when every pod was accepted or never will be, or, if that was asked for, when all have ended.

        Raises `InvalidCall`, `PolicyRefused`, `RequestMismatch`, `Unavailable`.
        """
        pairs = scale_up_pairs(call, self._limits, self._site.now())
        requested = await submit(self._stream, pairs, call.request_id, new_token())
        _log_call("ScaleUp", call, requested)
        is_enough = _has_ended if call.wait_completed else _is_answered
        standing = await self._site.standings.wait(requested.event_id, is_enough)
        return _of_repeat(requested, await self._answer_up(requested.event_id, standing, call))

    async def down(self, call: ScaleDownCall) -> ScaleAnswer:
        """Answer when what is more than the target has ended. Raises the same."""
        pairs = scale_down_pairs(call, self._limits, self._site.now())
        requested = await submit(self._stream, pairs, call.request_id, new_token())
        _log_call("ScaleDown", call, requested)
        event_id = requested.event_id
        await self._site.standings.wait(event_id, _has_ended)
        request = await self._read_request(call)
        answer = await self._answer_unless_result(event_id, request)
        return _of_repeat(requested, answer if isinstance(answer, ScaleAnswer) else stopped_answer(event_id, answer))

    async def _answer_up(self, event_id: str, standing: Standing, call: ScaleUpCall) -> ScaleAnswer:
        insist, name_pod = self._site.ledger.insist, self._site.name_pod
        if standing.where == "live":
            progress = await insist(partial(self._stream.read_progress, event_id))
            if progress is not None:
                return accepted_answer(progress, name_pod)
        request = await self._read_request(call)
        answer = await self._answer_unless_result(event_id, request)
        if isinstance(answer, ScaleAnswer):
            return answer
        return ended_answer(event_id, answer, name_pod, is_completion_asked=call.wait_completed)

    async def _read_request(self, call: ScaleUpCall | ScaleDownCall) -> Request | None:
        """What the request id of a call keeps of its event, if there is one."""
        if not call.request_id:
            return None
        return await self._site.ledger.insist(partial(self._stream.read_request, call.request_id))

    async def _answer_unless_result(self, event_id: str, request: Request | None) -> ScaleAnswer | dict[str, str]:
        """The fields of the result, or what was kept of them; the answer where there is neither."""
        ending = await self._site.ledger.insist(partial(self._stream.read_ending, event_id))
        if ending is not None and (version := newer_version(ending[1])):
            return forgotten_answer(event_id, request, self._site.name_pod, written_by_newer(version))
        match ending:
            case None:
                return lost_answer(event_id)
            case "dlq", fields:
                return refused_answer(event_id, fields, request, self._site.name_pod)
            case _, fields if fields:
                return fields
        if request and request.kept:
            return kept_result(request)
        return forgotten_answer(event_id, request, self._site.name_pod)


def _is_answered(standing: Standing) -> bool:
    return standing.is_answered


def _has_ended(standing: Standing) -> bool:
    return standing.where in ("ended", "nowhere")


def _of_repeat(requested: Requested, answer: ScaleAnswer) -> ScaleAnswer:
    """Who asked under a known request id is told so."""
    if requested.how != "known":
        return answer
    message = f"asked for before ({answer.status}): {answer.message}"
    return msgspec.structs.replace(answer, status="already_processed", message=message, first_status=answer.status)


def _log_call(name: str, call: ScaleUpCall | ScaleDownCall, requested: Requested) -> None:
    say = log.debug if requested.how == "known" else log.info  # asked again, the event has its line
    say(
        "call is on the stream",
        call=name,
        event_id=requested.event_id,
        task_id=call.task_id,
        stage="added",
        request_id=call.request_id or None,
        repeated=requested.how == "known" or None,
    )
