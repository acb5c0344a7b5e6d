"""What this replica cannot reach, and since when: told to everybody by its session, which each renewal keeps.

Redis is not among them, for without it nothing can be told: that shows as a session whose lease has run out.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ottoscaler.gauges import Vitals

MOST_REASON = 200
SILENT = "it is sent logs or states of workers and answers nothing"


class Outages:
    """Looks at the vitals of a replica; an outage keeps the moment and the reason with which it was first seen."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._seen: dict[str, dict[str, float | str]] = {}

    def look(self, vitals: Vitals) -> str:
        """JSON `{what: {since (Unix seconds), reason}}` of what is away at this instant, empty where nothing is."""
        problems = _problems(vitals)
        self._seen = {
            what: self._seen.get(what) or {"since": round(self._now(), 3), "reason": reason[:MOST_REASON]}
            for what, reason in problems.items()
        }
        return msgspec.json.encode(self._seen).decode() if self._seen else ""


def _problems(vitals: Vitals) -> dict[str, str]:
    if not vitals.is_ready:
        return {}  # a start says itself what it waits for
    logs = vitals.site.logs.statistics()
    problems = {"api": vitals.watch.trouble(), "otto-handler": SILENT if logs and not logs.is_taken else ""}
    return {what: problem for what, problem in problems.items() if problem}
