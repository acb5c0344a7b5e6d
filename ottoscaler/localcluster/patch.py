"""The ways to change an object by a patch: JSON merge, JSON patch, strategic merge, and apply.

Apply is a strategic merge of the applied object: it adds and changes; a field that a later apply leaves out stays
(no field ownership is kept).
"""

from __future__ import annotations

from typing import Any

from .refusals import ApiError, Cause, bad_request, invalid
from .resources import Resource
from .store import copy_json

MERGE, JSON_PATCH = "application/merge-patch+json", "application/json-patch+json"
STRATEGIC, APPLY = "application/strategic-merge-patch+json", "application/apply-patch+yaml"

# By which key a list's objects are told apart, by the list's field name. Lists not named here are replaced.
_MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "containerStatuses": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "conditions": "type",
    "ownerReferences": "uid",
    "podIPs": "ip",
    "hostIPs": "ip",
    "topologySpreadConstraints": "topologyKey",
    "secrets": "name",
}
_SETS = ("finalizers",)  # lists of plain values that are united


def apply_patch(resource: Resource, kind: str, obj: dict[str, Any], patch: Any) -> dict[str, Any]:
    """The object after the patch of that content type; the argument is not changed. Raises ApiError."""
    if kind == JSON_PATCH:
        return _apply_operations(resource, copy_json(obj), patch)
    if not isinstance(patch, dict):
        raise bad_request("couldn't get version/kind; json parse error: the patch must be an object")
    if kind == MERGE:
        return dict(_merge(copy_json(obj), patch))
    return dict(_merge_strategically(copy_json(obj), patch))


def _merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    target = target if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = _merge(target.get(name), value)
    return target


def _merge_strategically(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    target = target if isinstance(target, dict) else {}
    for name, value in patch.items():
        if name.startswith("$deleteFromPrimitiveList/"):
            field = name.partition("/")[2]
            target[field] = [item for item in target.get(field) or [] if item not in value]
        elif name == "$retainKeys":
            target = {key: target[key] for key in value if key in target}
        elif name.startswith("$"):
            continue  # an order of elements asked for: order has no meaning in these lists
        elif value is None:
            target.pop(name, None)
        elif isinstance(value, list):
            target[name] = _merge_list(name, target.get(name) or [], value)
        else:
            target[name] = _merge_strategically(target.get(name), value)
    return target


def _merge_list(field: str, target: list[Any], patch: list[Any]) -> list[Any]:
    if field in _SETS:
        return target + [item for item in patch if item not in target]
    key = _MERGE_KEYS.get(field)
    if key is None or not all(isinstance(item, dict) for item in patch):
        return patch
    if any(item.get("$patch") == "replace" for item in patch):
        return [item for item in patch if "$patch" not in item]
    merged = {item.get(key): item for item in target}
    for item in patch:
        if item.get("$patch") == "delete":
            merged.pop(item.get(key), None)
        else:
            merged[item.get(key)] = _merge_strategically(merged.get(item.get(key)), item)
    return list(merged.values())


def _apply_operations(resource: Resource, obj: dict[str, Any], operations: Any) -> dict[str, Any]:
    """RFC 6902."""
    if not isinstance(operations, list):
        raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    for operation in operations:
        try:
            _operate(obj, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            why = f"the server rejected our request due to an error in our request ({operation}: {error})"
            name = obj["metadata"]["name"]
            raise invalid(resource, name, [Cause("FieldValueInvalid", why, "patch")]) from None
    return obj


def _operate(obj: dict[str, Any], operation: dict[str, Any]) -> None:
    path = operation["path"]
    match operation["op"]:
        case "add":
            _set_at(obj, path, operation["value"])
        case "replace":
            _get_at(obj, path)
            _remove_at(obj, path)
            _set_at(obj, path, operation["value"])
        case "remove":
            _remove_at(obj, path)
        case "copy":
            _set_at(obj, path, copy_json(_get_at(obj, operation["from"])))
        case "move":
            value = _get_at(obj, operation["from"])
            _remove_at(obj, operation["from"])
            _set_at(obj, path, value)
        case "test":
            if _get_at(obj, path) != operation["value"]:
                raise ValueError("testing value failed")
        case unknown:
            raise ValueError(f"unexpected kind: {unknown}")


def _parts(pointer: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _get_at(obj: Any, pointer: str) -> Any:
    for part in _parts(pointer):
        obj = obj[int(part)] if isinstance(obj, list) else obj[part]
    return obj


def _parent(obj: Any, pointer: str) -> tuple[Any, str]:
    parts = _parts(pointer)
    for part in parts[:-1]:
        obj = obj[int(part)] if isinstance(obj, list) else obj[part]
    return obj, parts[-1]


def _set_at(obj: Any, pointer: str, value: Any) -> None:
    parent, last = _parent(obj, pointer)
    if isinstance(parent, list):
        parent.insert(len(parent) if last == "-" else int(last), value)
    else:
        parent[last] = value


def _remove_at(obj: Any, pointer: str) -> None:
    parent, last = _parent(obj, pointer)
    del parent[int(last) if isinstance(parent, list) else last]


def unsupported_patch() -> ApiError:
    """415: a content type that is none of the four."""
    return ApiError(415, "UnsupportedMediaType", "415: Unsupported Media Type", details={})
