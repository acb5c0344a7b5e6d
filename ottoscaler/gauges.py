"""What is looked up only when somebody asks for the metrics: a function each of one scaler's `Vitals`."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import trio
from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as TEXT_FORMAT
from prometheus_client.registry import Collector

from ottoscaler import __version__
from ottoscaler.drain import Drain
from ottoscaler.kube.watch import WatchState
from ottoscaler.metrics import REGISTRY, Meaning
from ottoscaler.pods import PodRecord
from ottoscaler.spine.poller import Poller
from ottoscaler.spine.roster import Roster
from ottoscaler.spine.site import Site
from ottoscaler.stream.backlog import Backlog
from ottoscaler.stream.session import Session
from ottoscaler.supervisor import Supervisor

__all__ = ["GAUGES", "TEXT_FORMAT", "Vitals", "exposition", "looked_up_metrics"]


@dataclass(slots=True)
class Vitals:
    """What can be looked at of one life of the service; `is_ready` once it has begun to take events in."""

    site: Site
    roster: Roster
    session: Session
    supervisor: Supervisor
    poller: Poller
    watch: WatchState
    drain: Drain
    is_ready: bool = False


class Gauge(NamedTuple):
    """`read` gives a number, one for each value of `label`, or None where it is unknown: then it is absent."""

    name: str
    meaning: str
    read: Callable[[Vitals, Backlog | None], float | Mapping[str, float] | None]
    label: str = ""


def _workers(vitals: Vitals, _: Backlog | None) -> Mapping[str, float]:
    states = Counter(dict.fromkeys(("queued", "pending", "running", "ended", "deleting", "unknown"), 0))
    states["queued"] = sum(work.queued for work in vitals.roster)
    roster = vitals.roster
    states.update(_state(each) for each in vitals.site.fleet.records.values() if each.event_id in roster)
    return states


def _state(record: PodRecord) -> str:
    if record.deleting:
        return "deleting"
    if record.is_final or record.exit_code is not None:
        return "ended"
    return record.phase.lower() if record.phase in ("Pending", "Running") else "unknown"


def _pods(vitals: Vitals, _: Backlog | None) -> Mapping[str, float]:
    phases = dict.fromkeys(("Pending", "Running", "Succeeded", "Failed", "Unknown"), 0)
    return {**phases, **vitals.site.fleet.statistics().phases}


def _watch_age(vitals: Vitals, _: Backlog | None) -> float | None:
    age = trio.current_time() - vitals.watch.heard_at
    return age if age < float("inf") else None


def _logs_followed(vitals: Vitals, _: Backlog | None) -> float | None:
    logs = vitals.site.logs.statistics()
    return logs and logs.workers


def _logs_waiting(vitals: Vitals, _: Backlog | None) -> Mapping[str, float] | None:
    logs = vitals.site.logs.statistics()
    return logs and {"memory": logs.memory, "disk": logs.disk}


def _logs_taken(vitals: Vitals, _: Backlog | None) -> float | None:
    logs = vitals.site.logs.statistics()
    return logs and logs.is_taken


GAUGES = (
    Gauge(
        "ottoscaler_workers",
        "Workers of the events in work here: queued for a slot, or as their pods are.",
        _workers,
        "state",
    ),
    Gauge("ottoscaler_pods", "Pods of this instance that the watch shows, whichever replica's.", _pods, "phase"),
    Gauge(
        "ottoscaler_leases_held",
        "Events held here: working, settling (only deletes are left), control (scale_down, cancel), or pipelines.",
        lambda vitals, _: vitals.roster.statistics()._asdict(),
        "state",
    ),
    Gauge("ottoscaler_worker_slots_used", "Worker slots in use.", lambda vitals, _: vitals.site.slots.used),
    Gauge("ottoscaler_worker_slots_limit", "Worker slots there are.", lambda vitals, _: vitals.site.slots.limit),
    Gauge("ottoscaler_api_writes_used", "Writes under way to the API.", lambda vitals, _: vitals.site.writes.used),
    Gauge(
        "ottoscaler_api_writes_limit",
        "Writes that may be under way; fewer after the API said that it has too many.",
        lambda vitals, _: vitals.site.writes.limit,
    ),
    Gauge(
        "ottoscaler_api_writes_waiting",
        "Writes that wait for their turn.",
        lambda vitals, _: vitals.site.writes.statistics().waiting,
    ),
    Gauge("ottoscaler_watch_age_seconds", "Since the API last said something about our pods.", _watch_age),
    Gauge(
        "ottoscaler_redis_reachable",
        "1 while the lease in Redis holds, else 0.",
        lambda vitals, _: vitals.session.is_valid(),
    ),
    Gauge(
        "ottoscaler_api_reachable",
        "1 while the watch of pods is alive, else 0.",
        lambda vitals, _: not vitals.watch.trouble(),
    ),
    Gauge(
        "ottoscaler_otto_handler_reachable",
        "0 while otto-handler (with LOG_SINK=stdout: whoever reads it) is sent logs or states of workers and has "
        "answered nothing for 5 s, else 1; absent where logs are not forwarded.",
        _logs_taken,
    ),
    Gauge(
        "ottoscaler_logs_followed",
        "Workers whose logs are followed or still being forwarded; absent where logs are not forwarded.",
        _logs_followed,
    ),
    Gauge(
        "ottoscaler_logs_waiting_bytes",
        "What was read of workers' logs and is not acknowledged yet, in memory or in the spool on disk; absent where "
        "logs are not forwarded.",
        _logs_waiting,
        "place",
    ),
    Gauge(
        "ottoscaler_draining", "1 once a drain has begun, else 0.", lambda vitals, _: vitals.drain.requested.is_set()
    ),
    Gauge(
        "ottoscaler_stream_entries",
        "Entries in the event stream; absent where Redis did not say.",
        lambda _, backlog: backlog.entries if backlog else None,
    ),
    Gauge(
        "ottoscaler_events_waiting",
        "Events that nobody holds: not read yet, or offered; absent where Redis does not know.",
        lambda _, backlog: backlog.waiting if backlog else None,
    ),
    Gauge(
        "ottoscaler_oldest_waiting_seconds",
        "Age of the oldest of these, 0 where there are none; absent where Redis does not know.",
        lambda _, backlog: backlog.oldest_age if backlog else None,
    ),
)

BUILD_INFO = ("ottoscaler_build_info", "Always 1; version of Ottoscaler and of Python.")


class _Looked(Collector):
    """Gauges at one instant, behind the metrics that are kept."""

    def __init__(self, vitals: Vitals | None, backlog: Backlog | None) -> None:
        self._vitals = vitals
        self._backlog = backlog

    def collect(self) -> Iterable[Metric]:
        """Everything there is."""
        return chain(REGISTRY.collect(), [_build_info()], self._look())

    def _look(self) -> Iterable[GaugeMetricFamily]:
        for gauge in GAUGES if self._vitals is not None else ():
            assert self._vitals is not None
            value = gauge.read(self._vitals, self._backlog)
            family = GaugeMetricFamily(gauge.name, gauge.meaning, labels=[gauge.label] if gauge.label else None)
            if isinstance(value, Mapping):
                for label, number in value.items():
                    family.add_metric([label], number)
            elif value is not None:
                family.add_metric([], float(value))
            yield family


def _build_info() -> GaugeMetricFamily:
    family = GaugeMetricFamily(*BUILD_INFO, labels=["version", "python"])
    family.add_metric([__version__, platform.python_version()], 1)
    return family


def looked_up_metrics() -> list[Meaning]:
    """Each metric that is looked up here, in the order of this file."""
    gauges = [Meaning(each.name, "gauge", (each.label,) if each.label else (), each.meaning) for each in GAUGES]
    return [*gauges, Meaning(BUILD_INFO[0], "gauge", ("version", "python"), BUILD_INFO[1])]


def exposition(vitals: Vitals | None, backlog: Backlog | None) -> bytes:
    """All metrics as text (`TEXT_FORMAT`); without `vitals`, at the start, only those that are kept."""
    return generate_latest(_Looked(vitals, backlog))
