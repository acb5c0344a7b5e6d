"""What the API says about the columns of its tables: the words of the recorded server for pods, "" for others."""

from __future__ import annotations

_DESCRIPTIONS = {
    "Name": (
        "Name must be unique within a namespace. Is required when creating resources, although some reso"
        "urces may allow a client to request the generation of an appropriate name automatically. Name i"
        "s primarily intended for creation idempotence and configuration definition. Cannot be updated. "
        "More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names"
    ),
    "Ready": "The aggregate readiness state of this pod for accepting traffic.",
    "Status": "The aggregate status of the containers in this pod.",
    "Restarts": (
        "The number of times the containers in this pod have been restarted and when the last container "
        "in this pod has restarted."
    ),
    "Age": (
        "CreationTimestamp is a timestamp representing the server time when this object was created. It "
        "is not guaranteed to be set in happens-before order across separate operations. Clients may not"
        " set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Rea"
        "d-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architec"
        "ture/api-conventions.md#metadata"
    ),
    "IP": ("podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated."),
    "Node": (
        "NodeName indicates in which node this pod is scheduled. If empty, this pod is a candidate for s"
        "cheduling by the scheduler defined in schedulerName. Once this field is set, the kubelet for th"
        "is node becomes responsible for the lifecycle of this pod. This field should not be used to exp"
        "ress a desire for the pod to be scheduled on a specific node. https://kubernetes.io/docs/concep"
        "ts/scheduling-eviction/assign-pod-node/#nodename"
    ),
    "Nominated Node": (
        "nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be s"
        "cheduled right away as preemption victims receive their graceful termination periods. This fiel"
        "d does not guarantee that the pod will be scheduled on this node. Scheduler may decide to place"
        " the pod elsewhere if other nodes become available sooner. Scheduler may also decide to give th"
        "e resources on this node to a higher priority pod that is created after preemption. As a result"
        ", this field may be different than PodSpec.nodeName when the pod is scheduled."
    ),
    "Readiness Gates": (
        "If specified, all readiness gates will be evaluated for pod readiness. A pod is ready when all "
        "its containers are ready AND all conditions specified in the readiness gates have status equal "
        'to "True" More info: https://git.k8s.io/enhancements/keps/sig-network/580-pod-readiness-gates'
    ),
}


def describe(column: str) -> str:
    """The description of a column."""
    return _DESCRIPTIONS.get(column, "")
