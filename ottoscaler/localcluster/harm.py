"""What befalls pods in a cluster: eviction, preemption, a lost node, deletion by hand, a killed process.

Each function is synchronous, does what the recorded control plane did, in its order, and leaves the rest to the
kubelet: DisruptionTarget first, then deletionTimestamp, then the container's end, then DELETED. `harms` is
what the control endpoint offers to those outside the process. All raise NotFound where there is no such pod.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ottoscaler.localcluster.deletion import DeleteOptions, delete_object
from ottoscaler.localcluster.kubelet import Kubelet
from ottoscaler.localcluster.resources import PODS
from ottoscaler.localcluster.statuses import TERMINAL_PHASES
from ottoscaler.localcluster.store import NotFound, Store, format_time

Json = dict[str, Any]
_UNREACHABLE = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}


def evict(store: Store, kubelet: Kubelet, namespace: str, name: str, grace: int | None = None) -> None:
    """What the Eviction API does; `grace` in seconds, None: the pod's own."""
    condition = {"reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"}
    _add_condition(store, namespace, name, condition, observed=False)
    delete_object(store, PODS, namespace, name, DeleteOptions(grace))


def preempt(store: Store, kubelet: Kubelet, namespace: str, name: str, by: str = "a higher priority pod") -> None:
    """What the scheduler does to make room for a more important pod."""
    message = "default-scheduler: preempting to accommodate a higher priority pod"
    _add_condition(store, namespace, name, {"reason": "PreemptionByScheduler", "message": message})
    said = f"Preempted by {by} on node {kubelet.node.name}"
    pod = store.get("pods", namespace, name)
    kubelet.node.events.emit_scheduler(pod, "Preempted", said, kind="Normal", action="Preempting")
    delete_object(store, PODS, namespace, name)


def delete_by_hand(store: Store, kubelet: Kubelet, namespace: str, name: str, grace: int | None = None) -> None:
    """What `kubectl delete pod` does; `grace` 0: gone from the API at once, its processes killed."""
    store.get("pods", namespace, name)  # what is not there is NotFound here, not the API's refusal
    delete_object(store, PODS, namespace, name, DeleteOptions(grace))


def kill(store: Store, kubelet: Kubelet, namespace: str, name: str, container: str = "") -> None:
    """Signal 9 from outside to the pod's containers, or to one: 137, Error."""
    kubelet.kill_containers(namespace, name, container=container)


def run_out_of_memory(store: Store, kubelet: Kubelet, namespace: str, name: str, container: str = "") -> None:
    """As if the containers, or one, had gone beyond their memory limit: 137, OOMKilled."""
    kubelet.kill_containers(namespace, name, container=container, out_of_memory=True)


def rotate_log(store: Store, kubelet: Kubelet, namespace: str, name: str) -> None:
    """What the kubelet does to a log that is too large: a new file, the only one served from now on."""
    kubelet.rotate_logs(namespace, name)


def skipped_lines(store: Store, kubelet: Kubelet) -> dict[str, int]:
    """No harm: how many lines rotations kept from those who followed a log."""
    return {"skipped": kubelet.skipped_lines()}


def node_lost(store: Store, kubelet: Kubelet, *, evicting: bool = True) -> None:
    """The node falls silent: its pods are not Ready and, if `evicting`, marked by `evict_from_lost_node` at once.

    They stay Running and are never DELETED until `node_back`: nobody knows whether they run. They do.
    """
    kubelet.fall_silent()
    _set_node_ready(store, kubelet, ready=False)
    for pod in _living_pods(store, kubelet):
        metadata = pod["metadata"]
        store.update("pods", metadata["namespace"], metadata["name"], partial(_set_unready, store))
        kubelet.node.events.emit(pod, "NodeNotReady", "Node is not ready", kind="Warning")
    if evicting:
        evict_from_lost_node(store, kubelet)


def evict_from_lost_node(store: Store, kubelet: Kubelet) -> None:
    """What the taint manager does when tolerations run out (300 s in a real cluster unless a pod says otherwise)."""
    for pod in _living_pods(store, kubelet):
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        said = f"Marking for deletion Pod {namespace}/{name}"
        kubelet.node.events.emit(pod, "TaintManagerEviction", said)
        message = "Taint manager: deleting due to NoExecute taint"
        _add_condition(store, namespace, name, {"reason": "DeletionByTaintManager", "message": message})
        delete_object(store, PODS, namespace, name)


def node_back(store: Store, kubelet: Kubelet) -> None:
    """The silent node is heard again: statuses come anew, and what was deleted meanwhile is ended and removed."""
    _set_node_ready(store, kubelet, ready=True)
    kubelet.come_back()


def harms(store: Store, kubelet: Kubelet) -> dict[str, Callable[..., object]]:
    """All of the above by the name under which the control endpoint offers them, taking JSON's keyword arguments."""
    functions: dict[str, Callable[..., object]] = {
        "evict": evict,
        "preempt": preempt,
        "delete": delete_by_hand,
        "kill": kill,
        "out-of-memory": run_out_of_memory,
        "rotate-log": rotate_log,
        "skipped-lines": skipped_lines,
        "node-lost": node_lost,
        "evict-from-lost-node": evict_from_lost_node,
        "node-back": node_back,
    }
    return {name: partial(function, store, kubelet) for name, function in functions.items()}


def _living_pods(store: Store, kubelet: Kubelet) -> list[Json]:
    bound = [pod for pod in store.list("pods") if pod["spec"].get("nodeName") == kubelet.node.name]
    return [pod for pod in bound if pod["status"]["phase"] not in TERMINAL_PHASES]


def _add_condition(store: Store, namespace: str, name: str, what: Json, *, observed: bool = True) -> None:
    """Add DisruptionTarget as the last condition; `observed`: with observedGeneration."""

    def change(pod: Json) -> None:
        conditions = pod["status"].setdefault("conditions", [])
        condition: Json = {"type": "DisruptionTarget"}
        if observed:
            condition["observedGeneration"] = pod["metadata"].get("generation", 1)
        condition |= {"status": "True", "lastProbeTime": None, "lastTransitionTime": format_time(store.now())}
        conditions[:] = [other for other in conditions if other["type"] != "DisruptionTarget"] + [condition | what]

    store.update("pods", namespace, name, change)


def _set_unready(store: Store, pod: Json) -> None:
    """What the node controller does to the pods of a silent node: Ready is False, without a reason."""
    for condition in pod["status"].get("conditions", []):
        if condition["type"] == "Ready" and condition["status"] == "True":
            condition |= {"status": "False", "lastTransitionTime": format_time(store.now())}


def _set_node_ready(store: Store, kubelet: Kubelet, *, ready: bool) -> None:
    now = format_time(store.now())
    verdict = {"status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status"}
    if not ready:
        message = "Kubelet stopped posting node status."
        verdict = {"status": "Unknown", "reason": "NodeStatusUnknown", "message": message}

    def change(node: Json) -> None:
        for condition in node["status"]["conditions"]:
            if condition["type"] == "Ready" and condition["status"] != verdict["status"]:
                condition |= verdict | {"lastTransitionTime": now}
        node["spec"].pop("taints", None)
        if not ready:
            node["spec"]["taints"] = [_UNREACHABLE | {"timeAdded": now}]

    try:
        store.update("nodes", "", kubelet.node.name, change)
    except NotFound:  # the node's object was deleted through the API
        return
