"""One pipeline: its stages begin as those that they need are completed, each as an event of its own.

In: a pipeline that this process holds, and its progress (fresh, or as an earlier owner left it). Out: one result. A
stage is started, and its end written down, by a script that checks the claim and tells the news in the same step;
whoever takes over goes on exactly there, and starts no stage again.

Failed workers are retried within the stage's event, as its spec says: only what failed runs again. A second event for
the stage would run all of it again.
"""

from __future__ import annotations

from functools import partial

import trio
import trio_util

from ottoscaler.events import BadEntry, Event
from ottoscaler.log import log
from ottoscaler.outcomes import WorkerOutcome, newer_version
from ottoscaler.pipelines.ending import StageEnd, cancelled, ended, pipeline_result, skipped, worker_names
from ottoscaler.pipelines.news import Reporter, StageNews
from ottoscaler.pipelines.tracks import Track, Tracks
from ottoscaler.pods import PodRecord
from ottoscaler.spine.creation import STOPPED
from ottoscaler.spine.ledger import NotOurs
from ottoscaler.spine.roster import Roster
from ottoscaler.spine.scaling import figures
from ottoscaler.spine.site import Site
from ottoscaler.stages import stage_entry
from ottoscaler.stream.base import Candidate, Claim, Closing, Outcome
from ottoscaler.stream.pipelines import News
from ottoscaler.stream.progress import Progress
from ottoscaler.stream.requests import Standing

CHUNK = 500
ALL = 10**9
MOST_NAMES = 1000
"""A stage with more workers is not named worker by worker before it has ended."""


