"""The progress of one event as it stands in Redis, and how its hash is read.

Fields of the hash (version 1), all text:

| field | content |
|---|---|
| `v` | `1` |
| `lane` | `work` (scale_up), `control` (scale_down, cancel) or `pipelines` |
| `owner`, `epoch` | session that holds it (empty: offered), and how often it was taken: the fencing token |
| `entry` | JSON list of the original `[name, value]` pairs |
| `task_id`, `planned` | the task (or empty) and the number of workers asked for |
| `registered` | server time (ms) at which it was first written down |
| `adopted:{epoch}` | JSON `{session, at}`: who took it over and when |
| `started` | time (ms) at which the API accepted its first pod |
| `clean` | `1` after a hand-over in which no create was left without an answer |
| `trial`, `failures` | epoch whose owner gave no sign yet; how often the handling broke |
| `a:{index}:{attempt}` | JSON `{uid, at, fence}`: the API accepted this attempt's pod |
| `t:{index}:{attempt}` | JSON outcome of an attempt after which there will be another |
| `w:{index}` | JSON `{cause, reason}`: what last kept the worker from starting or ending, if anything |
| `o:{index}` | JSON outcome of the worker, final |
| `s:{index}` | JSON `{by, cause}`: stop mark, `by` is the event that asked |
| `created`, `not_created`, `ended` | how many workers had a pod accepted, ended without one, and ended at all |
| `retried` | how many attempts failed after which there is another |
| `trouble` | the newest of `w:` |
| `stopping` | how many stop marks wait for an outcome |
| `victims`, `chosen` | scale_down: JSON list of `[event id, index]`; `1` once the list is complete |
| `l:{index}:{attempt}` | how far the log of this attempt is done with, in the words of whoever forwards it |
| `o:{event id}:{index}` | scale_down: the outcome of a victim, written with the victim's own |
| `news` | pipeline: how many news were told of it; its stages are its workers, `uid` in `a:` is a stage's event |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from ottoscaler.stream.base import Accepted

VERSION = 1
"""What is newer is left to those who know it: of such a progress only who holds it is read, and nothing is written."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What is known of one event; `outcomes` and `accepted` hold decoded JSON."""

    event_id: str
    lane: str
    owner: str
    epoch: int
    entry: tuple[tuple[str, str], ...]
    task_id: str
    planned: int
    registered: int = 0
    started: int | None = None
    clean: bool = False
    told: int = 0
    version: int = VERSION
    failures: int = 0
    accepted: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    attempts: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    troubles: dict[int, dict[str, Any]] = field(default_factory=dict)
    outcomes: dict[int, dict[str, Any]] = field(default_factory=dict)
    stops: dict[int, dict[str, Any]] = field(default_factory=dict)
    victims: tuple[tuple[str, int], ...] = ()
    victims_chosen: bool = False
    victim_outcomes: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    adopted: dict[int, dict[str, Any]] = field(default_factory=dict)
    marks: dict[tuple[int, int], str] = field(default_factory=dict)


def is_newer(hash_: Mapping[str, str]) -> bool:
    """Whether a version wrote it that is newer than this one."""
    return int(hash_.get("v", VERSION)) > VERSION


def read_progress(event_id: str, hash_: Mapping[str, str]) -> Progress:
    """Decode the hash of one event; fields this version does not know are left alone."""
    lane, owner, epoch = hash_.get("lane", "work"), hash_.get("owner", ""), int(hash_.get("epoch", 0))
    if is_newer(hash_):
        return Progress(event_id, lane, owner, epoch, entry=(), task_id="", planned=0, version=int(hash_["v"]))
    progress = Progress(
        event_id=event_id,
        lane=lane,
        owner=owner,
        epoch=epoch,
        entry=tuple((name, value) for name, value in _json(hash_.get("entry", "[]"))),
        task_id=hash_.get("task_id", ""),
        planned=int(hash_.get("planned", 0)),
        registered=int(hash_.get("registered", 0)),
        started=int(hash_["started"]) if "started" in hash_ else None,
        clean=hash_.get("clean") == "1",
        told=int(hash_.get("news", 0)),
        version=int(hash_.get("v", VERSION)),
        failures=int(hash_.get("failures", 0)),
        victims=tuple((event, int(index)) for event, index in _json(hash_.get("victims", "[]"))),
        victims_chosen=hash_.get("chosen") == "1",
    )
    for name, value in hash_.items():
        _read_numbered(progress, name.split(":"), value)
    return progress


def _read_numbered(progress: Progress, parts: list[str], value: str) -> None:
    match parts:
        case ["a", index, attempt]:
            progress.accepted[int(index), int(attempt)] = _json(value)
        case ["t", index, attempt]:
            progress.attempts[int(index), int(attempt)] = _json(value)
        case ["l", index, attempt]:
            progress.marks[int(index), int(attempt)] = value
        case ["w", index]:
            progress.troubles[int(index)] = _json(value)
        case ["o", index]:
            progress.outcomes[int(index)] = _json(value)
        case ["o", event_id, index]:
            progress.victim_outcomes[event_id, int(index)] = _json(value)
        case ["s", index]:
            progress.stops[int(index)] = _json(value)
        case ["adopted", epoch]:
            progress.adopted[int(epoch)] = _json(value)


def _json(text: str) -> Any:
    return msgspec.json.decode(text)


def encode_accepted(accepted: Accepted) -> str:
    """The content of an `a:` field."""
    fence = {"fence": accepted.fence} if accepted.fence else {}
    return msgspec.json.encode({"uid": accepted.uid, "at": accepted.at, **fence}).decode()


def indices(hash_: Mapping[str, str], kind: str) -> frozenset[int]:
    """Worker indices that have a field of a kind (`a`, `o` or `s`).

    Attempts after which there will be another do not count, nor do the outcomes of a scale_down's victims.
    """
    length = 3 if kind == "a" else 2
    named = (name.split(":") for name in hash_ if not (kind == "a" and f"t{name[1:]}" in hash_))
    return frozenset(int(parts[1]) for parts in named if parts[0] == kind and len(parts) == length)
