"""Events about pods, as `kubectl describe` shows them: recorded in the store, repeated ones counted."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Literal

from ottoscaler.localcluster.store import AlreadyExists, NotFound, Store, format_time

Json = dict[str, Any]
EVENTS_KEPT = 5_000  # in place of the hour that a real cluster keeps them

_Key = tuple[str, str, str, str]


class PodEvents:
    """Writes events of one node's kubelet and of the scheduler; the oldest are removed beyond EVENTS_KEPT."""

    def __init__(self, store: Store, node_name: str) -> None:
        self._store = store
        self._node_name = node_name
        self._names: OrderedDict[_Key, tuple[str, str]] = OrderedDict()
        self._count = 0

    def emit(
        self,
        pod: Json,
        reason: str,
        message: str,
        *,
        kind: Literal["Normal", "Warning"] = "Normal",
        container: str = "",
    ) -> None:
        """Say something as the kubelet; `container` is a field path, as `spec.containers{worker}`."""
        key = (pod["metadata"]["uid"], container, reason, message)
        if not self._count_again(key):
            now = format_time(self._store.now())
            times = {"firstTimestamp": now, "lastTimestamp": now, "count": 1, "eventTime": None}
            speaker: Json = {"source": {"component": "kubelet", "host": self._node_name}}
            speaker |= {"reportingComponent": "kubelet", "reportingInstance": self._node_name}
            self._create(pod, key, {"reason": reason, "message": message, "type": kind, **times, **speaker})

    def emit_scheduler(self, pod: Json, reason: str, message: str, *, kind: str, action: str) -> None:
        """Say something as the scheduler, in the newer form of events."""
        key = (pod["metadata"]["uid"], "", reason, message)
        if key in self._names:
            return
        moment = self._store.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        times = {"firstTimestamp": None, "lastTimestamp": None, "eventTime": moment, "action": action}
        speaker: Json = {"source": {}, "reportingComponent": "default-scheduler"}
        speaker["reportingInstance"] = f"default-scheduler-{self._node_name}"
        self._create(pod, key, {"reason": reason, "message": message, "type": kind, **times, **speaker})

    def _count_again(self, key: _Key) -> bool:
        """Raise the count of the same event said before; whether there was one."""

        def change(event: Json) -> None:
            event["count"] += 1
            event["lastTimestamp"] = format_time(self._store.now())

        if key not in self._names:
            return False
        try:
            self._store.update("events", *self._names[key], change)
        except NotFound:
            del self._names[key]
            return False
        return True

    def _create(self, pod: Json, key: _Key, said: Json) -> None:
        metadata = pod["metadata"]
        self._count += 1
        stamp = int(self._store.now().timestamp() * 1e9) + self._count
        where = (metadata["namespace"], f"{metadata['name']}.{stamp:x}")
        about = {"kind": "Pod", "apiVersion": "v1", "namespace": where[0], "name": metadata["name"]}
        about |= {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        if key[1]:
            about["fieldPath"] = key[1]
        event = {"kind": "Event", "apiVersion": "v1", "metadata": {"namespace": where[0], "name": where[1]}}
        try:
            self._store.create("events", event | {"involvedObject": about} | said)
        except AlreadyExists:  # two clocks in one nanosecond: an event is not worth more
            return
        self._names[key] = where
        self._names.move_to_end(key)
        if len(self._names) > EVENTS_KEPT:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        _, where = self._names.popitem(last=False)
        try:
            self._store.remove("events", *where)
        except NotFound:  # deleted through the API
            return
