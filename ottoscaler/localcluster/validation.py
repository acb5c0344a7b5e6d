"""The rules that an object must keep to be accepted: every one that is broken becomes a cause of one 422."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .quantities import parse_quantity
from .refusals import Cause, invalid
from .resources import Resource

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_VALUE = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
_KEY_NAME = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_ENV_NAME = "[ -<>-~]+"

_SUBDOMAIN_WORDS = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '" + _SUBDOMAIN + "')"
)
_LABEL_WORDS = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '" + _LABEL + "')"
)
_LABEL_VALUE_WORDS = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '"
    + _LABEL_VALUE
    + "')"
)
_KEY_WORDS = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '" + _KEY_NAME + "')"
)
_MUTABLE_WORDS = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_LABEL_NAMED = ("namespaces",)  # named by a DNS label; everything else by a DNS subdomain
_ANNOTATIONS_BYTES = 262_144


def validate_object(resource: Resource, obj: dict[str, Any]) -> None:
    """Raise ApiError 422 with every broken rule of a new or changed object."""
    causes = list(_metadata_causes(resource, obj["metadata"]))
    if resource.plural == "pods":
        causes += _pod_causes(obj.get("spec") or {})
    if causes:
        raise invalid(resource, obj["metadata"].get("name", ""), causes)


def validate_pod_update(resource: Resource, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Raise ApiError 422 where a pod's spec changed in anything but what may change."""
    if _fixed_part(before["spec"]) == _fixed_part(after["spec"]) and all(
        toleration in after["spec"].get("tolerations", []) for toleration in before["spec"].get("tolerations", [])
    ):
        return
    raise invalid(
        resource, before["metadata"]["name"], [Cause("FieldValueForbidden", f"Forbidden: {_MUTABLE_WORDS}", "spec")]
    )


def _fixed_part(spec: dict[str, Any]) -> dict[str, Any]:
    fixed = {key: value for key, value in spec.items() if key not in ("activeDeadlineSeconds", "tolerations")}
    for group in ("containers", "initContainers"):
        if group in fixed:
            fixed[group] = [{key: value for key, value in c.items() if key != "image"} for c in fixed[group]]
    return fixed


def _invalid_value(value: Any, why: str, field: str) -> Cause:
    written = f'"{value}"' if isinstance(value, str) else str(value)
    return Cause("FieldValueInvalid", f"Invalid value: {written}: {why}", field)


def _required(field: str, why: str = "") -> Cause:
    return Cause("FieldValueRequired", "Required value" + (f": {why}" if why else ""), field)


def _unsupported(value: str, choices: tuple[str, ...], field: str) -> Cause:
    listed = ", ".join(f'"{choice}"' for choice in sorted(choices))
    return Cause("FieldValueNotSupported", f'Unsupported value: "{value}": supported values: {listed}', field)


def _metadata_causes(resource: Resource, metadata: dict[str, Any]) -> Iterator[Cause]:
    name = metadata.get("name", "")
    if not name:
        yield _required("metadata.name", "name or generateName is required")
    else:
        yield from _name_causes(name, "metadata.name", label=resource.plural in _LABEL_NAMED)
    for key, value in (metadata.get("labels") or {}).items():
        yield from _key_causes(key, "metadata.labels")
        if len(value) > 63:
            yield _invalid_value(value, "must be no more than 63 characters", "metadata.labels")
        elif not re.fullmatch(_LABEL_VALUE, value):
            yield _invalid_value(value, _LABEL_VALUE_WORDS, "metadata.labels")
    annotations = metadata.get("annotations") or {}
    for key in annotations:
        yield from _key_causes(key, "metadata.annotations")
    if sum(len(key) + len(value.encode()) for key, value in annotations.items()) > _ANNOTATIONS_BYTES:
        why = f"Too long: may not be more than {_ANNOTATIONS_BYTES} bytes"
        yield Cause("FieldValueTooLong", why, "metadata.annotations")


def _name_causes(name: str, field: str, *, label: bool) -> Iterator[Cause]:
    longest, pattern, words = (63, _LABEL, _LABEL_WORDS) if label else (253, _SUBDOMAIN, _SUBDOMAIN_WORDS)
    if len(name) > longest:
        yield _invalid_value(name, f"must be no more than {longest} characters", field)
    elif not re.fullmatch(pattern, name):
        yield _invalid_value(name, words, field)


