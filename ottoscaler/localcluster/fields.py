"""The fields that objects have, and of which type: what makes "unknown field" warnings and unreadable bodies.

A shape is a type (`str`, `int`, `bool`), `[shape]` for a list, a dict of fields for an object (`"*"`: of any other
field, so `{"*": shape}` is a map), `quantity` or `moment` for texts with a form, None for what is taken as it is.
Pods are known to the depth that workers use; kinds without a shape are taken as they come below their metadata.
"""

from __future__ import annotations

import re
from typing import Any

from .canonical import BadQuantity, canonical_quantity
from .refusals import undecodable
from .resources import Resource

Shape = Any  # a recursive type that would say no more than the docstring above

quantity, moment, micro_moment = object(), object(), object()

_TEXTS: Shape = {"*": str}
_OBJECT: Shape = {"*": None, "": None}  # any object; other than a map it is kept when it is empty
_METADATA: Shape = {
    "name": str,
    "generateName": str,
    "namespace": str,
    "selfLink": str,
    "uid": str,
    "resourceVersion": str,
    "generation": int,
    "creationTimestamp": moment,
    "deletionTimestamp": moment,
    "deletionGracePeriodSeconds": int,
    "labels": _TEXTS,
    "annotations": _TEXTS,
    "ownerReferences": [None],
    "finalizers": [str],
    "managedFields": [None],
}
_RESOURCES: Shape = {"limits": {"*": quantity}, "requests": {"*": quantity}, "claims": [None]}
_PROBE: Shape = _OBJECT | dict.fromkeys(
    (
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
        "terminationGracePeriodSeconds",
    ),
    int,
)
_VOLUME: Shape = _OBJECT | {
    "name": str,
    "hostPath": _OBJECT,
    "emptyDir": _OBJECT,
    "secret": _OBJECT | {"secretName": str, "optional": bool, "defaultMode": int, "items": [_OBJECT]},
    "configMap": _OBJECT | {"name": str, "optional": bool, "defaultMode": int, "items": [_OBJECT]},
    "projected": _OBJECT | {"sources": [_OBJECT], "defaultMode": int},
    "downwardAPI": _OBJECT | {"items": [_OBJECT], "defaultMode": int},
    "persistentVolumeClaim": {"claimName": str, "readOnly": bool},
}
_CONTAINER_STATUS: Shape = _OBJECT | {
    "name": str,
    "ready": bool,
    "started": bool,
    "restartCount": int,
    "state": _OBJECT | dict.fromkeys(("waiting", "running", "terminated"), _OBJECT),
    "lastState": _OBJECT | dict.fromkeys(("waiting", "running", "terminated"), _OBJECT),
}
_POD_STATUS: Shape = _OBJECT | {
    "phase": str,
    "reason": str,
    "message": str,
    "conditions": [_OBJECT | {"type": str, "status": str}],
    "initContainerStatuses": [_CONTAINER_STATUS],
    "containerStatuses": [_CONTAINER_STATUS],
}
_KEY_REF: Shape = {"name": str, "key": str, "optional": bool}
_ENV: Shape = {
    "name": str,
    "value": str,
    "valueFrom": {
        "fieldRef": {"apiVersion": str, "fieldPath": str},
        "resourceFieldRef": None,
        "configMapKeyRef": _KEY_REF,
        "secretKeyRef": _KEY_REF,
        "fileKeyRef": None,
    },
}
_SOURCE_REF: Shape = {"name": str, "optional": bool}
_CONTAINER: Shape = {
    "name": str,
    "image": str,
    "command": [str],
    "args": [str],
    "workingDir": str,
    "ports": [{"name": str, "hostPort": int, "containerPort": int, "protocol": str, "hostIP": str}],
    "envFrom": [{"prefix": str, "configMapRef": _SOURCE_REF, "secretRef": _SOURCE_REF}],
    "env": [_ENV],
    "resources": _RESOURCES,
    "resizePolicy": [None],
    "restartPolicy": str,
    "restartPolicyRules": [None],
    "volumeMounts": [
        {
            "name": str,
            "readOnly": bool,
            "recursiveReadOnly": str,
            "mountPath": str,
            "subPath": str,
            "mountPropagation": str,
            "subPathExpr": str,
        }
    ],
    "volumeDevices": [None],
    "livenessProbe": _PROBE,
    "readinessProbe": _PROBE,
    "startupProbe": _PROBE,
    "lifecycle": {"postStart": None, "preStop": None, "stopSignal": str},
    "terminationMessagePath": str,
    "terminationMessagePolicy": str,
    "imagePullPolicy": str,
    "securityContext": {
        "capabilities": {"add": [str], "drop": [str]},
        "privileged": bool,
        "seLinuxOptions": None,
        "windowsOptions": None,
        "runAsUser": int,
        "runAsGroup": int,
        "runAsNonRoot": bool,
        "readOnlyRootFilesystem": bool,
        "allowPrivilegeEscalation": bool,
        "procMount": str,
        "seccompProfile": {"type": str, "localhostProfile": str},
        "appArmorProfile": None,
    },
    "stdin": bool,
    "stdinOnce": bool,
    "tty": bool,
}
_TOLERATION: Shape = {"key": str, "operator": str, "value": str, "effect": str, "tolerationSeconds": int}
_POD_SPEC: Shape = (
    {
        "volumes": [_VOLUME],
        "initContainers": [_CONTAINER],
        "containers": [_CONTAINER],
        "ephemeralContainers": [None],
        "nodeSelector": _TEXTS,
        "imagePullSecrets": [{"name": str}],
        "securityContext": _OBJECT
        | {"runAsUser": int, "runAsNonRoot": bool, "seccompProfile": _OBJECT | {"type": str}},
        "readinessGates": [_OBJECT],
        "tolerations": [_TOLERATION],
        "resources": _RESOURCES,
        "overhead": {"*": quantity},
    }
    | dict.fromkeys(
        (
            "restartPolicy",
            "dnsPolicy",
            "serviceAccountName",
            "serviceAccount",
            "nodeName",
            "hostname",
            "subdomain",
            "schedulerName",
            "priorityClassName",
            "runtimeClassName",
            "preemptionPolicy",
            "hostnameOverride",
        ),
        str,
    )
    | dict.fromkeys(("terminationGracePeriodSeconds", "activeDeadlineSeconds", "priority"), int)
    | dict.fromkeys(
        (
            "automountServiceAccountToken",
            "hostNetwork",
            "hostPID",
            "hostIPC",
            "shareProcessNamespace",
            "enableServiceLinks",
            "setHostnameAsFQDN",
            "hostUsers",
        ),
        bool,
    )
    | dict.fromkeys(
        (
            "affinity",
            "hostAliases",
            "dnsConfig",
            "topologySpreadConstraints",
            "os",
            "schedulingGates",
            "resourceClaims",
            "workloadRef",
        )
    )
)
_LEASE_SPEC: Shape = {
    "holderIdentity": str,
    "leaseDurationSeconds": int,
    "acquireTime": micro_moment,
    "renewTime": micro_moment,
    "leaseTransitions": int,
    "strategy": str,
    "preferredHolder": str,
}
_SHAPES: dict[str, Shape] = {
    "pods": {"spec": _POD_SPEC, "status": _POD_STATUS},
    "leases": {"spec": _LEASE_SPEC},
    "configmaps": {"data": _TEXTS, "binaryData": _TEXTS, "immutable": bool},
    "secrets": {"data": _TEXTS, "stringData": _TEXTS, "type": str, "immutable": bool},
    "namespaces": {"spec": {"finalizers": [str]}, "status": _OBJECT},
    "resourcequotas": {"spec": {"hard": {"*": quantity}, "scopes": [str], "scopeSelector": None}, "status": _OBJECT},
}
_GO_TYPES = {str: "string", int: "int64", bool: "bool"}
_MOMENT = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")


