"""What ExecutePipeline asks for, as the entry of a pipeline; what is wrong is said in the call's own words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from ottoscaler.calls.asking import MOST_NAMES, Pairs, check_names, check_text
from ottoscaler.events import BadEntry, Limits, parse_in_steps
from ottoscaler.rpc.door import InvalidCall, PipelineCall, PolicyRefused, StageCall
from ottoscaler.stages import WrongPipeline, parse_pipeline
from ottoscaler.stepwise import last_of
from ottoscaler.trace_context import FIELDS as CONTEXT
from ottoscaler.trace_context import read_context

WORDS = ("repository", "commit_sha", "triggered_by")
_OF_STAGE = re.compile(
    r"field otto\.pipeline\.(?P<stage>stages\[\d+\]) makes an event that is refused: (?P<why>.*)", re.S
)
_REFUSAL = re.compile(
    r"field (?P<field>\S+) (?:is|has) (?P<value>(?:(?!, expected none while ).)*), expected (?P<allowed>.*)", re.S
)
_OF_METADATA = re.compile(r"(?P<said>.*), expected (?P<allowed>.*)", re.S)
_FIELDS = {"pod_count": "worker_count", "otto.spec.retry": "retry_policy"}


async def pipeline_pairs(call: PipelineCall, limits: Limits, now: float) -> Pairs:
    """The entry of a pipeline; `now` in Unix seconds. Others run while its stages are judged, one after the other.

    Raises `InvalidCall` or `PolicyRefused`.
    """
    text = msgspec.json.encode(_asked(call), order="sorted").decode()
    try:
        parse_pipeline(text, limits.max_pods)
    except WrongPipeline as wrong:
        raise InvalidCall(wrong.field or "stages", wrong.value, wrong.expected) from None
    if (count := len(call.metadata)) > MOST_NAMES:
        raise InvalidCall("metadata", f"{count} entries", f"at most {MOST_NAMES}")
    named = list(_named(call))
    check_names(named)
    _check_stages(call.stages)
    metadata = sorted((name, value) for _, name, value in named)
    context, _ = read_context(call.metadata.items())
    pairs = (("type", "pipeline"), ("otto.pipeline", text), ("timestamp", f"{now:.3f}"), *context.pairs(), *metadata)
    entry = tuple((name.encode(), value.encode()) for name, value in pairs)
    event = await last_of(parse_in_steps("0-0", entry, limits))
    if isinstance(event, BadEntry):
        raise refusal(event.cause, event.reason)
    return pairs


def refusal(cause: str, reason: str) -> InvalidCall | PolicyRefused:
    """Why an entry was refused, as an error of the call: the field is that of the .proto file where it has one."""
    of_stage = _OF_STAGE.fullmatch(reason)
    stage, why = of_stage.group("stage", "why") if of_stage else ("", reason)
    said = _REFUSAL.fullmatch(why)
    if said is None:
        return _wrong_metadata(f"{stage}.config" if stage else "metadata", why)
    field, value, expected = said.group("field", "value", "allowed")
    if stage:
        for entry, message in _FIELDS.items():
            field = field.replace(entry, message)
        field = f"{stage}.{field.removeprefix('otto.spec').removeprefix('.')}".removesuffix(".")
    error = PolicyRefused if cause == "PolicyRefused" else InvalidCall
    return error(field.removeprefix("otto.pipeline."), value.removeprefix("'").removesuffix("'"), expected)


def _wrong_metadata(field: str, why: str) -> InvalidCall:
    """What is wrong with several names or values together, and with none of them alone."""
    read = _OF_METADATA.fullmatch(why)
    said, expected = read.group("said", "allowed") if read else (why, "an event that is taken")
    return InvalidCall(field, "", expected, said=f"makes an event that is refused: {said}")


def _check_stages(stages: Iterable[StageCall]) -> None:
    """What of stages becomes metadata is judged with their events; here only what no sentence may repeat."""
    for at, stage in enumerate(stages):
        check_text(f"stages[{at}].type", stage.type)
        for name, value in stage.config.items():
            check_text(f'stages[{at}].config["{name}"]', name + value)


def _named(call: PipelineCall) -> Iterator[tuple[str, str, str]]:
    """What becomes metadata: the field of the call, name and value. A trace context is a field of its own."""
    yield from ((word, word, value) for word in WORDS if (value := getattr(call, word)))
    yield from ((f'metadata["{name}"]', name, value) for name, value in call.metadata.items() if name not in CONTEXT)


def _asked(call: PipelineCall) -> dict[str, Any]:
    stages = [_stage(stage) for stage in call.stages]
    return {"pipeline_id": call.pipeline_id, "name": call.name, "stages": stages}


def _stage(call: StageCall) -> dict[str, Any]:
    """What was given of a stage; an empty text, an empty list and 0 are not given, as gRPC cannot tell them apart."""
    retry = {name: value for name, value in msgspec.structs.asdict(call.retry).items() if value} if call.retry else {}
    asked = {name: value for name, value in msgspec.structs.asdict(call).items() if value and name != "retry"}
    return {**asked, "worker_count": call.worker_count, **({"retry_policy": retry} if retry else {})}
