"""Creating the same pods without us: a plain httpx client that posts, for comparison."""

from __future__ import annotations

import base64
import itertools
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import trio
import yaml

from ottoscaler.kube.manifest import WorkerDefaults, WorkerIdentity, build_pod

CREATE = "/api/v1/namespaces/default/pods"


class BareClient:
    """Posts pods one at a time; `sent` tells when (CLOCK_MONOTONIC, s) each was handed to httpx, by the pod's name."""

    def __init__(self, client: httpx.AsyncClient, template: Mapping[str, Any]) -> None:
        self.sent: dict[str, float] = {}
        self._numbers = itertools.count(1)
        self._client = client
        self._template = template

    async def post(self) -> None:
        """Create one more pod, of the same content as a worker's, under a name of its own."""
        identity = WorkerIdentity(
            f"bare-{next(self._numbers)}", 1, 1, 1, instance="bare", era="bare", task_id="benchmark"
        )
        body = msgspec.json.encode(build_pod(identity, WorkerDefaults(), self._template["template"]))
        self.sent[identity.name] = time.monotonic()
        answer = await self._client.post(CREATE, content=body, headers={"content-type": "application/json"})
        answer.raise_for_status()

    async def post_steadily(self, rate: float) -> None:
        """Post `rate` pods a second until cancelled."""
        due = trio.current_time()
        while True:
            await trio.sleep_until(due)
            await self.post()
            due = max(due + 1 / rate, trio.current_time())


@asynccontextmanager
async def open_bare_client(kubeconfig: Path, template: Mapping[str, Any]) -> AsyncIterator[BareClient]:
    """A client of the local cluster, its one connection open already."""
    config = yaml.safe_load(await trio.Path(kubeconfig).read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    authority = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    headers = {"authorization": f"Bearer {user['token']}"}
    async with httpx.AsyncClient(base_url=cluster["server"], verify=authority, headers=headers) as client:
        (await client.get("/version")).raise_for_status()
        yield BareClient(client, template)
