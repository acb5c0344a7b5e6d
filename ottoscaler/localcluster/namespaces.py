"""The controller of namespaces: a new one gets its service account and CA, a deleted one is emptied, then removed."""

from __future__ import annotations

import trio

from .defaults import set_defaults
from .deletion import delete_object
from .resources import NAMESPACES, RESOURCES
from .store import NotFound, Published, Store, Subscription

SYSTEM_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")


def create_namespace(store: Store, name: str, ca_pem: str) -> None:
    """A namespace that can be used at once; raises AlreadyExists."""
    namespace = {"metadata": {"name": name}}
    set_defaults(NAMESPACES, namespace)
    store.create("namespaces", namespace)
    fill_namespace(store, name, ca_pem)


def fill_namespace(store: Store, name: str, ca_pem: str) -> None:
    """What every new namespace holds from its beginning."""
    store.create("serviceaccounts", {"metadata": {"name": "default", "namespace": name}})
    ca = {"metadata": {"name": "kube-root-ca.crt", "namespace": name}, "data": {"ca.crt": ca_pem}}
    store.create("configmaps", ca)


class NamespaceController:
    """Empties namespaces that are being deleted; `run` is its task."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow deletions until cancelled."""
        with self._store.subscribe("namespaces") as namespaces, self._store.subscribe("pods") as pods:
            task_status.started()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._follow_namespaces, namespaces)
                nursery.start_soon(self._follow_pods, pods)

    async def _follow_namespaces(self, changes: Subscription) -> None:
        async for change in changes:
            if change.type == "MODIFIED":
                self._continue(change.object)

    async def _follow_pods(self, changes: Subscription) -> None:
        async for change in changes:
            if change.type == "DELETED":
                try:
                    self._continue(self._store.get("namespaces", "", change.object["metadata"]["namespace"]))
                except NotFound:
                    continue

    def _continue(self, namespace: Published) -> None:
        """Delete all that is in a namespace that is being deleted, and the namespace itself once it is empty."""
        if "deletionTimestamp" not in namespace["metadata"]:
            return
        name = namespace["metadata"]["name"]
        for resource in RESOURCES:
            if resource.namespaced:
                for obj in self._store.list(resource.plural, name):
                    if "deletionTimestamp" not in obj["metadata"]:
                        delete_object(self._store, resource, name, obj["metadata"]["name"])
        if not any(self._store.list(resource.plural, name) for resource in RESOURCES if resource.namespaced):
            try:
                self._store.remove("namespaces", "", name)
            except NotFound:
                return
