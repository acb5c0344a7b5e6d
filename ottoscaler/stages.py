"""What a pipeline asks for: the JSON of the reserved field `otto.pipeline`, and the event that each stage becomes.

In: the text of the field. Out: a `Pipeline`, or a `WrongPipeline` that names field, value and what was expected. The
names are those of the gRPC messages, so that a call and an entry of the stream say the same in the same words. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from ottoscaler.spec import Spec, WrongSpec, dump_spec, parse_spec

if TYPE_CHECKING:
    from ottoscaler.events import Event

FIELD = "otto.pipeline"
OF_PIPELINES = "pipeline:"
"""So begin the request ids of pipelines, and no others."""
LONGEST_PIPELINE = 1_048_576
"""Bytes of the field's text; it stands in the entry and in the progress."""
LONGEST_ID = 150
"""Characters of a pipeline's or a stage's id."""
MOST_STAGES = 200
_OF_PIPELINE = ("pipeline_id", "name", "stages")
_OF_SPEC = ("image", "command", "args", "timeout_seconds", "retry_policy")
_OF_STAGE = ("stage_id", "type", "name", "worker_count", "depends_on", "config", *_OF_SPEC)
_OF_RETRY = ("max_attempts", "retry_delay_seconds", "retryable_failures")
_SHOWN = 80


class WrongPipeline(ValueError):
    """A pipeline that cannot be: `field` (such as `stages[2].depends_on[0]`), its `value`, and what was `expected`."""

    def __init__(self, field: str, value: object, expected: str) -> None:
        self.field = field
        self.value = value
        self.expected = expected
        where = f"{FIELD}.{field}" if field else FIELD
        super().__init__(f"field {where} is {_short(value)}, expected {expected}")


class Stage(msgspec.Struct, frozen=True):
    """One stage: `worker_count` workers that begin when every stage of `depends_on` is completed.

    `config` becomes metadata of its workers; `spec` is what it asks of their container.
    """

    stage_id: str
    worker_count: int
    type: str = ""
    name: str = ""
    depends_on: tuple[str, ...] = ()
    config: Mapping[str, str] = {}
    spec: Spec = Spec()


class Pipeline(msgspec.Struct, frozen=True):
    """Stages that depend on each other without a cycle, in the order in which they were given."""

    pipeline_id: str
    stages: tuple[Stage, ...]
    name: str = ""


def request_id_of(pipeline_id: str) -> str:
    """The request id under which a pipeline stands on the stream: one pipeline for each id."""
    return f"{OF_PIPELINES}{pipeline_id}"


def parse_pipeline(text: str, most_workers: int = 10**9) -> Pipeline:
    """Read the text of `otto.pipeline`; a field that is null counts as not given. Raises `WrongPipeline`."""
    if (size := len(text.encode())) > LONGEST_PIPELINE:
        raise WrongPipeline("", f"{size} bytes", f"at most {LONGEST_PIPELINE} bytes")
    given = _object("", text.encode(), _OF_PIPELINE)
    raws = _value("stages", given, list[msgspec.Raw], "at least one stage, as a list", ())
    if not raws:
        raise WrongPipeline("stages", [], "at least one stage")
    if len(raws) > MOST_STAGES:
        raise WrongPipeline("stages", f"{len(raws)} stages", f"at most {MOST_STAGES}")
    stages = tuple(_stage(f"stages[{at}]", bytes(raw), most_workers) for at, raw in enumerate(raws))
    _check_graph(stages)
    return Pipeline(_id("pipeline_id", given), stages, _value("name", given, str, "a text", ""))


def dump_pipeline(pipeline: Pipeline) -> str:
    """The one text for all that ask for the same: names in order, nothing that says what is so anyway."""
    asked = {"pipeline_id": pipeline.pipeline_id, "name": pipeline.name, "stages": [*map(_asked, pipeline.stages)]}
    return msgspec.json.encode(asked, order="sorted").decode()


def _asked(stage: Stage) -> dict[str, Any]:
    spec = msgspec.to_builtins(stage.spec)
    if retry := spec.pop("retry", None):
        delay = retry.get("retry_delay_seconds", 0.5)
        spec["retry_policy"] = retry | ({"retry_delay_seconds": int(delay)} if delay.is_integer() else {})
    given = {"type": stage.type, "name": stage.name, "depends_on": stage.depends_on, "config": stage.config}
    asked = {name: value for name, value in given.items() if value}
    return {"stage_id": stage.stage_id, "worker_count": stage.worker_count, **asked, **spec}


