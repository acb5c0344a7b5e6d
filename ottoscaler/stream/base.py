"""The promise of the stream boundary: what Ottoscaler asks of Redis, whoever keeps it.

Two keepers exist: Redis itself (`ottoscaler.stream.redis`) and a twin in memory (`ottoscaler.stream.memory`). One
contract suite runs against both. Every method that changes something is one script, atomic, and safe to repeat: asked
again with the same arguments after an answer got lost, it changes nothing more and answers as before.

Ownership. A process opens a *session* that expires unless renewed. An event that was read is *registered*: it gets
progress, and is either *held* by a session or *offered* to all. Each time an event is taken its epoch counts up; owner
and epoch together are the fencing token that every later write must show. A session that expires loses its events to
the offered ones. The group's pending list keeps every delivered entry until its close acknowledges it.

Lanes. `work` holds events that need one of the limited scalings, `control` those that must never wait for one,
`pipelines` those that wait for events of the work lane and must not take their room.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ottoscaler.stream.backlog import HasBacklog
from ottoscaler.stream.dead_letters import DeadLetters
from ottoscaler.stream.marks import Marks
from ottoscaler.stream.pipelines import News, Pipelines
from ottoscaler.stream.progress import Progress
from ottoscaler.stream.requests import Requests
from ottoscaler.stream.safekeeping import Safekeeping

Lane = Literal["work", "control", "pipelines"]
LANES: tuple[Lane, ...] = ("work", "control", "pipelines")
Pairs = Sequence[tuple[str, str]]
REPEATED, MISMATCHED = -2, -3
"""Of an event that was not registered: its request id means another one, of the same content or of other content."""


@dataclass(frozen=True, slots=True)
class Era:
    """One life of the data in Redis: made with the group, gone when Redis forgets everything. `created` in ms."""

    id: str
    namespace: str
    created: int


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry as it was delivered; `fields` is None where others trimmed it away before anyone read it."""

    id: str
    fields: tuple[tuple[bytes, bytes], ...] | None
    deliveries: int = 1


@dataclass(frozen=True, slots=True)
class Registration:
    """A well-formed event to write down. `entry` = its original pairs; `offer` = leave it to whoever has room;
    `request_id` = what its sender calls it, `content` the hash that equal requests share (see `Requests.request`),
    `replay_of` the event whose dead letter it was.
    """

    event_id: str
    lane: Lane
    entry: tuple[tuple[str, str], ...]
    task_id: str
    planned: int
    offer: bool = False
    request_id: str = ""
    content: str = ""
    replay_of: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """The fencing token: this session holds this event since its epoch-th taking."""

    event_id: str
    session: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Renewal:
    """Answer to a renewal: was the session still known, how many events does it hold, does the era stand."""

    existed: bool
    held: int
    era_stands: bool


@dataclass(frozen=True, slots=True)
class Tending:
    """Answer to `tend`: all that changed for this process, in one call. `is_idle`: no process has an event at all."""

    notices: tuple[str, ...]
    taken: tuple[Progress, ...]
    strays: tuple[Entry, ...]
    fences: tuple[Fence, ...]
    offered: int
    is_idle: bool


@dataclass(frozen=True, slots=True)
class Fence:
    """A finished pod that stays for a while, as a create that was never answered might still arrive. `due`: until when,
    in ms by the clock of Redis; in a `Closing` how many ms from then on, for the clocks of owners may differ.
    """

    name: str
    uid: str
    due: int = 0


@dataclass(frozen=True, slots=True)
class Accepted:
    """The API accepted the pod of this attempt at `at` (ms). `fence` (ms, 0 = none): until when a create of it that was
    never answered may still be carried out.
    """

    index: int
    attempt: int
    uid: str
    at: int
    fence: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """A worker's outcome as JSON text; `if_stopped` replaces it where a stop mark stands for the worker: by the mark's
    cause, which the owner need not have heard of yet (of one that is not in it as for Stopped).

    It is final, unless `retried` is the number of an attempt that ended and after which there will be another.
    """

    index: int
    outcome: str
    if_stopped: Mapping[str, str] = field(default_factory=dict)
    retried: int = 0


