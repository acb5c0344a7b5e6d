"""The fields that the API fills in when an object is created, as the recorded server does."""

from __future__ import annotations

import secrets
from typing import Any

from .canonical import canonical_quantity
from .resources import Resource

_NAME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # no vowels: no generated name spells a word
_TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_NOT_READY_SECONDS = 300
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


def generate_name(prefix: str) -> str:
    """A name of `generateName` and five random letters; the prefix is cut so that it fits."""
    return prefix[:58] + "".join(secrets.choice(_NAME_LETTERS) for _ in range(5))


def set_defaults(resource: Resource, obj: dict[str, Any]) -> None:
    """Fill in what the kind has defaults for, in place."""
    match resource.plural:
        case "pods":
            _set_pod_defaults(obj)
        case "namespaces":
            obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"]["name"]
            obj["spec"] = {"finalizers": ["kubernetes"]}
            obj["status"] = {"phase": "Active"}
        case "resourcequotas":
            obj.setdefault("status", {})
        case "secrets":
            obj.setdefault("type", "Opaque")


def _set_pod_defaults(pod: dict[str, Any]) -> None:
    pod["metadata"]["generation"] = 1
    spec = pod["spec"]
    defaults: dict[str, Any] = {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "default-scheduler",
        "enableServiceLinks": True,
    }
    for field, value in defaults.items():
        spec.setdefault(field, value)
    for container in [*spec.get("initContainers", []), *spec.get("containers", [])]:
        _set_container_defaults(container)
    for volume in spec.get("volumes", []):
        _set_volume_defaults(volume)
    pod["status"] = {"phase": "Pending", "qosClass": quality_of_service(spec)}


def _set_container_defaults(container: dict[str, Any]) -> None:
    image = container.get("image", "")
    tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
    is_latest = "@" not in image and tag in ("", "latest")
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    container.setdefault("imagePullPolicy", "Always" if is_latest else "IfNotPresent")
    resources = container.setdefault("resources", {})
    for name, limit in resources.get("limits", {}).items():
        resources.setdefault("requests", {}).setdefault(name, limit)
    for port in container.get("ports", []):
        port.setdefault("protocol", "TCP")
    for variable in container.get("env", []):
        if "fieldRef" in (variable.get("valueFrom") or {}):
            variable["valueFrom"]["fieldRef"].setdefault("apiVersion", "v1")
    for probe in (container[name] for name in _PROBES if name in container):
        for field, value in (("timeoutSeconds", 1), ("periodSeconds", 10)):
            probe.setdefault(field, value)
        for field, value in (("successThreshold", 1), ("failureThreshold", 3)):
            probe.setdefault(field, value)


def _set_volume_defaults(volume: dict[str, Any]) -> None:
    for source in ("secret", "configMap", "projected", "downwardAPI"):
        if source in volume:
            volume[source].setdefault("defaultMode", 420)


def admit_pod_fields(pod: dict[str, Any], priority: int = 0, preemption: str = "PreemptLowerPriority") -> None:
    """What the standard admission plugins add to a new pod: service account, its token, tolerations, priority."""
    spec = pod["spec"]
    account = spec.setdefault("serviceAccountName", "default")
    spec["serviceAccount"] = account
    if spec.get("automountServiceAccountToken", True):
        _mount_token(spec)
    tolerations = spec.setdefault("tolerations", [])
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(t.get("key") in (key, None, "") and t.get("effect") in ("NoExecute", None, "") for t in tolerations):
            tolerations.append(
                {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _NOT_READY_SECONDS}
            )
    spec["priority"] = priority
    spec.setdefault("preemptionPolicy", preemption)


def _mount_token(spec: dict[str, Any]) -> None:
    name = generate_name("kube-api-access-")
    containers = [*spec.get("initContainers", []), *spec["containers"]]
    bare = [c for c in containers if all(m.get("mountPath") != _TOKEN_PATH for m in c.get("volumeMounts", []))]
    if not bare:
        return
    for container in bare:
        container.setdefault("volumeMounts", []).append({"name": name, "readOnly": True, "mountPath": _TOKEN_PATH})
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]
    spec.setdefault("volumes", []).append({"name": name, "projected": {"sources": sources, "defaultMode": 420}})


def quality_of_service(spec: dict[str, Any]) -> str:
    """Guaranteed, Burstable or BestEffort, from the containers' requests and limits of CPU and memory."""
    containers = [*spec.get("initContainers", []), *spec.get("containers", [])]
    shares = [
        (_amount(container, "requests", name), _amount(container, "limits", name))
        for container in containers
        for name in ("cpu", "memory")
    ]
    if all(request == limit == "0" for request, limit in shares):
        return "BestEffort"
    return "Guaranteed" if all(request == limit != "0" for request, limit in shares) else "Burstable"


def _amount(container: dict[str, Any], kind: str, name: str) -> str:
    return canonical_quantity(container.get("resources", {}).get(kind, {}).get(name, "0"))
