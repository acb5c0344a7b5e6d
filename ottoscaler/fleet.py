"""The fleet: what is known of every pod of ours, fed by one watch, read and waited on by everybody.

Owned by the service. In: a whole list (`replace`) and single changes (`apply`) from the watch, and what the API
answered to a create or a get (`learn`). Out: slim records, never whole pods; waiters are woken by values, nothing
polls. All changes happen in plain sync calls, so a record, the index and the waiters are never seen half done. It ends
with the process; it holds nothing that must be closed.
"""

from __future__ import annotations

import heapq
import sys
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple, cast

import msgspec
import trio
from trio_util import AsyncValue

from ottoscaler.pods import Pod
from ottoscaler.pods import PodRecord as PodRecord

TOMBSTONES = 4096
"""So many deleted pods are remembered: to know a late answer from news, and for who takes their event over."""


class Follow:
    """One pod followed by name, whether it exists yet or not; made by `Fleet.follow`."""

    def __init__(self, name: str, record: PodRecord | None) -> None:
        self.name = name
        self._value: AsyncValue[PodRecord | None] = AsyncValue(record)

    def __repr__(self) -> str:
        return f"<Follow {self.name}: {self.record!r}>"

    @property
    def record(self) -> PodRecord | None:
        """The newest record; after a deletion the last one, with `gone` set; None while the pod was never seen."""
        return cast("PodRecord | None", self._value.value)

    async def wait(self, predicate: Callable[[PodRecord | None], bool]) -> PodRecord | None:
        """Wait until the record meets `predicate`, at once if it does; returns the record that met it."""
        met = await self._value.wait_value(predicate)
        return cast("PodRecord | None", met)


class FleetStatistics(NamedTuple):
    """A snapshot: pods known, how many in each phase, pods followed, the version, and whether it was ever synced."""

    pods: int
    phases: Mapping[str, int]
    followed: int
    version: int
    synced: bool