def stage_entry(event: Event, stage: Stage) -> tuple[tuple[str, str], ...]:
    """The entry of the stage's own event. Of metadata of one name the stage's wins over the pipeline's."""
    assert event.pipeline is not None
    metadata = {"pipeline_id": event.pipeline.pipeline_id, "stage_id": stage.stage_id}
    metadata |= {"stage_type": stage.type} if stage.type else {}
    metadata |= {**dict(event.metadata), **stage.config}
    spec = dump_spec(stage.spec)
    given = (("template", event.template), *event.context.pairs(), ("otto.spec", spec))
    return (
        ("type", "scale_up"),
        ("pod_count", str(stage.worker_count)),
        ("task_id", event.task_id or event.pipeline.pipeline_id),
        ("otto.parent", event.id),
        *((name, value) for name, value in given if value not in ("", "{}")),
        *sorted(metadata.items()),
    )


def _stage(where: str, raw: bytes, most_workers: int) -> Stage:
    given = _object(where, raw, _OF_STAGE)
    many = f"a whole number from 1 to {most_workers}"
    count: int = _value(f"{where}.worker_count", given, int, many, 0)
    if not 1 <= count <= most_workers:
        raise WrongPipeline(f"{where}.worker_count", count, many)
    depends_on = _value(f"{where}.depends_on", given, tuple[str, ...], "a list of stage ids", ())
    return Stage(
        stage_id=_id(f"{where}.stage_id", given),
        worker_count=count,
        type=_value(f"{where}.type", given, str, "a text", ""),
        name=_value(f"{where}.name", given, str, "a text", ""),
        depends_on=tuple(dict.fromkeys(depends_on)),
        config=_value(f"{where}.config", given, dict[str, str], "an object of texts", {}),
        spec=_spec(where, given),
    )


def _spec(where: str, given: Mapping[str, msgspec.Raw]) -> Spec:
    """What the stage asks of its container, judged as an event's own `otto.spec` is."""
    asked = {name: given[name] for name in _OF_SPEC if name in given}
    if "retry_policy" in asked:
        retry = asked.pop("retry_policy")
        _object(f"{where}.retry_policy", bytes(retry), _OF_RETRY)
        asked["retry"] = retry
    try:
        return parse_spec(msgspec.json.encode(asked).decode())
    except WrongSpec as wrong:
        field = wrong.field.replace("otto.spec.retry", "otto.spec.retry_policy").replace("otto.spec", where)
        raise WrongPipeline(field, _decoded(wrong.value), wrong.expected) from None


def _check_graph(stages: Sequence[Stage]) -> None:
    """Every id once, every dependency known, no cycle. Raises `WrongPipeline`."""
    places: dict[str, int] = {}
    for at, stage in enumerate(stages):
        if stage.stage_id in places:
            first = places[stage.stage_id]
            raise WrongPipeline(
                f"stages[{at}].stage_id", stage.stage_id, f"an id of its own: stages[{first}] has this one"
            )
        places[stage.stage_id] = at
    for at, stage in enumerate(stages):
        for number, needed in enumerate(stage.depends_on):
            if needed not in places:
                expected = f"the id of a stage of this pipeline: {_short(', '.join(places))}"
                raise WrongPipeline(f"stages[{at}].depends_on[{number}]", needed, expected)
    try:
        TopologicalSorter({stage.stage_id: stage.depends_on for stage in stages}).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        # graphlib names each stage after the one it needs: the last of the list needs the one before it
        at, way = places[cycle[-1]], " → ".join(reversed(cycle))
        raise WrongPipeline(f"stages[{at}].depends_on", list(stages[at].depends_on), f"no cycle ({way})") from None


def _object(where: str, raw: bytes, names: Sequence[str]) -> dict[str, msgspec.Raw]:
    """The fields of one JSON object as they are written; null is left out."""
    try:
        fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        _refuse(where, raw, f"a JSON object of {', '.join(names)}")
    if unknown := sorted(fields.keys() - set(names)):
        raise WrongPipeline(f"{where}.{unknown[0]}".lstrip("."), _decoded(bytes(fields[unknown[0]])), "no such field")
    return {name: value for name, value in fields.items() if bytes(value) != b"null"}


def _value(where: str, given: Mapping[str, msgspec.Raw], kind: Any, expected: str, default: Any) -> Any:
    """One field of an object, the last name of the path `where`."""
    raw = given.get(where.rpartition(".")[2])
    if raw is None:
        return default
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, RecursionError):
        _refuse(where, bytes(raw), expected)


def _id(where: str, given: Mapping[str, msgspec.Raw]) -> str:
    expected = f"a text of 1 to {LONGEST_ID} characters that can be printed"
    id_: str = _value(where, given, str, expected, "")
    if not 1 <= len(id_) <= LONGEST_ID or not id_.isprintable():
        raise WrongPipeline(where, id_, expected)
    return id_


def _refuse(where: str, raw: bytes, expected: str) -> NoReturn:
    raise WrongPipeline(where, _decoded(raw), expected) from None


def _decoded(raw: bytes | str) -> object:
    """A wrong value as its sender meant it, as far as it can be read."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return raw.decode(errors="replace") if isinstance(raw, bytes) else raw


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 3]}..."
