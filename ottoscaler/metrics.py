"""What is counted and timed, under the names that Prometheus sees.

One registry for the process: several scalers in one process (tests) add up. What can be looked up at any time is not
kept here but read when somebody asks (`gauges.py`). Labels come from closed sets, never from an event; children of
closed sets are made at once, so that a first failure shows as a rise from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import NamedTuple, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics

from ottoscaler.causes import CAUSES
from ottoscaler.events import EventType, load_entry
from ottoscaler.refusals import REFUSALS

disable_created_metrics()  # a second series of each, for a use that we have not

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

STAGES = ("added", "read", "started", "accepted", "scheduled", "running", "ended", "recorded", "deleted", "closed")
"""The way of an event and its workers, in order. The first begins the way; each of the others ends a gap."""
STREAMS = ("watch", "follow")
"""Verbs of requests that last as long as they last."""
NO_ANSWER = "none"
FAST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LONG = (*FAST, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0)
REFUSED_AS = "dead_letter"
OTHER = "other"
RESULT_STATUSES = ("succeeded", "failed", "partial", "terminated", "already_processed")


def _counter(name: str, meaning: str, labels: Iterable[str] = ()) -> Counter:
    return Counter(name, meaning, tuple(labels), registry=REGISTRY)


EVENTS = _counter(
    "ottoscaler_events_total",
    "Events that ended here, by type and by the status of their result; dead_letter where they were refused.",
    ("type", "outcome"),
)
WORKERS = _counter(
    "ottoscaler_workers_total",
    "Workers that ended for good, by outcome and cause (empty for success).",
    ("outcome", "cause"),
)
RETRIES = _counter("ottoscaler_retries_total", "Attempts after which the worker is run again, by cause.", ("cause",))
CAUSES_NAMED = _counter(
    "ottoscaler_causes_named_total",
    "Causes named for an attempt for the first time, also while it is only kept from starting or ending.",
    ("cause",),
)
DEAD_LETTERS = _counter("ottoscaler_dead_letters_total", "Events refused for good, by cause.", ("cause",))
POLLS = _counter(
    "ottoscaler_polls_total",
    "Reads of the event stream: with entries, empty (the wait was over), or failed (Redis did not answer).",
    ("outcome",),
)
LEASES_CLAIMED = _counter(
    "ottoscaler_leases_claimed_total", "Events taken over that waited for an owner: offered, or of a replica that died."
)
LEASES_LOST = _counter(
    "ottoscaler_leases_lost_total", "Events in work here that turned out to belong to another replica."
)
API_THROTTLED = _counter(
    "ottoscaler_api_throttled_total", "Writes that the API put off: 429, or any answer with Retry-After."
)
RELISTS = _counter("ottoscaler_watch_relists_total", "Lists of all pods after the first, as the watch could not go on.")
ORPHANS = _counter("ottoscaler_orphans_deleted_total", "Pods deleted because their event is unknown.")
DRAINS = _counter("ottoscaler_drains_total", "Drains begun.")
PART_CRASHES = _counter("ottoscaler_part_crashes_total", "Crashes of long-lived parts, by part.", ("part",))
LOG_LINES = _counter(
    "ottoscaler_log_lines_total",
    "Answers to lines of workers' logs: ack, drop (not wanted), or retry (sent again); gaps are lines, too.",
    ("outcome",),
)
LOG_GAPS = _counter("ottoscaler_log_gaps_total", "Gaps in workers' logs, by reason.", ("reason",))
SPANS = _counter(
    "ottoscaler_spans_total", "Spans of traces, by whether the collector took them: sent or failed.", ("outcome",)
)
API_REQUESTS = Histogram(
    "ottoscaler_api_request_seconds",
    "Requests to the Kubernetes API, by verb and code (none = no answer); of watches and followed logs only those that "
    "failed.",
    ("verb", "code"),
    buckets=FAST,
    registry=REGISTRY,
)
RPC_SECONDS = Histogram(
    "ottoscaler_rpc_seconds",
    "Calls by gRPC, by rpc and code, for as long as they lasted; CANCELLED where the client went away.",
    ("rpc", "code"),
    buckets=LONG,
    registry=REGISTRY,
)
STAGE_SECONDS = Histogram(
    "ottoscaler_stage_seconds",
    "Time from the stage before to this one.",
    ("stage",),
    buckets=LONG,
    registry=REGISTRY,
)
LOOP_LAG = Histogram(
    "ottoscaler_loop_lag_seconds",
    "How late a task ran that was due: what keeps the one loop busy delays all tasks.",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0),
    registry=REGISTRY,
)

for _type in get_args(EventType):
    for _outcome in (*RESULT_STATUSES, REFUSED_AS):
        EVENTS.labels(_type, _outcome)
for _outcome in ("entries", "empty", "failed"):
    POLLS.labels(_outcome)
for _cause in CAUSES.values():
    CAUSES_NAMED.labels(_cause.name)
    if _cause.kind != "report":
        WORKERS.labels("terminated" if _cause.kind == "none" else "failed", _cause.name)
    if _cause.kind in ("own", "platform"):
        RETRIES.labels(_cause.name)
WORKERS.labels("succeeded", "")
for _refusal in REFUSALS:  # a series that begins with its first 1 has not increased, so no alert would see it
    DEAD_LETTERS.labels(_refusal)
for _outcome in ("sent", "failed"):
    SPANS.labels(_outcome)
for _rpc in ("ScaleUp", "ScaleDown", "GetWorkerStatus", "ExecutePipeline"):
    RPC_SECONDS.labels(_rpc, "OK")
_STAGE = {stage: STAGE_SECONDS.labels(stage) for stage in STAGES[1:]}
_api_child = cache(API_REQUESTS.labels)


def observe_request(verb: str, code: int | None, seconds: float) -> None:
    """One request to the API; what lasts as long as it lasts counts where it fails only."""
    if verb not in STREAMS or code is None or code >= 300:
        _api_child(verb, NO_ANSWER if code is None else str(code)).observe(seconds)


def count_ending(target: str, pairs: Iterable[tuple[str, str]]) -> None:
    """The end of one event: what was written of it, to the results or (`dlq`) to the dead letters.

    The type of a refused one is `other` where its entry says none of ours.
    """
    named = dict(pairs)
    if target == "results":
        EVENTS.labels(named.get("type", OTHER), named.get("status", OTHER)).inc()
        return
    kind = dict(load_entry(named.get("entry", "[]"))).get(b"type", b"").decode(errors="replace")
    EVENTS.labels(kind if kind in get_args(EventType) else OTHER, REFUSED_AS).inc()
    DEAD_LETTERS.labels(named.get("cause", OTHER)).inc()


def count_attempt(outcome: str, cause: str, *, is_retried: bool) -> None:
    """The end of one attempt of a worker, which is the worker's own where there will be no other."""
    if is_retried:
        RETRIES.labels(cause).inc()
    else:
        WORKERS.labels(outcome, cause).inc()