class Fleet:
    """Records of all pods of one instance, by name and by event, at one resource version."""

    def __init__(self) -> None:
        self._records: dict[str, PodRecord] = {}
        self._by_event: defaultdict[str, set[str]] = defaultdict(set)
        self._follows: dict[str, list[Follow]] = {}
        self._tombstones: OrderedDict[str, int] = OrderedDict()  # uid → version of its deletion
        self._last_seen: OrderedDict[str, PodRecord] = OrderedDict()  # name → what the pod was when it went
        self._version = 0
        self._answered = 0  # newest version that an answer has shown
        self._waiting_for_version: list[tuple[int, int, trio.Event]] = []
        self._synced = trio.Event()
        self.records: Mapping[str, PodRecord] = MappingProxyType(self._records)

    def __repr__(self) -> str:
        return f"<Fleet of {len(self._records)} pods at version {self._version}{'' if self.synced else ', not synced'}>"

    @property
    def version(self) -> int:
        """The resource version up to which list and watch have told everything; 0 before the first list."""
        return self._version

    @property
    def newest(self) -> int:
        """The newest version that anybody was told: no list that is asked for from now on is older."""
        return max(self._version, self._answered)

    @property
    def synced(self) -> bool:
        """Whether a whole list was ever seen."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Wait for the first whole list."""
        await self._synced.wait()

    def replace(self, pods: Iterable[Pod | PodRecord], version: int, *, rewound: bool = False) -> None:
        """Take over a whole list as of `version`; pods that are not in it are reported as gone.

        Records newer than the list stay: something newer was seen meanwhile. `rewound` says that the server's
        history went back (restored, another server): then the list alone counts, and waiters for versions end.
        """
        if rewound:
            self._tombstones.clear()
            self._last_seen.clear()
            self._version = self._answered = 0
        listed: set[str] = set()
        for pod in pods:
            record = _as_record(pod)
            listed.add(record.uid)
            self._keep(record, force=rewound)
        for record in [r for r in self._records.values() if r.uid not in listed]:
            if rewound or record.resource_version <= version:
                self._bury(record.uid, version)
                self._drop(record)
        self._advance(sys.maxsize if rewound else version)
        self._version = version if rewound else max(self._version, version)
        self._synced.set()

    def apply(self, type: str, pod: Pod | PodRecord) -> None:  # noqa: A002 - the watch event's own word
        """Take over one event of the watch: ADDED, MODIFIED, DELETED or BOOKMARK; what is not news changes nothing."""
        record = _as_record(pod, gone=type == "DELETED")
        if type == "DELETED":
            is_stale = self._is_stale(record)
            self._bury(record.uid, record.resource_version)
            if not is_stale:
                self._drop(record)
        elif type in ("ADDED", "MODIFIED"):
            self._keep(record)
        self._advance(record.resource_version)

    def learn(self, pod: Pod | PodRecord) -> None:
        """Take over what the API answered to a create or get; it tells nothing of other pods, so no version passes.

        A pod of a version that list and watch have already passed, and which they do not know, is gone: ignored.
        """
        record = _as_record(pod)
        if record.resource_version > self._version or self._is_known(record):
            self._answered = max(self._answered, record.resource_version)
            self._keep(record)

    async def wait_version(self, version: int) -> None:
        """Wait until list and watch have told everything up to `version`; a rewound history ends the wait too."""
        if self._version >= version:
            await trio.lowlevel.checkpoint()
            return
        event = trio.Event()
        heapq.heappush(self._waiting_for_version, (version, id(event), event))
        await event.wait()

    @contextmanager
    def follow(self, name: str) -> Iterator[Follow]:
        """Follow the pod of this name for the time of the block, be it one that has gone by now: an owner may have died
        before it recorded that the pod ever was.
        """
        follow = Follow(name, self._records.get(name) or self._last_seen.get(name))
        self._follows.setdefault(name, []).append(follow)
        try:
            yield follow
        finally:
            self._follows[name].remove(follow)
            if not self._follows[name]:
                del self._follows[name]

    def pods_of_event(self, event_id: str) -> list[PodRecord]:
        """The records of one event's pods, in no order; costs as much as the event has pods."""
        return [self._records[name] for name in self._by_event.get(event_id, ())]

    def statistics(self) -> FleetStatistics:
        """A snapshot of the numbers."""
        phases = Counter(record.phase or "Unknown" for record in self._records.values())
        return FleetStatistics(len(self._records), dict(phases), len(self._follows), self._version, self.synced)

    def _is_known(self, record: PodRecord) -> bool:
        known = self._records.get(record.name)
        return known is not None and known.uid == record.uid

    def _is_stale(self, record: PodRecord) -> bool:
        """Whether we know as much or more: of this uid, of its deletion, or of a younger pod of the same name."""
        if record.resource_version <= self._tombstones.get(record.uid, -1):
            return True
        known = self._records.get(record.name)
        if known is None:
            return False
        if record.gone and record.uid == known.uid:  # one that left the selector may come with its previous version
            return record.resource_version < known.resource_version
        return record.resource_version <= known.resource_version

    def _keep(self, record: PodRecord, *, force: bool = False) -> None:
        if not force and self._is_stale(record):
            return
        known = self._records.get(record.name)
        if known is not None and known.uid != record.uid:
            self._bury(known.uid, record.resource_version)
            self._drop(known)
        elif known is not None and known.event_id != record.event_id:
            self._forget_of_event(known)
        self._tombstones.pop(record.uid, None)
        self._last_seen.pop(record.name, None)
        self._records[record.name] = record
        if record.event_id:
            self._by_event[record.event_id].add(record.name)
        self._tell(record)

    def _bury(self, uid: str, version: int) -> None:
        """Remember that a pod was deleted at `version`: what comes later about an earlier time is no news."""
        self._tombstones[uid] = max(version, self._tombstones.get(uid, 0))
        if len(self._tombstones) > TOMBSTONES:
            self._tombstones.popitem(last=False)

    def _drop(self, record: PodRecord) -> None:
        """Forget a pod; its followers get its last record as gone."""
        known = self._records.get(record.name)
        if known is not None and known.uid == record.uid:
            del self._records[record.name]
            self._forget_of_event(known)
        if known is None or known.uid == record.uid:
            last = record if record.gone else msgspec.structs.replace(record, gone=True, is_unseen=True)
            self._last_seen[record.name] = last
            if len(self._last_seen) > TOMBSTONES:
                self._last_seen.popitem(last=False)
            self._tell(last)

    def _forget_of_event(self, record: PodRecord) -> None:
        names = self._by_event.get(record.event_id)
        if names is not None:
            names.discard(record.name)
            if not names:
                del self._by_event[record.event_id]

    def _tell(self, record: PodRecord) -> None:
        for follow in self._follows.get(record.name, ()):
            follow._value.value = record

    def _advance(self, version: int) -> None:
        """Count the version up, and wake whom it concerns."""
        if version != sys.maxsize:
            self._version = max(self._version, version)
        while self._waiting_for_version and self._waiting_for_version[0][0] <= version:
            heapq.heappop(self._waiting_for_version)[2].set()


def _as_record(pod: Pod | PodRecord, *, gone: bool = False) -> PodRecord:
    if isinstance(pod, PodRecord):
        return msgspec.structs.replace(pod, gone=True) if gone and not pod.gone else pod
    return PodRecord.from_pod(pod, gone=gone)
