"""Tables: the columns that kubectl prints, one row per object, as the recorded server renders pods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from . import column_words
from .pod_summary import pod_ready, pod_restarts, pod_status
from .resources import Resource

Row = Callable[[dict[str, Any], datetime], list[Any]]


@dataclass(frozen=True, slots=True)
class Column:
    """One column; `priority` 1 is for wide output only."""

    name: str
    priority: int = 0
    type: str = "string"
    format: str = ""

    def as_json(self) -> dict[str, Any]:
        """The column as a table defines it."""
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": column_words.describe(self.name),
            "priority": self.priority,
        }


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of one resource and how a row is made."""

    columns: tuple[Column, ...]
    row: Row


def render_table(
    resource: Resource,
    objects: list[dict[str, Any]],
    metadata: dict[str, Any],
    now: datetime,
    *,
    with_columns: bool = True,
) -> dict[str, Any]:
    """A Table object of these rows; watches leave the columns out after their first event."""
    layout = _LAYOUTS.get(resource.plural, _PLAIN)
    rows = [{"cells": layout.row(obj, now), "object": metadata_only(obj)} for obj in objects]
    columns = [column.as_json() for column in layout.columns] if with_columns else None
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": rows,
    }


def metadata_only(obj: dict[str, Any]) -> dict[str, Any]:
    """The object as PartialObjectMetadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def age(moment: str | None, now: datetime) -> str:
    """How long ago, in kubectl's short form: 5s, 3m20s, 2h, 5d."""
    if not moment:
        return "<unknown>"
    seconds = max(0, int((now - datetime.fromisoformat(moment).astimezone(UTC)).total_seconds()))
    if seconds < 120:
        return f"{seconds}s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d"


def _name(obj: dict[str, Any]) -> str:
    return str(obj["metadata"]["name"])


def _age(obj: dict[str, Any], now: datetime) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


def _pod(pod: dict[str, Any], now: datetime) -> list[Any]:
    status, spec = pod.get("status", {}), pod["spec"]
    gates = spec.get("readinessGates") or []
    return [
        _name(pod),
        pod_ready(pod),
        pod_status(pod),
        pod_restarts(pod, now, age),
        _age(pod, now),
        status.get("podIP") or "<none>",
        spec.get("nodeName") or "<none>",
        status.get("nominatedNodeName") or "<none>",
        f"0/{len(gates)}" if gates else "<none>",
    ]


def _event(event: dict[str, Any], now: datetime) -> list[Any]:
    involved, source = event.get("involvedObject", {}), event.get("source", {})
    first, last = event.get("firstTimestamp"), event.get("lastTimestamp")
    return [
        age(last or event.get("eventTime"), now),
        event.get("type", ""),
        event.get("reason", ""),
        f"{involved.get('kind', '').lower()}/{involved.get('name', '')}",
        involved.get("fieldPath", ""),
        ", ".join(filter(None, (source.get("component"), source.get("host")))),
        event.get("message", "").strip(),
        age(first or event.get("eventTime"), now),
        event.get("count", 1),
        _name(event),
    ]


def _namespace(namespace: dict[str, Any], now: datetime) -> list[Any]:
    return [_name(namespace), namespace.get("status", {}).get("phase", ""), _age(namespace, now)]


def _node(node: dict[str, Any], now: datetime) -> list[Any]:
    conditions = {c["type"]: c["status"] for c in node.get("status", {}).get("conditions", [])}
    ready = "Ready" if conditions.get("Ready", "Unknown") == "True" else "NotReady"
    if node.get("spec", {}).get("unschedulable"):
        ready += ",SchedulingDisabled"
    info = node.get("status", {}).get("nodeInfo", {})
    addresses = {a["type"]: a["address"] for a in node.get("status", {}).get("addresses", [])}
    return [
        _name(node),
        ready,
        "<none>",
        _age(node, now),
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP", "<none>"),
        addresses.get("ExternalIP", "<none>"),
        info.get("osImage", "<unknown>"),
        info.get("kernelVersion", "<unknown>"),
        info.get("containerRuntimeVersion", "<unknown>"),
    ]


def _lease(lease: dict[str, Any], now: datetime) -> list[Any]:
    return [_name(lease), lease.get("spec", {}).get("holderIdentity", ""), _age(lease, now)]


def _config_map(config_map: dict[str, Any], now: datetime) -> list[Any]:
    count = len(config_map.get("data", {})) + len(config_map.get("binaryData", {}))
    return [_name(config_map), count, _age(config_map, now)]


def _secret(secret: dict[str, Any], now: datetime) -> list[Any]:
    return [_name(secret), secret.get("type", ""), len(secret.get("data", {})), _age(secret, now)]


def _columns(*names: str, wide: tuple[str, ...] = ()) -> tuple[Column, ...]:
    plain = tuple(Column(name, format="name" if name == "Name" else "") for name in names)
    return plain + tuple(Column(name, priority=1) for name in wide)


_EVENT_COLUMNS = (
    *_columns("Last Seen", "Type", "Reason", "Object"),
    Column("Subobject", 1),
    Column("Source", 1),
    Column("Message"),
    Column("First Seen", 1),
    Column("Count", 1),
    Column("Name", 1, format="name"),
)
_PLAIN = Layout(_columns("Name", "Age"), lambda obj, now: [_name(obj), _age(obj, now)])
_LAYOUTS = {
    "pods": Layout(
        _columns(
            "Name",
            "Ready",
            "Status",
            "Restarts",
            "Age",
            wide=("IP", "Node", "Nominated Node", "Readiness Gates"),
        ),
        _pod,
    ),
    "events": Layout(_EVENT_COLUMNS, _event),
    "namespaces": Layout(_columns("Name", "Status", "Age"), _namespace),
    "nodes": Layout(
        _columns(
            "Name",
            "Status",
            "Roles",
            "Age",
            "Version",
            wide=("Internal-IP", "External-IP", "OS-Image", "Kernel-Version", "Container-Runtime"),
        ),
        _node,
    ),
    "leases": Layout(_columns("Name", "Holder", "Age"), _lease),
    "configmaps": Layout(_columns("Name", "Data", "Age"), _config_map),
    "secrets": Layout(_columns("Name", "Type", "Data", "Age"), _secret),
}
