"""What `ottoscaler status` shows, as the lines of one screen."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ottoscaler.cli.columns import GAP, Columns, shown, shown_age
from ottoscaler.cli.status import YEAR

MOST_PIPELINES = 10
MOST_REASON = 80


def screen(facts: Mapping[str, Any]) -> Iterator[str]:
    """The lines."""
    yield f"{facts['stream']}{GAP}group {facts['group']}{GAP}{facts['redis']}"
    yield f"era {facts['era']}{GAP}namespace {facts['namespace']}{GAP}since {shown_age(facts['era_age'])}"
    yield from _replicas(facts["replicas"])
    yield from _outages(facts["outages"])
    yield from _events(facts["events"])
    yield from _workers(facts)
    yield from _pipelines(facts["pipelines"])
    yield from _letters(facts)


def _cut(reason: str) -> str:
    """A reason that fits a line; `…` where some of it is missing."""
    return reason if len(reason) <= MOST_REASON else reason[: MOST_REASON - 1] + "…"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["", *Columns(header).lines(rows)]


def _replicas(replicas: Sequence[Mapping[str, Any]]) -> list[str]:
    if not replicas:
        return ["", "no replica is running"]
    rows = [(each["session"], _lease(each["lease_seconds"]), str(each["held"])) for each in replicas]
    return _table(("REPLICA", "LEASE", "EVENTS"), rows)


def _outages(outages: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        (shown(each["what"]), each["session"], shown_age(each["seconds"]), _cut(shown(each["reason"])))
        for each in outages
    ]
    return _table(("OUTAGE", "OF", "FOR", "REASON"), rows) if rows else ["", "outages: none"]


def _lease(seconds: float) -> str:
    if seconds > 0:
        return f"{seconds:.1f}s"
    return f"expired {shown_age(-seconds)} ago" if -seconds < YEAR else "left"


def _events(events: Mapping[str, Any]) -> Iterator[str]:
    running, orphaned, waiting = events["running"], events["orphaned"], events["waiting"]
    types = sorted(
        {"scale_up", "scale_down", *running, *orphaned, *waiting}, key=lambda name: (-running.get(name, 0), name)
    )
    rows = [[name, *(str(of.get(name, 0)) for of in (running, waiting, orphaned))] for name in types]
    unread = events["unread"]
    rows.append(["not read yet", "", "unknown" if unread is None else str(unread), ""])
    yield from _table(("EVENTS", "RUNNING", "WAITING", "ORPHANED"), rows)
    if (oldest := events["oldest_waiting_seconds"]) is not None:
        yield f"the oldest that waits: {shown_age(oldest)}"


def _workers(facts: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    if facts["workers"] is None:
        yield f"workers: unknown, for {shown(facts['workers_unknown'])}"
    else:
        yield f"workers: {_counts(facts['workers']) or 'none'}"
    if facts["troubles"]:
        yield f"kept waiting by: {_counts(facts['troubles'])} (ottoscaler explain CAUSE)"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {shown(name)}" for name, number in sorted(counts.items(), key=lambda item: -item[1]))


def _pipelines(pipelines: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        (shown(each["id"]), each["event_id"], f"{each['ended']}/{each['stages']}")
        for each in pipelines[:MOST_PIPELINES]
    ]
    more = len(pipelines) - len(rows)
    return _table(("PIPELINE", "EVENT", "STAGES ENDED"), rows) * bool(rows) + [f"and {more} more"] * bool(more)


def _letters(facts: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"dead letters: {facts['dead_letters'] or 'none'}"
    rows = [
        (each["id"], each.get("cause", ""), each.get("failed_at", ""), _cut(shown(each.get("reason", ""))))
        for each in facts["last_dead_letters"]
    ]
    if rows:
        yield from Columns(("ID", "CAUSE", "FAILED", "REASON")).lines(rows)