class StageClock:
    """When an event or a worker reached its last stage; each further one is timed from there.

    `stage` and `at` (Unix s) tell where it is; a clock without them is begun by the first stage that it hears of.
    Stages that were passed over add no time of their own. `on_gap` is told of each gap, too: the stage that ended it,
    when it began and when it ended.
    """

    __slots__ = ("_at", "_on_gap", "_place")

    def __init__(
        self, stage: str = "", at: float = 0.0, on_gap: Callable[[str, float, float], None] | None = None
    ) -> None:
        self._place = STAGES.index(stage) if stage else -1
        self._at = at
        self._on_gap = on_gap

    def __repr__(self) -> str:
        return f"<StageClock {STAGES[self._place] if self._place >= 0 else 'not begun'}>"

    def reach(self, stage: str, at: float) -> None:
        """It is there, since `at` (Unix s); a stage that it has passed already is no news."""
        place = STAGES.index(stage)
        if place <= self._place:
            return
        if self._place >= 0:
            _STAGE[stage].observe(max(0.0, at - self._at))
            if self._on_gap is not None:
                self._on_gap(stage, self._at, max(at, self._at))
        self._place, self._at = place, max(at, self._at)

    def skip(self, stage: str, at: float) -> None:
        """It is there since `at`, and the way there was timed by an earlier owner, or by nobody."""
        self._place, self._at = max(self._place, STAGES.index(stage)), at


class Meaning(NamedTuple):
    """What the table in docs/metrics.md says of one metric."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


def kept_metrics() -> list[Meaning]:
    """Each metric that is kept here, in the order of this file."""
    return [_describe(each) for each in globals().values() if isinstance(each, Counter | Histogram)]


def _describe(metric: Counter | Histogram) -> Meaning:
    (family,) = metric.describe()
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return Meaning(name, family.type, metric._labelnames, family.documentation)
