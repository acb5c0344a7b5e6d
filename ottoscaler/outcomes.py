"""How workers and events end: the records that go into progress, results and dead letters. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from ottoscaler.events import BadEntry, Event, dump_entry

RESULT_VERSION = "1"
"""Of results and dead letters."""
STOP_REASONS = {"Stopped": "a scale_down stopped the worker", "Cancelled": "its event was cancelled"}
OutcomeWord = Literal["succeeded", "failed", "terminated"]


class WorkerOutcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """The end of one worker. Times are RFC 3339 with milliseconds, empty where the worker never got so far."""

    name: str
    index: int
    attempt: int
    outcome: OutcomeWord
    cause: str = ""
    reason: str = ""
    exit_code: int | None = None
    started_at: str = ""
    completed_at: str = ""
    uid: str = ""
    """Of its pod, as long as that is left to clean; not shown in results."""
    retry_at: float = 0.0
    """Unix seconds from which the next attempt may begin; 0 = there is none, the outcome is final. Not shown."""
    fence_until: float = 0.0
    """Unix seconds until which the pod must stay, because a create that was never answered may still be carried out.

    Not shown in results.
    """

    def stopped(self, cause: str = "Stopped") -> WorkerOutcome:
        """The same end, seen as what it is where a stop mark explains it."""
        return msgspec.structs.replace(
            self, outcome="terminated", cause=cause, reason=STOP_REASONS.get(cause, cause), retry_at=0.0
        )

    def public(self) -> dict[str, Any]:
        """All fields that a result shows, also those that are empty."""
        shown = msgspec.structs.asdict(self)
        del shown["uid"], shown["fence_until"], shown["retry_at"]
        return shown

    def to_json(self) -> str:
        """The text that is recorded in the progress."""
        return msgspec.json.encode(self).decode()


def read_outcome(text: str | bytes) -> WorkerOutcome:
    """Decode what `to_json` wrote."""
    return msgspec.json.decode(text, type=WorkerOutcome)


def outcome_from(decoded: Mapping[str, Any]) -> WorkerOutcome:
    """The same from JSON that was decoded already."""
    return msgspec.convert(decoded, WorkerOutcome)


def newer_version(fields: Mapping[str, str]) -> str:
    """The version that wrote a result or dead letter, where that is newer than this one and so not for it to read."""
    version = fields.get("v", RESULT_VERSION)
    is_known = version.isascii() and version.isdecimal() and int(version) <= int(RESULT_VERSION)
    return "" if is_known else version


def rfc3339(seconds: float | None) -> str:
    """`2026-01-02T03:04:05.678Z` for Unix seconds, empty for None."""
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def status_of_scale_up(outcomes: Sequence[WorkerOutcome]) -> str:
    """All succeeded → succeeded; else all stopped → terminated; else none succeeded and one failed → failed; else
    partial.
    """
    words = {outcome.outcome for outcome in outcomes}
    if words == {"succeeded"}:
        return "succeeded"
    if words == {"terminated"}:
        return "terminated"
    return "partial" if "succeeded" in words else "failed"


def result_pairs(
    event: Event,
    outcomes: Sequence[WorkerOutcome],
    *,
    started: float | None,
    completed: float,
    requested: int = 0,
    note: str = "",
    log_gaps: Sequence[Mapping[str, str]] = (),
) -> tuple[tuple[str, str], ...]:
    """The entry for the results stream. `outcomes`: of a scale_up all its workers, else those that were to stop;
    `log_gaps`: whose logs were given up.

    `started` and `completed` are Unix seconds; `started` is when the API accepted the first pod, None if it never did.
    """
    listed = sorted(outcomes, key=lambda outcome: (outcome.index, outcome.name))
    if event.type != "scale_up":
        listed = [outcome for outcome in listed if outcome.outcome == "terminated"]
        status = "succeeded" if len(listed) >= event.pod_count else "partial"
    else:
        status = status_of_scale_up(listed)
    count = {word: sum(outcome.outcome == word for outcome in listed) for word in ("succeeded", "failed", "terminated")}
    pairs = (
        ("v", RESULT_VERSION),
        ("event_id", event.id),
        ("type", event.type),
        ("task_id", event.task_id),
        ("status", status),
        ("requested", str(event.pod_count or requested)),
        *((word, str(number)) for word, number in count.items()),
        ("started_at", rfc3339(started)),
        ("completed_at", rfc3339(completed)),
        ("workers", msgspec.json.encode([outcome.public() for outcome in listed]).decode()),
    )
    gaps = msgspec.json.encode(log_gaps).decode() if log_gaps else ""
    said = (("replay_of", event.replay_of), ("cancels", event.target), ("note", note), ("log_gaps", gaps))
    extra = (*said, *event.context.pairs())
    return (*pairs, *((name, value) for name, value in extra if value))


def dead_letter_pairs(bad: BadEntry, *, deliveries: int, failed: float) -> tuple[tuple[str, str], ...]:
    """The entry for the dead letters; `entry` restores exactly the pairs that came in."""
    return (
        ("v", RESULT_VERSION),
        ("event_id", bad.id),
        ("cause", bad.cause),
        ("reason", bad.reason),
        ("deliveries", str(deliveries)),
        ("failed_at", rfc3339(failed)),
        ("entry", dump_entry(bad.entry)),
    )
