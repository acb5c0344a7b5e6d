"""Deleting: at once, with grace, held by finalizers, on preconditions. What is left to do is the kubelet's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from .refusals import forbidden, not_found, precondition_failed
from .resources import Resource
from .store import NotFound, Published, Store, format_time

_ENDED = ("Succeeded", "Failed")
_IMMORTAL_NAMESPACES = ("default", "kube-public", "kube-system")


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """What a delete asks for: grace in seconds (None: the object's own), and which object it must be."""

    grace: int | None = None
    uid: str | None = None
    resource_version: str | None = None
    dry_run: bool = False


def delete_object(
    store: Store,
    resource: Resource,
    namespace: str,
    name: str,
    options: DeleteOptions = DeleteOptions(),
) -> Published:
    """Delete, or begin to; the object as it is (or was) then. Raises ApiError 403, 404 and 409."""
    try:
        obj = store.get(resource.plural, namespace, name)
    except NotFound:
        raise not_found(resource, name) from None
    check_preconditions(resource, obj, options)
    if options.dry_run:
        return obj
    if resource.plural == "pods":
        return _delete_pod(store, obj, options.grace)
    if resource.plural == "namespaces":
        if name in _IMMORTAL_NAMESPACES:
            raise forbidden(resource, name, "this namespace may not be deleted")
        return store.update("namespaces", "", name, lambda namespace: _mark_namespace(store, namespace))
    if not obj["metadata"].get("finalizers"):
        return store.remove(resource.plural, namespace, name)
    return store.update(resource.plural, namespace, name, _mark(store, 0))


def is_to_be_removed(obj: dict[str, Any]) -> bool:
    """Whether nothing holds a deleted object any more: its grace is over and no finalizer is left."""
    metadata = obj["metadata"]
    return (
        "deletionTimestamp" in metadata
        and metadata.get("deletionGracePeriodSeconds", 0) == 0
        and not metadata.get("finalizers")
    )


def check_preconditions(resource: Resource, obj: dict[str, Any], options: DeleteOptions) -> None:
    """Raise ApiError 409 unless it is the object that was meant."""
    metadata = obj["metadata"]
    if options.uid is not None and options.uid != metadata["uid"]:
        raise precondition_failed(resource, metadata["name"], "UID", options.uid, metadata["uid"])
    wanted = options.resource_version
    if wanted is not None and wanted != metadata["resourceVersion"]:
        found = metadata["resourceVersion"]
        raise precondition_failed(resource, metadata["name"], "ResourceVersion", wanted, found)


def _delete_pod(store: Store, pod: Published, grace: int | None) -> Published:
    metadata = pod["metadata"]
    key = (metadata["namespace"], metadata["name"])
    if "deletionTimestamp" in metadata:
        running = metadata["deletionGracePeriodSeconds"]
        if grace is None or max(grace, 0) >= running:
            return pod
    marked = store.update("pods", *key, _mark(store, _granted(pod, grace)))
    return store.remove("pods", *key) if is_to_be_removed(marked) else marked


def _granted(pod: dict[str, Any], asked: int | None) -> int:
    """The grace that a pod gets: none where it never was scheduled or has ended."""
    if not pod["spec"].get("nodeName") or pod.get("status", {}).get("phase") in _ENDED:
        return 0
    grace = pod["spec"].get("terminationGracePeriodSeconds", 30) if asked is None else asked
    return int(grace) if grace >= 0 else 1


def _mark_namespace(store: Store, namespace: dict[str, Any]) -> None:
    namespace["metadata"].setdefault("deletionTimestamp", format_time(store.now()))
    namespace["status"] = {**namespace.get("status", {}), "phase": "Terminating"}


def _mark(store: Store, grace: int) -> Any:
    """The change that begins a deletion, or shortens one that has begun."""

    def change(obj: dict[str, Any]) -> None:
        metadata = obj["metadata"]
        if "deletionTimestamp" not in metadata and "generation" in metadata:
            metadata["generation"] += 1
        metadata["deletionTimestamp"] = format_time(store.now() + timedelta(seconds=grace))
        metadata["deletionGracePeriodSeconds"] = grace

    return change
