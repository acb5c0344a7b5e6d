"""What a call asks for, as the entry of an event; whatever is wrong with it is said in the call's own words. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ottoscaler.events import KNOWN, LONGEST_REQUEST_ID, RESERVED, BadEntry, Limits, environment_name, parse_entry
from ottoscaler.rpc.door import InvalidCall, PolicyRefused, ScaleDownCall, ScaleUpCall, cut
from ottoscaler.trace_context import FIELDS as CONTEXT
from ottoscaler.trace_context import read_context

Call = ScaleUpCall | ScaleDownCall
Pairs = tuple[tuple[str, str], ...]
MOST_NAMES = 1000
"""Of metadata and build_config together; each becomes a variable in every pod."""
WORDS = ("repository", "commit_sha", "triggered_by", "reason")
SPOKEN_FOR = KNOWN | {"event_id"}
_FIELDS = {"pod_count": "worker_count", "otto.request_id": 'metadata["request_id"]'}
_REFUSAL = re.compile(r"field (?P<field>\S+) is (?P<value>.*), expected (?P<allowed>.*)", re.DOTALL)


def scale_up_pairs(call: ScaleUpCall, limits: Limits, now: float) -> Pairs:
    """The entry of a scale_up; `now` in Unix seconds. Raises `InvalidCall` or `PolicyRefused`."""
    if not 1 <= call.worker_count <= limits.max_pods:
        expected = f"a whole number from 1 to {limits.max_pods} (MAX_PODS_PER_EVENT)"
        raise InvalidCall("worker_count", call.worker_count, expected)
    return _pairs(call, (("type", "scale_up"), ("pod_count", str(call.worker_count))), limits, now)


def scale_down_pairs(call: ScaleDownCall, limits: Limits, now: float) -> Pairs:
    """The entry of a scale_down that says how many may remain. Raises the same."""
    if call.target < 0:
        raise InvalidCall("worker_count", call.target, "a whole number from 0: how many workers may remain")
    return _pairs(call, (("type", "scale_down"), ("otto.remain", str(call.target))), limits, now)


def _pairs(call: Call, first: Pairs, limits: Limits, now: float) -> Pairs:
    named = list(_named(call))
    _check(call, named)
    _check_size(call, named, limits.max_metadata_bytes)
    about = (("task_id", call.task_id), ("otto.request_id", call.request_id))
    pairs = (
        *first,
        *((name, value) for name, value in about if value),
        ("timestamp", f"{now:.3f}"),
        *read_context(call.metadata.items())[0].pairs(),
        *((name, value) for _, name, value in named),
    )
    _judge(pairs, limits)
    return pairs


def _named(call: Call) -> Iterator[tuple[str, str, str]]:
    """What becomes metadata: the field of the call, name and value. A trace context is a field of its own."""
    yield from ((word, word, value) for word in WORDS if (value := getattr(call, word)))
    yield from ((f'build_config["{name}"]', name, value) for name, value in call.build_config.items())
    yield from ((f'metadata["{name}"]', name, value) for name, value in call.metadata.items() if name not in CONTEXT)


def _check(call: Call, named: list[tuple[str, str, str]]) -> None:
    if len(call.request_id) > LONGEST_REQUEST_ID:
        expected = f"at most {LONGEST_REQUEST_ID} characters"
        raise InvalidCall('metadata["request_id"]', call.request_id, expected)
    if (count := len(call.metadata) + len(call.build_config)) > MOST_NAMES:
        expected = f"at most {MOST_NAMES}, with those of build_config"
        raise InvalidCall("metadata", f"{count} entries", expected)
    check_names(named)
    for field, text in (("task_id", call.task_id), ('metadata["request_id"]', call.request_id)):
        check_text(field, text)


def check_names(named: list[tuple[str, str, str]]) -> None:
    """Whether these (field of the call, name, value) may all be metadata of one event. Raises `InvalidCall`, which says
    nothing of a value: it may be a secret, and refusals are logged.
    """
    by_variable: dict[str, str] = {}
    for field, name, value in named:
        _check_name(field, name)
        check_text(field, name + value)
        variable = environment_name(name)
        if variable in by_variable:
            expected = f"a name that does not become {cut(variable)}, as that of {cut(by_variable[variable])} does"
            raise InvalidCall(field, name, expected, said="has a name that is taken")
        by_variable[variable] = field


def check_text(field: str, text: str) -> None:
    """Whether a variable can hold this text. Raises `InvalidCall`, which says nothing of it, as above."""
    if "\0" in text:
        raise InvalidCall(field, "", "text without a NUL byte", said="holds a NUL byte")


def _check_size(call: Call, named: list[tuple[str, str, str]], most: int) -> None:
    texts = [call.task_id, *(text for _, name, value in named for text in (name, value))]
    if (size := sum(len(text.encode()) for text in texts)) > most:
        given = f"{size} bytes with task_id, build_config and the other texts"
        raise InvalidCall("metadata", given, f"at most {most} (MAX_METADATA_BYTES)")


def _check_name(field: str, name: str) -> None:
    if name.startswith(RESERVED):
        raise InvalidCall(field, name, f"a name that does not begin with {RESERVED}", said="has a reserved name")
    if name in SPOKEN_FOR:
        expected = f"a name that is none of {', '.join(sorted(SPOKEN_FOR))}"
        raise InvalidCall(field, name, expected, said="has a reserved name")


def _judge(pairs: Pairs, limits: Limits) -> None:
    """The judgement that the entry will meet on the stream, here already."""
    event = parse_entry("0-0", tuple((name.encode(), value.encode()) for name, value in pairs), limits)
    if not isinstance(event, BadEntry):
        return
    said = _REFUSAL.fullmatch(event.reason)
    field, value, expected = said.group("field", "value", "allowed") if said else ("metadata", "", event.reason)
    value = value.removeprefix("'").removesuffix("'")
    raise (PolicyRefused if event.cause == "PolicyRefused" else InvalidCall)(_FIELDS.get(field, field), value, expected)
