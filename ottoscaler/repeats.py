"""What is asked twice: when two requests are the same, and how the second of them ends. Pure.

Two events under one request id are the same request where they ask for the same: whenever they were sent, and whatever
the order of their fields, or the way in which the JSON in them is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from ottoscaler.events import BadEntry, Event
from ottoscaler.outcomes import result_pairs
from ottoscaler.spec import WrongSpec, dump_spec, parse_spec
from ottoscaler.stages import WrongPipeline, dump_pipeline, parse_pipeline

ABOUT_THE_SENDING = frozenset({"timestamp", "traceparent", "tracestate", "otto.request_id", "otto.replay_of"})
"""Fields that say nothing of what is asked for."""
KEPT = ("status", "requested", "succeeded", "failed", "terminated", "started_at", "completed_at")


def content_of(pairs: Iterable[tuple[str, str]]) -> str:
    """The hash that all events share which ask for the same; behind it, after a space, that of the fields as they are
    written, where it is another: versions before 0.2 kept that one.
    """
    written = sorted((name, value) for name, value in pairs if name not in ABOUT_THE_SENDING)
    meant = [(name, _MEANING[name](value) if name in _MEANING else value) for name, value in written]
    return " ".join(dict.fromkeys(map(_hash, (meant, written))))


def _hash(pairs: list[tuple[str, str]]) -> str:
    return hashlib.sha256(msgspec.json.encode(pairs)).hexdigest()[:32]


def _meaning_of_spec(text: str) -> str:
    try:
        return dump_spec(parse_spec(text))
    except WrongSpec:
        return text


def _meaning_of_pipeline(text: str) -> str:
    try:
        return dump_pipeline(parse_pipeline(text))
    except WrongPipeline:
        return text


_MEANING = {"otto.spec": _meaning_of_spec, "otto.pipeline": _meaning_of_pipeline}
"""Fields that can be written in more than one way."""


def kept_of(event: Event, pairs: Iterable[tuple[str, str]]) -> str:
    """What the request id of an event keeps of its result, so that who asks again after that was trimmed is told the
    same: its numbers and times, and the names of workers that were stopped. Empty without a request id.
    """
    if not event.request_id:
        return ""
    named = dict(pairs)
    names = () if event.type == "scale_up" else (worker["name"] for worker in msgspec.json.decode(named["workers"]))
    workers = msgspec.json.encode([{"name": name} for name in names]).decode()
    return msgspec.json.encode({name: named[name] for name in KEPT} | {"workers": workers}).decode()


def repeated_pairs(event: Event, original: str, completed: float) -> tuple[tuple[str, str], ...]:
    """The result of an event whose request id means another one, of the same content; it has no workers of its own."""
    fields = dict(result_pairs(event, (), started=None, completed=completed))
    return tuple((fields | {"status": "already_processed", "original": original}).items())


def mismatch(event: Event, original: str) -> BadEntry:
    """Why an event is refused whose request id means another one, of other content."""
    pairs = tuple((name.encode(), value.encode()) for name, value in event.entry)
    reason = (
        f"field otto.request_id is {event.request_id!r}, which event {original} of other content has, "
        "expected an id of its own, or the same content"
    )
    return BadEntry(event.id, "RequestMismatch", reason, pairs)