@dataclass(frozen=True, slots=True)
class Writing:
    """What is to be recorded for one event. `troubles`: per worker, as JSON, what keeps it from starting or ending;
    `news`: what is told of it, where it is a pipeline.
    """

    claim: Claim
    accepted: tuple[Accepted, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    troubles: tuple[tuple[int, str], ...] = ()
    news: News | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """Answer to one `Writing`: whether the claim held, and per outcome the text that now stands."""

    is_ours: bool
    outcomes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker that a scale_down may stop. `outcome` is written at once where its event was never begun by anybody."""

    event_id: str
    index: int
    outcome: str


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """A live event of the work lane as `survey` sees it; `settled` = indices with an outcome or a stop mark."""

    event_id: str
    task_id: str
    planned: int
    epoch: int
    owner: str
    settled: frozenset[int]
    accepted: frozenset[int]


@dataclass(frozen=True, slots=True)
class Closing:
    """How an event ends: `pairs` go to the results or to the dead letters, `fences` to the list of later deletes. Its
    request id, if it has one, keeps `kept` as long as it stands, also when the result was trimmed. `ended` (JSON): the
    outcome of which those are told who wait for workers of it to stop that have none.
    """

    event_id: str
    target: Literal["results", "dlq"]
    pairs: tuple[tuple[str, str], ...]
    claim: Claim | None = None
    fences: tuple[Fence, ...] = ()
    kept: str = ""
    ended: str = ""


@dataclass(frozen=True, slots=True)
class Closed:
    """Answer to a close: `here` = written by this call, `before` = it had been closed already, `lost` = not ours."""

    how: Literal["here", "before", "lost"]
    entry_id: str = ""


class GroupLost(Exception):
    """The consumer group or the era is gone: Redis was emptied, restored, or another database answers."""


class Stream(DeadLetters, Marks, Requests, HasBacklog, Pipelines, Safekeeping):
    """One process's view of the stream and of all that is kept beside it.

    Every method raises `ottoscaler.errors.Unavailable` when Redis does not answer, answers that it cannot serve now
    (loading, read-only, out of memory), or answers later than the call's limit: the change may or may not have been
    made, and the same call may be repeated. `register`, `tend` and `sweep` raise `GroupLost` for a session whose
    `open_group` was answered with an era that is over. None retries by itself. All can be cancelled: a call that Redis
    does not answer ends within 0.2 s of its cancel.

    `address` is where it is, fit for logs; `session` is the name under which it holds events.
    """

    address: str
    session: str

    @abstractmethod
    async def open_group(self, start: str, namespace: str) -> Era:
        """Create stream, group (reading from `start`: `0`, `$` or an entry id) and era where they are missing."""

    @abstractmethod
    async def read_era(self) -> Era | None:
        """The era as it stands, None where Redis knows none; makes nothing."""

    @abstractmethod
    async def read(self, count: int, block_seconds: float) -> list[Entry]:
        """Deliver up to `count` new entries to this session, waiting `block_seconds` for the first. Raises `GroupLost`.

        A cancel ends the wait at once; entries that arrive with the cancel are kept and given by the next `read`, or
        by `take_unread()`. Where the answer to an earlier `read` or `tend` got lost, the entries that were in it come
        first.
        """

    @abstractmethod
    def take_unread(self) -> list[Entry]:
        """Entries that arrived together with a cancel and were given to nobody yet; empties the list."""

    @abstractmethod
    async def renew(self, lease_seconds: float, era: str, outages: str = "") -> Renewal:
        """Keep this session for another lease; opens it where it is unknown. On a connection of its own. `outages`:
        what people who look at the installation are told of this process; written where it has changed.
        """

    @abstractmethod
    async def held(self) -> frozenset[str]:
        """The ids of the events that this session holds."""

    @abstractmethod
    async def register(self, registrations: Sequence[Registration]) -> list[int]:
        """Write down events that were delivered. Per event the epoch (1 = now held by this session), 0 = offered,
        -1 = not ours: it has ended, is no longer pending, or another process has it; `REPEATED` or
        `MISMATCHED` = nothing was written, for its request id means another event."""

    @abstractmethod
    async def tend(
        self, work_room: int, control_room: int, pipeline_room: int = 0, *, expire: bool, audit: bool
    ) -> Tending:
        """One look at all that is due: notices for this session, offered events taken (up to the room per lane, oldest
        first, epoch counted up, pending entries claimed; those that commands wait for whatever the room), due fences
        (each lent for 10 s), how many wait in the work lane. Repeated after an answer that got lost, it gives again
        what was in that answer.

        `expire`: events of sessions that have expired become offered first, and entries delivered to such a session
        that it never registered come back as `strays`, claimed by this session (one that was trimmed away comes back
        until it is closed). `audit`: consumers with pending entries and no session are treated as expired sessions,
        too, by the next call with `expire`."""

    @abstractmethod
    async def adopt(self, claim: Claim) -> bool:
        """Note in the progress that this session has read it and goes on with the event; False = not ours."""

    @abstractmethod
    async def record(self, writings: Sequence[Writing]) -> list[Written]:
        """Record accepted attempts and outcomes. The first outcome of a worker stands for ever. Where the worker bears
        a stop mark, the outcome is also written into the progress of the event that asked, and that event's owner gets
        a notice."""

    @abstractmethod
    async def read_progress(self, event_id: str) -> Progress | None:
        """The progress of one live event, None when it has ended or is unknown."""

    @abstractmethod
    async def survey(self, task_id: str) -> list[LiveEvent]:
        """All live events of the work lane, of one task or (empty) of all, oldest first."""

    @abstractmethod
    async def mark_victims(
        self,
        claim: Claim,
        wanted: int,
        candidates: Sequence[Candidate],
        *,
        last: bool,
        cause: str = "Stopped",
        passed_count: bool = False,
    ) -> tuple[tuple[str, int], ...] | None:
        """Choose victims in the order given until `wanted` are chosen, and mark them; the list so far, None = not ours.

        A candidate is passed over when its event is gone or its worker has an outcome or a stop mark. Otherwise the
        mark is set and the owner gets a notice; where nobody ever began the event the outcome is written at once. An
        offered event that bears marks, or whose workers all have outcomes, moves to the control lane, so that it waits
        for no scaling. `last`, or the number reached: the list is complete, and a repeated call chooses no more.
        `passed_count`: one that is passed over counts as chosen, because it is on its way out, too."""

    @abstractmethod
    async def offer(
        self, claims: Sequence[Claim], *, clean: Sequence[bool], delay_seconds: float = 0.0, failed: bool = False
    ) -> None:
        """Hand events over: whoever has room may take them after the delay. Not ours any more: nothing happens."""

    @abstractmethod
    async def leave(self) -> None:
        """End this session after its events were offered or closed; what it still holds expires at once."""

    @abstractmethod
    async def close(self, closing: Closing) -> Closed:
        """End an event in one script: write its one entry, acknowledge, remove the progress, remember for a day.

        Without a claim the entry must be pending and have no progress (a bad entry). The closed entry is deleted from
        the event stream where `REDIS_TRIM` says so and no other group still needs it; results are trimmed by number
        and bytes."""

    @abstractmethod
    async def sweep(self, event_ids: Sequence[str]) -> frozenset[str]:
        """Which of these events are known: in progress, or delivered and not acknowledged.

        On the way a page of the live events is put right where no script of ours would leave it so (an owner that is
        no session), and consumers are removed that have nothing pending and are gone for an hour.
        """

    @abstractmethod
    async def reserve(self, used: int, want: int, total: int) -> int:
        """Declare how many of the worker slots that all sessions share this one uses, and how many it wants; how many
        it may use now: what the others leave of `total`, at most `want`, and 0 where the session has expired. What is
        in use beyond that is counted all the same.
        """

    @abstractmethod
    async def list_fences(self) -> list[Fence]:
        """The fences of events that have closed, the first 1,000 by due time; reading them lends none."""

    @abstractmethod
    async def drop_fences(self, fences: Sequence[Fence]) -> None:
        """Forget fences whose pods were deleted."""

    @abstractmethod
    async def add_event(self, pairs: Pairs, token: str) -> str:
        """Append an event; the same token within an hour answers with the same entry id."""

    @abstractmethod
    async def read_ending(self, event_id: str) -> tuple[str, dict[str, str]] | None:
        """`("results" | "dlq", fields)` of an event that ended within the last day, else None; no fields where its
        entry was trimmed since."""

    @abstractmethod
    async def read_entries(
        self, which: Literal["results", "dlq"], after: str, count: int, block_seconds: float
    ) -> list[tuple[str, dict[str, str]]]:
        """Up to `count` entries after an id (`0` = from the first, `$` = new ones only), waiting for the first."""

    @abstractmethod
    async def live_events(self) -> list[str]:
        """Ids of all events with progress, oldest first."""