def _key_causes(key: str, field: str) -> Iterator[Cause]:
    prefix, slash, name = key.rpartition("/")
    if slash and not re.fullmatch(_SUBDOMAIN, prefix):
        yield _invalid_value(key, f"prefix part {_SUBDOMAIN_WORDS}", field)
    if not name:
        yield _invalid_value(key, "name part must be non-empty", field)
    elif len(name) > 63:
        yield _invalid_value(key, "name part must be no more than 63 characters", field)
    if not re.fullmatch(_KEY_NAME, name):
        yield _invalid_value(key, _KEY_WORDS, field)


def _pod_causes(spec: dict[str, Any]) -> Iterator[Cause]:
    volumes = {volume.get("name", "") for volume in spec.get("volumes") or []}
    if not spec.get("containers"):
        yield _required("spec.containers")
    seen: set[str] = set()
    for group in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(group) or []):
            yield from _container_causes(container, f"spec.{group}[{index}]", seen, volumes)
    policy = spec.get("restartPolicy", "Always")
    if spec and policy not in ("Always", "OnFailure", "Never"):
        yield _unsupported(policy, ("Always", "OnFailure", "Never"), "spec.restartPolicy")
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= 2**31 - 1:
        yield _invalid_value(deadline, "must be between 1 and 2147483647, inclusive", "spec.activeDeadlineSeconds")
    grace = spec.get("terminationGracePeriodSeconds", 0)
    if grace is not None and grace < 0:
        field = "spec.terminationGracePeriodSeconds"
        yield _invalid_value(grace, "must be greater than or equal to 0", field)


def _container_causes(container: dict[str, Any], path: str, seen: set[str], volumes: set[str]) -> Iterator[Cause]:
    name = container.get("name", "")
    if not name:
        yield _required(f"{path}.name")
    else:
        yield from _name_causes(name, f"{path}.name", label=True)
        if name in seen:
            yield Cause("FieldValueDuplicate", f'Duplicate value: "{name}"', f"{path}.name")
        seen.add(name)
    image = container.get("image", "")
    if not image:
        yield _required(f"{path}.image")
    elif image != image.strip():
        yield _invalid_value(image, "must not have leading or trailing whitespace", f"{path}.image")
    policy = container.get("imagePullPolicy", "Always")
    if policy not in ("Always", "IfNotPresent", "Never"):
        yield _unsupported(policy, ("Always", "IfNotPresent", "Never"), f"{path}.imagePullPolicy")
    for index, variable in enumerate(container.get("env") or []):
        yield from _variable_causes(variable, f"{path}.env[{index}]")
    for index, mount in enumerate(container.get("volumeMounts") or []):
        if mount.get("name", "") not in volumes:
            why = f'Not found: "{mount.get("name", "")}"'
            yield Cause("FieldValueNotFound", why, f"{path}.volumeMounts[{index}].name")
    yield from _resource_causes(container.get("resources") or {}, f"{path}.resources")


def _variable_causes(variable: dict[str, Any], path: str) -> Iterator[Cause]:
    name = variable.get("name", "")
    if not name:
        yield _required(f"{path}.name")
    elif not re.fullmatch(_ENV_NAME, name):
        why = "a valid environment variable name must consist only of printable ASCII characters other than '='"
        yield _invalid_value(name, why, f"{path}.name")
    if variable.get("value") and variable.get("valueFrom"):
        yield _invalid_value("", "may not be specified when `value` is not empty", f"{path}.valueFrom")


def _resource_causes(resources: dict[str, Any], path: str) -> Iterator[Cause]:
    limits = resources.get("limits") or {}
    for kind in ("limits", "requests"):
        for name, amount in (resources.get(kind) or {}).items():
            if parse_quantity(amount) < 0:
                yield _invalid_value(str(amount), "must be greater than or equal to 0", f"{path}.{kind}[{name}]")
    for name, amount in (resources.get("requests") or {}).items():
        if name in limits and parse_quantity(amount) > parse_quantity(limits[name]):
            why = f"must be less than or equal to {name} limit of {limits[name]}"
            yield _invalid_value(str(amount), why, f"{path}.requests")
