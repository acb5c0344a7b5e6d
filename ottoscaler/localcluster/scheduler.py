"""Binds pods to the one node, or says why it does not, as the recorded scheduler does.

The node is never full: each pod's requests are compared with what the node has in all. Affinity between pods,
taints other than a silent node's, and priorities are not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio

from ottoscaler.localcluster.node import Node, node_labels
from ottoscaler.localcluster.quantities import as_bytes, as_millicores, pod_resources
from ottoscaler.localcluster.store import NotFound

Json = dict[str, Any]
NO_NODE = "0/1 nodes are available: "
_NO_HELP = f". no new claims to deallocate, preemption: {NO_NODE}1 Preemption is not helpful for scheduling."
_SELECTOR = "node(s) didn't match Pod's node affinity/selector"


class Scheduler:
    """Places every pod that has no node; run it beside the kubelet."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Place what is there and what comes, for ever."""
        with self._node.store.subscribe("pods") as changes:
            self.place_all()
            task_status.started()
            async for change in changes:
                if change.type != "DELETED":
                    self.place(change.object)

    def place_all(self) -> None:
        """Look again at every pod that has no node, as when the node came back."""
        for pod in self._node.store.list("pods"):
            self.place(pod)

    def place(self, pod: Json) -> None:
        """Bind one pod, or write why it stays unscheduled; pods with a node or another scheduler are left alone."""
        spec = pod["spec"]
        if spec.get("nodeName") or spec.get("schedulerName", "default-scheduler") != "default-scheduler":
            return
        if spec.get("schedulingGates") or "deletionTimestamp" in pod["metadata"]:
            return
        refusal = self._refusal(pod)
        name = pod["metadata"]["name"]
        key = (pod["metadata"]["namespace"], name)
        try:
            if refusal is None:
                bound = self._node.store.update("pods", *key, self._bind)
                message = f"Successfully assigned {key[0]}/{name} to {self._node.name}"
                if not _is_simulated(bound):
                    self._node.events.emit_scheduler(pod, "Scheduled", message, kind="Normal", action="Binding")
            else:
                self._node.store.update("pods", *key, lambda copy: self._refuse(copy, refusal))
                self._node.events.emit_scheduler(pod, "FailedScheduling", refusal, kind="Warning", action="Scheduling")
        except NotFound:  # deleted since
            return

    def _refusal(self, pod: Json) -> str | None:
        spec = pod["spec"]
        for volume in spec.get("volumes", []):
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                return f'{NO_NODE}persistentvolumeclaim "{claim}" not found. not found'
        if self._node.silent:
            return f"{NO_NODE}1 node(s) had untolerated taint(s){_NO_HELP}"
        settings = self._node.settings
        if not fits_selector(spec, node_labels(self._node.name, settings)):
            return f"{NO_NODE}1 {_SELECTOR}{_NO_HELP}"
        for resource, asked, room in shortages(spec, {"cpu": settings.cpu, "memory": settings.memory}):
            if asked > room:
                return f"{NO_NODE}1 Insufficient {resource}{_NO_HELP}"
        return None

    def _bind(self, pod: Json) -> None:
        pod["spec"]["nodeName"] = self._node.name
        _set_scheduled(pod, {"status": "True"}, self._node.now)

    def _refuse(self, pod: Json, message: str) -> None:
        generation = {"observedGeneration": pod["metadata"].get("generation", 1)}
        verdict = {"status": "False", "reason": "Unschedulable", "message": message}
        _set_scheduled(pod, generation | verdict, self._node.now)


def admission_refusal(spec: Json, node: Node) -> tuple[str, str] | None:
    """(reason, message) where a node refuses a pod that was bound to it by name, or None."""
    for resource, asked, room in shortages(spec, {"cpu": node.settings.cpu, "memory": node.settings.memory}):
        if asked > room:
            numbers = f"requested: {asked}, used: 0, capacity: {room}"
            return f"OutOf{resource}", f"Node didn't have enough resource: {resource}, {numbers}"
    if not fits_selector(spec, node_labels(node.name, node.settings)):
        return "NodeAffinity", f"Predicate NodeAffinity failed: {_SELECTOR}"
    return None


def shortages(spec: Json, room: Mapping[str, str]) -> list[tuple[str, int, int]]:
    """(resource, requested, capacity) of cpu in millicores and memory in bytes."""
    requests = pod_resources(spec, "requests")
    units = (("cpu", as_millicores), ("memory", as_bytes))
    return [(resource, unit(requests.get(resource, "0")), unit(room[resource])) for resource, unit in units]


def fits_selector(spec: Json, labels: Mapping[str, str]) -> bool:
    """Whether a node with these labels fits nodeSelector and the required node affinity."""
    if any(labels.get(key) != value for key, value in spec.get("nodeSelector", {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    terms = required["nodeSelectorTerms"]
    return any(all(_matches(rule, labels) for rule in term.get("matchExpressions", [])) for term in terms)


def _matches(rule: Json, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(rule["key"]), rule.get("values", [])
    match rule["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case _:  # Gt and Lt
            return False


def _is_simulated(pod: Json) -> bool:
    return (pod["metadata"].get("annotations") or {}).get("ottoscaler.local/simulate") == "true"


def _set_scheduled(pod: Json, verdict: Json, now: str) -> None:
    """Set the PodScheduled condition; its time changes with its status alone."""
    conditions = pod["status"].setdefault("conditions", [])
    old: Json = next((condition for condition in conditions if condition["type"] == "PodScheduled"), {})
    since = old["lastTransitionTime"] if old.get("status") == verdict["status"] else now
    order = ("observedGeneration", "status")
    condition = {"type": "PodScheduled"} | {key: verdict[key] for key in order if key in verdict}
    condition |= {"lastProbeTime": None, "lastTransitionTime": since}
    condition |= {key: verdict[key] for key in ("reason", "message") if key in verdict}
    conditions[:] = [other for other in conditions if other["type"] != "PodScheduled"] + [condition]