class PipelineRun:
    """The work on one pipeline while this process holds it."""

    is_clean = True
    queued = 0

    def __init__(self, site: Site, roster: Roster, event: Event, progress: Progress, claim: Claim) -> None:
        if event.pipeline is None:
            raise ValueError(f"event {event.id} is no pipeline")
        self.claim = claim
        self._site = site
        self._roster = roster
        self._event = event
        self._pipeline = event.pipeline
        self._passed_on = site.traces.pass_on(event)
        self._tracks = Tracks(event.pipeline)
        self._reporter = Reporter(event.pipeline.pipeline_id)
        self._told = progress.told
        self._noticed = trio.Event()

    def __repr__(self) -> str:
        ended, all_ = len(self._tracks.ends()), len(self._pipeline.stages)
        return f"<PipelineRun {self.claim.event_id} epoch={self.claim.epoch} ended={ended}/{all_}>"

    @property
    def is_untouched(self) -> bool:
        """Nothing of it depends on this process: it can be handed over at once."""
        return True

    def needs(self, record: PodRecord) -> bool:
        """It has no pods of its own."""
        return False

    def notice(self) -> None:
        """Somebody changed the progress (stop marks), or Redis may have forgotten some of it: read it again."""
        self._noticed.set()

    async def run(self) -> BadEntry | None:
        """Work until the result is written. Raises `NotOurs` when the pipeline was lost; a cancel leaves all stages
        running.
        """
        await self._begin()
        while True:
            await self._decide()
            if not self._tracks.are_over:
                await self._follow()
            elif await self._is_surely_over():
                break
        await self._close()
        return None

    async def _is_surely_over(self) -> bool:
        """Whether every end is on the disk of Redis: closed with one forgotten, whoever asked for it would not hear."""
        await self._site.ledger.insist(self._site.ledger.stream.wait_durable)
        await self._recall()
        return self._tracks.are_over

    async def _begin(self) -> None:
        is_adopted = self.claim.epoch > 1
        if is_adopted:
            await self._site.ledger.adopt(self.claim)
        await self._recall()
        say = log.info if self.claim.epoch <= 2 else log.debug  # however often it changes hands, few lines are its
        say("pipeline adopted" if is_adopted else "pipeline started", **self._facts(), stage="started")
        if not self._told:  # also the sign of life of who holds it first
            now = self._site.now()
            opening = [
                self._reporter.ended(track.stage, track.end, now, started=None, names=())
                if track.end
                else self._reporter.pending(track.stage, now)
                for track in self._tracks
            ]
            await self._record([], opening)

    async def _recall(self) -> None:
        """Read what the progress says, by whomever it was written; what Redis has forgotten of it did not happen."""
        self._noticed = trio.Event()
        stream = self._site.ledger.stream
        progress = await self._site.ledger.insist(partial(stream.read_progress, self._event.id))
        if progress is None:
            raise NotOurs(self.claim)
        self._told = progress.told
        if self._tracks.is_ahead_of(progress):
            log.warning("Redis had forgotten stages: begun anew", event_id=self._event.id)
            self._tracks = Tracks(self._pipeline)
        self._tracks.heed(progress)

    # -- deciding

    async def _decide(self) -> None:
        """End what need not begin, and begin what can, until there is nothing of either."""
        while True:
            ends = self._find_needless(self._site.now())
            ready = [] if ends else self._tracks.startable()
            if ends:
                await self._end(ends)
            for track in ready:
                await self._start(track)
            if not ends and not ready:
                return

    def _find_needless(self, now: float) -> list[tuple[Track, StageEnd]]:
        """Stages that were asked to end before they began; else those that wait in vain."""
        stopped, doomed = self._tracks.stopped(), self._tracks.doomed()
        if stopped:
            return [(track, cancelled(track.stage.stage_id, track.index, track.stop, now)) for track in stopped]
        return [(track, skipped(track.stage.stage_id, track.index, needed, now)) for track, needed in doomed]

    async def _start(self, track: Track) -> None:
        now, stream = self._site.now(), self._site.ledger.stream
        news = News(self._told, (self._reporter.begun(track.stage, now).to_json(),))
        entry = stage_entry(self._passed_on, track.stage)
        start = partial(stream.start_stage, self.claim, track.index, entry, news)
        event_id = await self._site.ledger.insist(start)
        if event_id is None:
            raise NotOurs(self.claim)
        if not event_id:  # it was asked to end meanwhile
            await self._recall()
            return
        self._told += 1
        self._site.ledger.tell((self._event.id,))
        track.event_id, track.started, track.state = event_id, now, "running"
        log.info("stage started", **self._facts(), stage_id=track.stage.stage_id, stage_event=event_id)

    # -- following

    async def _follow(self) -> None:
        """Wait until a stage under way stands otherwise, or somebody changed the progress, and act on it."""
        running, found = self._tracks.running(), dict[str, Standing]()

        async def look() -> None:
            known = {id_: track.standing for id_, track in running.items()}
            found.update(await self._site.standings.wait_change(known))

        await trio_util.wait_any(self._noticed.wait, look)
        tracks, has_vanished = self._tracks, any(standing.where == "nowhere" for standing in found.values())
        if self._noticed.is_set() or has_vanished:
            await self._recall()
        for event_id, standing in found.items() if tracks is self._tracks else ():
            await self._heed(running[event_id], standing)
        for track in self._tracks.running().values():
            if track.stop and not track.is_marked:
                await self._stop(track)

    async def _heed(self, track: Track, standing: Standing) -> None:
        former, track.standing = track.standing, standing
        if standing.where in ("ended", "nowhere"):
            await self._note_end(track)
        elif standing.where == "live" and track.note(standing) and not (track.is_inherited and former is None):
            await self._record([], [self._progress_of(track, standing)])

    def _progress_of(self, track: Track, standing: Standing) -> StageNews:
        count, name_pod = track.stage.worker_count, self._site.name_pod
        indices = range(1, count + 1) if track.is_complete and count <= MOST_NAMES else ()
        names = [name_pod(track.event_id, index, 1) for index in indices]
        now = self._site.now()
        started = track.started or now
        return self._reporter.under_way(track.stage, track.state, standing, now, started=started, names=names)

    async def _note_end(self, track: Track) -> None:
        stream, now = self._site.ledger.stream, self._site.now()
        ending = await self._site.ledger.insist(partial(stream.read_ending, track.event_id))
        if ending is None and track.standing and track.standing.where == "ended":
            return  # Redis has forgotten that in between, and the next look will show how it stands
        if ending and (version := newer_version(ending[1])):  # who knows it will go on with the pipeline
            id_, stage_id = self._event.id, track.stage.stage_id
            log.warning("stage ended; a newer version wrote how", event_id=id_, stage_id=stage_id, version=version)
            return
        id_, started = track.stage.stage_id, track.started or now
        end = ended(id_, track.index, track.event_id, ending, started=started, completed=now, stop=track.stop)
        await self._end([(track, end)], worker_names(ending))

    async def _stop(self, track: Track) -> None:
        """Mark every worker of a stage that has not ended; one that is not registered yet is met again later."""
        ledger, stream = self._site.ledger, self._site.ledger.stream
        target = await ledger.insist(partial(stream.read_progress, track.event_id))
        if target is None:
            return
        last_first = [index for index in range(target.planned, 0, -1) if index not in target.outcomes]
        marks = [self._candidate(track.event_id, index, track.stop) for index in last_first]
        for at in range(0, len(marks), CHUNK):
            mark = partial(stream.mark_victims, self.claim, ALL, marks[at : at + CHUNK], last=False, cause=track.stop)
            if await ledger.insist(mark) is None:
                raise NotOurs(self.claim)
        track.is_marked = True
        if work := self._roster.work_of(track.event_id):
            work.notice()

    def _candidate(self, event_id: str, index: int, cause: str) -> Candidate:
        name = self._site.name_pod(event_id, index, 1)
        return Candidate(event_id, index, WorkerOutcome(name, index, 1, STOPPED.outcome).stopped(cause).to_json())

    # -- ending

    async def _end(self, ends: list[tuple[Track, StageEnd]], names: tuple[str, ...] = ()) -> None:
        now = self._site.now()
        news = [self._reporter.ended(track.stage, end, now, started=track.started, names=names) for track, end in ends]
        await self._record(ends, news)
        for track, end in ends:
            facts = {"stage_id": track.stage.stage_id, "status": end.state, "cause": end.cause or None}
            log.info("stage ended", **self._facts(), **facts)

    async def _record(self, ends: list[tuple[Track, StageEnd]], news: list[StageNews]) -> None:
        """Write ends and what is told of them in one step."""
        outcomes = tuple(Outcome(track.index, end.to_json()) for track, end in ends)
        told = News(self._told, tuple(one.to_json() for one in news))
        await self._site.ledger.record(self.claim, outcomes=outcomes, news=told)
        self._told += len(news)
        for track, end in ends:
            track.end, track.state = end, end.state

    async def _close(self) -> None:
        started = min((track.started for track in self._tracks if track.started is not None), default=None)
        ends, now = self._tracks.ends(), self._site.now()
        pairs = pipeline_result(self._passed_on, self._pipeline, ends, started=started, completed=now)
        await self._site.ledger.close(Closing(self._event.id, "results", pairs, self.claim))
        self._site.traces.event_ended(self._event, pairs)
        log.info("pipeline closed", **self._facts(), stage="closed", **figures(pairs))

    def _facts(self) -> dict[str, str | None]:
        trace_id = self._passed_on.context.trace_id or None
        return {"event_id": self._event.id, "pipeline_id": self._pipeline.pipeline_id, "trace_id": trace_id}
