"""Which stages of a pipeline may begin, and how it ends: a function of how far each of them is. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Literal

from ottoscaler.stages import Stage

StageState = Literal["pending", "running", "retrying", "completed", "failed", "cancelled", "skipped"]
PipelineStatus = Literal["succeeded", "failed", "partial", "terminated"]
ENDED: frozenset[StageState] = frozenset({"completed", "failed", "cancelled", "skipped"})
UNSUCCESSFUL = ENDED - {"completed"}


class Graph:
    """The stages of one pipeline, which has no cycle, and what each needs."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._needs = {stage.stage_id: stage.depends_on for stage in stages}
        self._order = tuple(TopologicalSorter(self._needs).static_order())

    def startable(self, states: Mapping[str, StageState]) -> list[str]:
        """Pending stages that need nothing more, in the order in which they were given."""
        return [
            stage_id
            for stage_id, needs in self._needs.items()
            if states[stage_id] == "pending" and all(states[needed] == "completed" for needed in needs)
        ]

    def doomed(self, states: Mapping[str, StageState]) -> dict[str, str]:
        """Pending stages that can never begin, directly or through others, and for each the stage that it needs in
        vain; those that are needed come first.
        """
        doomed: dict[str, str] = {}
        for stage_id in self._order:
            if states[stage_id] == "pending":
                in_vain = (need for need in self._needs[stage_id] if need in doomed or states[need] in UNSUCCESSFUL)
                if (needed := next(in_vain, None)) is not None:
                    doomed[stage_id] = needed
        return doomed


def status_of(states: Collection[StageState]) -> PipelineStatus:
    """Of a pipeline whose stages have all ended: all completed → succeeded; else of those that were not skipped all
    cancelled → terminated; else none completed and one failed → failed; else partial.
    """
    begun = set(states) - {"skipped"}
    if set(states) == {"completed"}:
        return "succeeded"
    if begun == {"cancelled"}:
        return "terminated"
    return "partial" if "completed" in begun else "failed"