def decode_fields(resource: Resource, body: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The object with known fields only, and the paths of those left out; raises ApiError 400 for wrong types."""
    unknown: list[str] = []
    shape = _SHAPES.get(resource.plural)
    whole = {"kind": str, "apiVersion": str, "metadata": _METADATA} | (shape or {})
    known = _Decoder(resource, unknown, strict=shape is not None).decode(body, whole, "")
    return known, unknown


def _is_left_out_when_empty(shape: Shape) -> bool:
    return isinstance(shape, list) or (isinstance(shape, dict) and set(shape) == {"*"})


class _Decoder:
    """One body being read."""

    def __init__(self, resource: Resource, unknown: list[str], *, strict: bool) -> None:
        self._resource, self._unknown, self._strict = resource, unknown, strict

    def decode(self, value: Any, shape: Shape, path: str) -> Any:
        """The value as the shape has it; `path` names it in messages."""
        if shape is None or value is None:
            return value
        if isinstance(shape, list):
            self._expect(value, list, path)
            empty = {} if isinstance(shape[0], dict) else ""  # what a null among others stands for
            items = [empty if item is None else item for item in value]
            return [self.decode(item, shape[0], f"{path}[{index}]") for index, item in enumerate(items)]
        if isinstance(shape, dict):
            self._expect(value, dict, path)
            return self._decode_object(value, shape, path)
        return self._decode_scalar(value, shape, path)

    def _decode_object(self, value: dict[str, Any], shape: dict[str, Shape], path: str) -> dict[str, Any]:
        known = {}
        for name, item in value.items():
            where = f"{path}.{name}" if path else name
            if item is None or (not item and _is_left_out_when_empty(shape.get(name))):
                continue
            if name in shape or "*" in shape or (not path and not self._strict):
                known[name] = self.decode(item, shape.get(name, shape.get("*")), where)
            else:
                self._unknown.append(where)
        return known

    def _decode_scalar(self, value: Any, shape: Shape, path: str) -> Any:
        if shape is quantity:
            try:
                return canonical_quantity(value)
            except BadQuantity as error:
                raise undecodable(self._resource, str(error)) from None
        if shape is moment or shape is micro_moment:
            layout = "2006-01-02T15:04:05" + (".000000" if shape is micro_moment else "") + "Z07:00"
            if not (isinstance(value, str) and _MOMENT.match(value)):
                why = f'parsing time "{value}" as "{layout}": cannot parse "{value}" as "2006"'
                raise undecodable(self._resource, why)
            return value
        self._expect(value, shape, path)
        return value

    def _expect(self, value: Any, kind: type, path: str) -> None:
        if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
            return
        given = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}
        wanted = {list: "array", dict: "object", **_GO_TYPES}[kind]
        field = re.sub(r"\[\d+\]", "", path)
        why = f"json: cannot unmarshal {given[type(value)]} into Go struct field {field} of type {wanted}"
        raise undecodable(self._resource, why)
