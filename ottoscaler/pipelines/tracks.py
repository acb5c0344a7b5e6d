"""How far each stage of one pipeline is, as its owner knows it: read from the progress, then kept up to date."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ottoscaler.pipelines.ending import StageEnd, stage_end_from
from ottoscaler.pipelines.graph import ENDED, Graph, StageState
from ottoscaler.pipelines.news import percentage
from ottoscaler.stages import Pipeline, Stage
from ottoscaler.stream.progress import Progress
from ottoscaler.stream.requests import Standing


@dataclass(slots=True)
class Track:
    """One stage: `index` from 1, the event that it became, since when (Unix s), and how that stood last.

    `stop` is the cause when it was asked to end, `is_marked` whether its workers know. `percentage` of its workers have
    ended, `retried` attempts are followed by others, `is_complete` when all have pods; of a stage that was inherited,
    that may have been told by an earlier owner.
    """

    stage: Stage
    index: int
    state: StageState = "pending"
    event_id: str = ""
    started: float | None = None
    standing: Standing | None = None
    stop: str = ""
    is_marked: bool = False
    is_inherited: bool = False
    is_complete: bool = False
    percentage: int = 0
    retried: int = 0
    end: StageEnd | None = None

    def note(self, standing: Standing) -> bool:
        """Take over how its event stands, live; whether that is worth telling: more percents, all pods there, or the
        first retry since.
        """
        done, is_complete = percentage(standing.ended, standing.planned), standing.created >= standing.planned
        is_new = done > self.percentage or (is_complete and not self.is_complete)
        if standing.retried > self.retried:
            is_new, self.state = is_new or self.state != "retrying", "retrying"
        elif is_new:
            self.state = "running"
        self.percentage, self.is_complete, self.retried = done, is_complete, standing.retried
        return is_new


class Tracks:
    """All stages of a pipeline, in the order in which they were given."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._graph = Graph(pipeline.stages)
        self._by_id = {stage.stage_id: Track(stage, at) for at, stage in enumerate(pipeline.stages, start=1)}

    def __iter__(self) -> Iterator[Track]:
        return iter(self._by_id.values())

    @property
    def are_over(self) -> bool:
        """Every stage has ended."""
        return all(track.state in ENDED for track in self)

    def heed(self, progress: Progress) -> None:
        """Take over what the progress says."""
        for track in self:
            if (end := progress.outcomes.get(track.index)) is not None:
                track.end = stage_end_from(end)
                track.state = track.end.state
            if (begun := progress.accepted.get((track.index, 1))) is not None and not track.event_id:
                track.event_id, track.started = begun["uid"], begun["at"] / 1000
                track.state = "running" if track.end is None else track.state
                track.is_inherited = True
            if (mark := progress.stops.get(track.index)) is not None:
                track.stop = mark["cause"]

    def is_ahead_of(self, progress: Progress) -> bool:
        """Whether it knows of starts or ends that the progress does not: Redis has forgotten them in a crash."""
        begun = {index: made["uid"] for (index, _), made in progress.accepted.items()}
        return any(
            (track.event_id and begun.get(track.index) != track.event_id)
            or (track.end is not None and track.index not in progress.outcomes)
            for track in self
        )

    def startable(self) -> list[Track]:
        """Those that may begin now."""
        return [self._by_id[stage_id] for stage_id in self._graph.startable(self._states())]

    def doomed(self) -> list[tuple[Track, str]]:
        """Those that can never begin, and the stage that each needs in vain."""
        return [(self._by_id[stage_id], needed) for stage_id, needed in self._graph.doomed(self._states()).items()]

    def stopped(self) -> list[Track]:
        """Those that were asked to end before they began."""
        return [track for track in self if track.state == "pending" and track.stop]

    def running(self) -> dict[str, Track]:
        """Those whose events are under way, by event."""
        return {track.event_id: track for track in self if track.state in ("running", "retrying")}

    def ends(self) -> list[StageEnd]:
        """How they ended, as far as they have."""
        return [track.end for track in self if track.end is not None]

    def _states(self) -> dict[str, StageState]:
        return {stage_id: track.state for stage_id, track in self._by_id.items()}
