"""Scale events: what an entry of the stream means, and why an entry is refused.

In: the raw pairs of one entry. Out: an `Event`, or a `BadEntry` that says which field is wrong, what it held and
what was expected. Any bytes give one of the two, never an exception. Pure; knows nothing of Redis.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec

from ottoscaler.refusals import Refusal
from ottoscaler.spec import Spec, WrongSpec, parse_spec
from ottoscaler.stages import OF_PIPELINES, Pipeline, Stage, WrongPipeline, parse_pipeline, request_id_of, stage_entry
from ottoscaler.timestamps import is_timestamp
from ottoscaler.trace_context import FIELDS as CONTEXT
from ottoscaler.trace_context import NO_CONTEXT, TraceContext, read_context

EventType = Literal["scale_up", "scale_down", "cancel", "pipeline"]
TYPES = "scale_up, scale_down, cancel or pipeline"
RESERVED = "otto."
KNOWN_RESERVED = frozenset(
    {"otto.spec", "otto.parent", "otto.request_id", "otto.replay_of", "otto.remain", "otto.pipeline"}
)
KNOWN = frozenset({"type", "pod_count", "task_id", "timestamp", "template"}) | CONTEXT
MAX_ENVIRONMENT_STRING = 128 * 1024 - 64
"""Linux starts no program with an environment string of 128 KiB or more (MAX_ARG_STRLEN); the name counts, too."""

MOST_FIELDS = 3900
"""Of an entry. A script adds a replayed event, or a pipeline's stage, in one command of just under 8,000 words."""
LONGEST_REQUEST_ID = 200
"""Characters."""
MOST_CONFIG = 1000
"""Names in a stage's config: a script adds its event, and takes 8,000 words at most."""

_ENTRY_ID = re.compile(r"[0-9]{1,20}-[0-9]{1,20}", re.ASCII)
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_SHOWN = 80

Pairs = tuple[tuple[bytes, bytes], ...]


class Limits(NamedTuple):
    """What an event may ask for; `templates` are the names known, None = not judged (an event taken over).

    `policy` says in a sentence why an event that is otherwise good is refused, or None. `max_fields` is of the entry.
    `is_new`: not taken over, so that a request id must be one that is still accepted.
    """

    max_pods: int = 10_000
    max_metadata_bytes: int = 65_536
    templates: Collection[str] | None = None
    policy: Callable[[Event], str | None] | None = None
    max_fields: int = MOST_FIELDS
    is_new: bool = True


@dataclass(frozen=True, slots=True)
class Event:
    """One well-formed event. `timestamp` is kept as it came; `note` says what is odd about it, if anything.

    `pod_count` is 0 and `target` the event to end where `type` is cancel; `target` is empty elsewhere. A scale_down
    gives either `pod_count`, how many to stop, or `remain`, how many may stay (then `pod_count` is 0); `remain` is None
    elsewhere. `spec` is what a scale_up asks of its workers' container. `parent` is the id of the pipeline's event that
    it belongs to, `request_id` what its sender calls it; both are empty where not given. A pipeline asks for no workers
    itself: its stages, in `pipeline`, become events of their own; its id is its request id.
    """

    id: str
    type: EventType
    pod_count: int
    task_id: str = ""
    timestamp: str = ""
    target: str = ""
    template: str = ""
    context: TraceContext = NO_CONTEXT
    replay_of: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    entry: tuple[tuple[str, str], ...] = ()
    note: str = ""
    spec: Spec | None = None
    parent: str = ""
    request_id: str = ""
    remain: int | None = None
    pipeline: Pipeline | None = None


@dataclass(frozen=True, slots=True)
class BadEntry:
    """An entry that is refused: `cause` in one word, `reason` a sentence with field, value and what was expected."""

    id: str
    cause: Refusal
    reason: str
    entry: Pairs = ()


