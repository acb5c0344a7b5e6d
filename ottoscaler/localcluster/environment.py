"""A container's environment, command and arguments, computed from its pod. Pure, but for the lookups given in.

Sources: env with value, fieldRef, resourceFieldRef, configMapKeyRef and secretKeyRef; envFrom; $(VAR)
expansion with $$ as the escape. What a reference lacks raises ConfigError in a kubelet's words.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from math import ceil
from typing import Any

from ottoscaler.localcluster.images import DEFAULT_COMMAND
from ottoscaler.localcluster.quantities import parse_quantity

Json = dict[str, Any]
Lookup = Callable[[str, str], Json | None]  # ("configmaps" | "secrets", name) -> the object of the pod's namespace

_VARIABLE = re.compile(r"\$(\$|\(([^()]*)\))")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")
_KINDS = {"configmaps": ("configmap", "ConfigMap"), "secrets": ("secret", "Secret")}


class ConfigError(Exception):
    """The container cannot be created as configured: the message of CreateContainerConfigError."""


def container_environment(pod: Json, container: Json, lookup: Lookup, *, pod_ip: str, host_ip: str) -> dict[str, str]:
    """The variables that the pod asks for; later ones may refer to earlier ones by $(NAME)."""
    environment: dict[str, str] = {}
    namespace = pod["metadata"]["namespace"]
    for source in container.get("envFrom", []):
        environment |= _all_keys(source, lookup)
    addresses = {"status.podIP": pod_ip, "status.podIPs": pod_ip, "status.hostIP": host_ip, "status.hostIPs": host_ip}
    for variable in container.get("env", []):
        source = variable.get("valueFrom")
        if source is None:
            value: str | None = expand(variable.get("value", ""), environment)
        elif "fieldRef" in source:
            value = _field(pod, source["fieldRef"]["fieldPath"], addresses)
        elif "resourceFieldRef" in source:
            value = _resource(container, source["resourceFieldRef"])
        elif "configMapKeyRef" in source:
            value = _one_key("configmaps", source["configMapKeyRef"], lookup, namespace)
        else:
            value = _one_key("secrets", source["secretKeyRef"], lookup, namespace)
        if value is not None:
            environment[variable["name"]] = value
    return environment


def command_line(container: Json, environment: dict[str, str]) -> list[str]:
    """The words to run: command and args, each with $(VAR) expanded; the image's own where there is neither."""
    words = [*container.get("command", []), *container.get("args", [])]
    return [expand(word, environment) for word in words] or list(DEFAULT_COMMAND)


def expand(text: str, environment: dict[str, str]) -> str:
    """`$(NAME)` becomes the variable's value, an unknown one stays as it is; `$$` becomes `$`."""

    def replacement(match: re.Match[str]) -> str:
        return "$" if match[1] == "$" else environment.get(match[2], match[0])

    return _VARIABLE.sub(replacement, text)


def check_user(pod: Json, container: Json) -> None:
    """Refuse what a kubelet refuses of runAsNonRoot: every image here would run as root."""
    context = pod["spec"].get("securityContext", {}) | container.get("securityContext", {})
    if not context.get("runAsNonRoot") or context.get("runAsUser", -1) > 0:
        return
    metadata = pod["metadata"]
    where = f'(pod: "{metadata["name"]}_{metadata["namespace"]}({metadata["uid"]})", container: {container["name"]})'
    if "runAsUser" in context:
        raise ConfigError(f"container's runAsUser breaks non-root policy {where}")
    raise ConfigError(f"container has runAsNonRoot and image will run as root {where}")


def missing_volume(pod: Json, lookup: Lookup) -> str | None:
    """The FailedMount message of the first volume that cannot be mounted, or None."""
    for volume in pod["spec"].get("volumes", []):
        for resource, field, key in (("secrets", "secret", "secretName"), ("configmaps", "configMap", "name")):
            source = volume.get(field)
            if source and not source.get("optional") and lookup(resource, source[key]) is None:
                missing = f'{_KINDS[resource][0]} "{source[key]}" not found'
                return f'MountVolume.SetUp failed for volume "{volume["name"]}" : {missing}'
    return None


def _all_keys(source: Json, lookup: Lookup) -> dict[str, str]:
    resource, reference = ("configmaps", "configMapRef") if "configMapRef" in source else ("secrets", "secretRef")
    wanted = source[reference]
    found = lookup(resource, wanted["name"])
    if found is None:
        if wanted.get("optional"):
            return {}
        raise ConfigError(f'{_KINDS[resource][0]} "{wanted["name"]}" not found')
    return {source.get("prefix", "") + key: value for key, value in _content(resource, found).items()}


def _one_key(resource: str, reference: Json, lookup: Lookup, namespace: str) -> str | None:
    found = lookup(resource, reference["name"])
    if found is None and not reference.get("optional"):
        raise ConfigError(f'{_KINDS[resource][0]} "{reference["name"]}" not found')
    content = {} if found is None else _content(resource, found)
    if reference["key"] not in content and not reference.get("optional"):
        kind = _KINDS[resource][1]
        raise ConfigError(f"couldn't find key {reference['key']} in {kind} {namespace}/{reference['name']}")
    return content.get(reference["key"])


def _content(resource: str, found: Json) -> dict[str, str]:
    data = found.get("data") or {}
    if resource == "configmaps":
        return dict(data)
    decoded = {key: base64.b64decode(value).decode(errors="replace") for key, value in data.items()}
    return decoded | (found.get("stringData") or {})


def _field(pod: Json, path: str, addresses: dict[str, str]) -> str:
    """The value of a fieldRef; raises ConfigError for a path that no kubelet knows."""
    subscript = _SUBSCRIPT.fullmatch(path)
    if subscript:
        return str(pod["metadata"].get(subscript[1], {}).get(subscript[2], ""))
    if path in addresses:
        return addresses[path]
    known = {"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName"}
    if path in known:
        section, key = path.split(".")
        return str(pod[section].get(key, ""))
    if path in ("metadata.labels", "metadata.annotations"):
        pairs = pod["metadata"].get(path.partition(".")[2], {})
        return "\n".join(f'{key}="{value}"' for key, value in sorted(pairs.items()))
    raise ConfigError(f"unsupported fieldPath: {path}")


def _resource(container: Json, reference: Json) -> str:
    """The value of a resourceFieldRef ("limits.memory"), in units of its divisor, rounded up; unset: 0."""
    kind, _, resource = reference["resource"].partition(".")
    quantity = parse_quantity(container.get("resources", {}).get(kind, {}).get(resource, "0"))
    divisor = parse_quantity(reference.get("divisor", "1")) or 1
    return str(ceil(quantity / divisor))
