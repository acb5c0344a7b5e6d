"""The whole cluster: store, kubelet and API server in one nursery. Whoever leaves it leaves nothing behind."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio
import trustme

from .access import AccessControl
from .admission import Admission
from .control import Control, strip_labels
from .faults import Faults
from .harm import harms
from .identity import load_identity
from .kubeconfig import write_kubeconfig
from .kubelet import Kubelet
from .namespaces import SYSTEM_NAMESPACES, NamespaceController, create_namespace
from .node import NodeSettings
from .objects_api import ObjectsApi
from .pods_api import PodsApi
from .routes import Routes
from .server import ApiServer
from .store import Store

NODE_NAME = "local"


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """A running cluster: where it is, whom it trusts, and the handles with which tests reach inside."""

    url: str
    token: str
    ca_pem: str
    store: Store
    kubelet: Kubelet
    faults: Faults
    routes: Routes
    access: AccessControl
    admission: Admission

    def write_kubeconfig(self, path: Path) -> None:
        """Write the file that kubectl needs, readable by its owner only."""
        write_kubeconfig(path, url=self.url, token=self.token, ca_pem=self.ca_pem)

    def compact(self) -> None:
        """Forget all changes so far: watches and lists from before get 410."""
        self.store.compact(self.store.revision)

    def strip_labels(self, namespace: str, name: str, labels: list[str] | None = None) -> None:
        """Take labels off a pod, all where none is named; raises NotFound."""
        strip_labels(self.store, namespace, name, labels)


@asynccontextmanager
async def open_cluster(
    *,
    data_dir: Path,
    port: int | None = 0,
    token: str | None = None,
    settings: NodeSettings | None = None,
    seed: int = 0,
) -> AsyncIterator[LocalCluster]:
    """Run a cluster on 127.0.0.1; `port` 0 takes a free one, None opens none: then only `routes` answers.

    `data_dir` holds what pods write, and the cluster's identity: run there again it has the same CA and, where none is
    given, the same token, but no objects. `settings` are the node's; `seed` is that of faults that come by chance.
    When it is left, connections are reset and all pods' processes are gone. Raises OSError where the port is taken.
    """
    identity = load_identity(data_dir, token)
    ca_pem = identity.authority.cert_pem.bytes().decode()
    store = Store()
    for name in SYSTEM_NAMESPACES:
        create_namespace(store, name, ca_pem)
    access = AccessControl(identity.token)
    kubelet = Kubelet(store, data_dir=data_dir, node_name=NODE_NAME, **({"settings": settings} if settings else {}))
    faults, admission = Faults(seed), Admission(store)
    objects = ObjectsApi(store, admission, faults, ca_pem)
    control = Control(store, faults, admission, access, harms(store, kubelet))
    routes = Routes(access, objects, PodsApi(store, kubelet, faults), control)
    listener = None if port is None else (await trio.open_tcp_listeners(port, host="127.0.0.1"))[0]
    number = listener.socket.getsockname()[1] if listener else 443
    async with trio.open_nursery() as nursery:
        await nursery.start(kubelet.run)
        await nursery.start(NamespaceController(store).run)
        if listener:
            await nursery.start(partial(ApiServer(routes, _tls_context(identity.authority)).serve, listener))
        try:
            url = f"https://127.0.0.1:{number}"
            yield LocalCluster(url, access.admin_token, ca_pem, store, kubelet, faults, routes, access, admission)
        finally:
            nursery.cancel_scope.cancel(reason="the cluster is being left")


def _tls_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context