class _RefusedError(Exception):
    def __init__(self, cause: Refusal, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause
        self.reason = reason


def environment_name(name: str) -> str:
    """`OTTO_META_<NAME>`: upper case, everything outside A-Z and 0-9 becomes `_`."""
    return "OTTO_META_" + re.sub(r"[^A-Z0-9]", "_", name.upper())


def parse_entry(entry_id: str, pairs: Pairs, limits: Limits) -> Event | BadEntry:
    """Read the pairs of one entry. Every refusal is a value, so that a bad entry stops nothing."""
    *_, verdict = parse_in_steps(entry_id, pairs, limits)
    return verdict


def parse_in_steps(entry_id: str, pairs: Pairs, limits: Limits) -> Iterator[Event | BadEntry]:
    """`parse_entry` for who lets others run in between: the last that comes is the verdict. One step, and one more for
    each stage of a pipeline, which takes some milliseconds where it has a thousand names.
    """
    try:
        event = _parse(entry_id, pairs, limits)
        if limits.policy and (reason := limits.policy(event)):
            raise _RefusedError("PolicyRefused", reason)
        for at, stage in enumerate(event.pipeline.stages if event.pipeline else ()):
            yield event
            _check_stage(event, f"field otto.pipeline.stages[{at}]", stage, limits)
        yield event
    except _RefusedError as refused:
        yield BadEntry(entry_id, refused.cause, refused.reason, pairs)


def _parse(entry_id: str, pairs: Pairs, limits: Limits) -> Event:
    if len(pairs) > limits.max_fields:
        raise _RefusedError("TooManyFields", f"the entry has {len(pairs)} fields, expected at most {limits.max_fields}")
    entry = tuple((_text("a field's name", name), _text(f"field {_show(name)}", value)) for name, value in pairs)
    known = KNOWN | {"event_id"} if ("type", "cancel") in entry else KNOWN
    context, odd = read_context(entry)
    ours = ((name, value) for name, value in entry if name in known or name.startswith(RESERVED))
    fields = _named_once(pair for pair in ours if pair[0] not in CONTEXT)
    _refuse_reserved(fields)
    kind = _type(fields)
    metadata = tuple((name, value) for name, value in entry if name not in fields and name not in CONTEXT)
    _check_metadata(metadata, fields.get("task_id", ""), limits)
    remain, pipeline = _remain(fields, kind), _pipeline(fields, kind, limits)
    has_count = kind in ("scale_up", "scale_down") and remain is None
    return Event(
        id=entry_id,
        type=kind,
        pod_count=_pod_count(fields, limits.max_pods) if has_count else 0,
        target=_target(fields) if kind == "cancel" else "",
        task_id=fields.get("task_id", ""),
        timestamp=fields.get("timestamp", ""),
        template=_template(fields, limits.templates),
        context=context,
        replay_of=fields.get("otto.replay_of", ""),
        metadata=metadata,
        entry=entry,
        note="; ".join(filter(None, (_timestamp_note(fields.get("timestamp")), odd))),
        spec=_spec(fields, kind),
        parent=_parent(fields),
        request_id=_request_id(fields, pipeline, is_new=limits.is_new),
        remain=remain,
        pipeline=pipeline,
    )


def _text(what: str, raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise _RefusedError("NotUtf8", f"{what} holds {_show(raw)}, expected UTF-8 text") from None
    if "\0" in text:
        raise _RefusedError("BadMetadata", f"{what} holds {_show(raw)}, expected text without a NUL byte")
    return text


def _named_once(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, value in pairs:
        if name in fields:
            raise _RefusedError("DuplicateField", f"field {name} is given twice ({_show(value)} last), expected once")
        fields[name] = value
    return fields


def _refuse_reserved(fields: Iterable[str]) -> None:
    for name in fields:
        if name.startswith(RESERVED) and name not in KNOWN_RESERVED:
            expected = ", ".join(sorted(KNOWN_RESERVED))
            raise _RefusedError(
                "UnknownField", f"field {_show(name)} begins with the reserved {RESERVED}, expected one of {expected}"
            )


def _type(fields: dict[str, str]) -> EventType:
    match fields.get("type"):
        case "scale_up":
            return "scale_up"
        case "scale_down":
            return "scale_down"
        case "cancel":
            return "cancel"
        case "pipeline":
            return "pipeline"
        case None:
            raise _RefusedError("MissingType", f"field type is missing, expected {TYPES}")
        case other:
            raise _RefusedError("UnknownType", f"field type is {_show(other)}, expected {TYPES}")


def _target(fields: dict[str, str]) -> str:
    raw = fields.get("event_id")
    if raw is None or not _ENTRY_ID.fullmatch(raw):
        said = "is missing" if raw is None else f"is {_show(raw)}"
        raise _RefusedError("BadEventId", f"field event_id {said}, expected an event's id such as 1756659802903-0")
    return raw


def _pod_count(fields: dict[str, str], maximum: int) -> int:
    raw = fields.get("pod_count")
    expected = f"expected a whole number from 1 to {maximum}"
    if raw is None:
        raise _RefusedError("BadPodCount", f"field pod_count is missing, {expected}")
    if not _WHOLE.fullmatch(raw) or int(raw) < 1:
        raise _RefusedError("BadPodCount", f"field pod_count is {_show(raw)}, {expected}")
    if int(raw) > maximum:
        raise _RefusedError("TooManyPods", f"field pod_count is {_show(raw)}, {expected} (MAX_PODS_PER_EVENT)")
    return int(raw)


def _remain(fields: dict[str, str], kind: EventType) -> int | None:
    raw = fields.get("otto.remain")
    if raw is None:
        return None
    if kind != "scale_down":
        raise _RefusedError("BadRemain", f"field otto.remain is given with type {kind}, expected only with scale_down")
    if "pod_count" in fields:
        raise _RefusedError(
            "BadRemain",
            f"fields pod_count and otto.remain are both given ({_show(fields['pod_count'])} and {_show(raw)}), "
            "expected one of them",
        )
    if not _WHOLE.fullmatch(raw) or int(raw) < 0:
        raise _RefusedError("BadRemain", f"field otto.remain is {_show(raw)}, expected a whole number from 0")
    return int(raw)


def _spec(fields: dict[str, str], kind: EventType) -> Spec | None:
    raw = fields.get("otto.spec")
    if raw is None:
        return None
    if kind != "scale_up":
        raise _RefusedError("BadSpec", f"field otto.spec is given with type {kind}, expected only with scale_up")
    try:
        return parse_spec(raw)
    except WrongSpec as wrong:
        raise _RefusedError("BadSpec", str(wrong)) from None


def _pipeline(fields: dict[str, str], kind: EventType, limits: Limits) -> Pipeline | None:
    raw = fields.get("otto.pipeline")
    if raw is None and kind == "pipeline":
        raise _RefusedError("BadPipeline", "field otto.pipeline is missing, expected a JSON object of its stages")
    if raw is None:
        return None
    if kind != "pipeline":
        raise _RefusedError(
            "BadPipeline", f"field otto.pipeline is given with type {kind}, expected only with pipeline"
        )
    try:
        return parse_pipeline(raw, limits.max_pods)
    except WrongPipeline as wrong:
        raise _RefusedError("BadPipeline", str(wrong)) from None


def _check_stage(event: Event, field: str, stage: Stage, limits: Limits) -> None:
    """Each stage must be an event that would be taken itself: metadata, template and policy are judged on it."""
    for name in stage.config:
        if name in KNOWN or name.startswith(RESERVED):
            raise _RefusedError("BadPipeline", f"{field}.config has {_show(name)}, expected no reserved name")
    if (count := len(stage.config)) > MOST_CONFIG:
        raise _RefusedError("BadPipeline", f"{field}.config has {count} names, expected at most {MOST_CONFIG}")
    pairs = tuple((name.encode(), value.encode()) for name, value in stage_entry(event, stage))
    if isinstance(bad := parse_entry(event.id, pairs, limits), BadEntry):
        raise _RefusedError(bad.cause, f"{field} makes an event that is refused: {bad.reason}")


def _parent(fields: dict[str, str]) -> str:
    parent = fields.get("otto.parent", "")
    if "otto.parent" in fields and not _ENTRY_ID.fullmatch(parent):
        raise _RefusedError(
            "BadParent", f"field otto.parent is {_show(parent)}, expected an event's id such as 1756659802903-0"
        )
    return parent


def _request_id(fields: dict[str, str], pipeline: Pipeline | None, *, is_new: bool) -> str:
    request_id = fields.get("otto.request_id", "")
    if pipeline:
        named = request_id_of(pipeline.pipeline_id)
        if fields.get("otto.request_id", named) == named:
            return named
        wrong = f"expected none with type pipeline: it is {named}"
    elif "otto.request_id" in fields and not 1 <= len(request_id) <= LONGEST_REQUEST_ID:
        wrong = f"{len(request_id)} characters long, expected 1 to {LONGEST_REQUEST_ID}"
    elif is_new and request_id.startswith(OF_PIPELINES):
        wrong = f"expected one that does not begin with {OF_PIPELINES}, as those of pipelines do"
    else:
        return request_id
    raise _RefusedError("BadRequestId", f"field otto.request_id is {_show(request_id)}, {wrong}")


def _template(fields: dict[str, str], known: Collection[str] | None) -> str:
    name = fields.get("template", "")
    if name and known is not None and name not in known:
        expected = ", ".join(sorted(known)) or "no template (none is configured)"
        raise _RefusedError("UnknownTemplate", f"field template is {_show(name)}, expected {expected}")
    return name


def _check_metadata(metadata: tuple[tuple[str, str], ...], task_id: str, limits: Limits) -> None:
    size = sum(len(name.encode()) + len(value.encode()) for name, value in metadata) + len(task_id.encode())
    if size > limits.max_metadata_bytes:
        raise _RefusedError(
            "MetadataTooLarge",
            f"metadata and task_id are {size} bytes, expected at most {limits.max_metadata_bytes} (MAX_METADATA_BYTES)",
        )
    by_variable: dict[str, str] = {}
    for name, _ in metadata:
        variable = environment_name(name)
        if variable in by_variable:
            raise _RefusedError(
                "DuplicateName",
                f"metadata {_show(by_variable[variable])} and {_show(name)} both become {variable}, "
                "expected names that differ in letters or digits",
            )
        by_variable[variable] = name
    _check_environment(metadata, task_id)


def _check_environment(metadata: tuple[tuple[str, str], ...], task_id: str) -> None:
    whole = len(msgspec.json.encode(dict(metadata)))
    longest = max([whole, len(task_id.encode()), *(len(n.encode()) + len(v.encode()) for n, v in metadata)])
    if longest > MAX_ENVIRONMENT_STRING:
        raise _RefusedError(
            "MetadataTooLarge",
            f"metadata makes an environment string of {longest} bytes, expected at most {MAX_ENVIRONMENT_STRING}",
        )


def _timestamp_note(raw: str | None) -> str:
    if raw is None or is_timestamp(raw):
        return ""
    return f"timestamp is {_show(raw)}, neither Unix seconds nor RFC 3339; kept as it is"


def _show(value: str | bytes) -> str:
    shown = repr(value if isinstance(value, str) else _readable(value))
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 3]}..."


def _readable(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def dump_entry(pairs: Pairs | None) -> str:
    """The original pairs as one JSON text for a dead letter: `[name, value]`, or `{"base64": …}` where no UTF-8."""
    return msgspec.json.encode([[_json_part(name), _json_part(value)] for name, value in pairs or ()]).decode()


def load_entry(text: str) -> Pairs:
    """Exactly the pairs that `dump_entry` was given."""
    return tuple((_raw_part(name), _raw_part(value)) for name, value in msgspec.json.decode(text))


def _json_part(raw: bytes) -> str | dict[str, str]:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


def _raw_part(part: str | dict[str, str]) -> bytes:
    return part.encode() if isinstance(part, str) else base64.b64decode(part["base64"])
