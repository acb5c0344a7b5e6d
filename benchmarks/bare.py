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
    """Posts pods of the content that workers have, under names of their own."""

    def __init__(self, client: httpx.AsyncClient, template: Mapping[str, Any]) -> None:
        self._numbers = itertools.count(1)
        self._client = client
        self._template = template

    async def post(self, count: int, sent: dict[str, float]) -> None:
        """Create so many pods at once; notes in `sent` when (CLOCK_MONOTONIC, s) they were begun, by name."""
        event_id, begun = f"bare-{next(self._numbers)}", time.monotonic()
        async with trio.open_nursery() as nursery:
            for index in range(1, count + 1):
                identity = WorkerIdentity(event_id, index, count, 1, instance="bare", era="bare", task_id="benchmark")
                sent[identity.name] = begun
                nursery.start_soon(self._post_one, identity)

    async def _post_one(self, identity: WorkerIdentity) -> None:
        body = msgspec.json.encode(build_pod(identity, WorkerDefaults(), self._template["template"]))
        answer = await self._client.post(CREATE, content=body, headers={"content-type": "application/json"})
        answer.raise_for_status()

    async def post_steadily(self, rate: float, count: int, sent: dict[str, float]) -> None:
        """Post `count` pods at once, `rate` times a second at most, until cancelled."""
        due = trio.current_time()
        while True:
            await trio.sleep_until(due)
            await self.post(count, sent)
            due = max(due + 1 / rate, trio.current_time())


@asynccontextmanager
async def open_bare_client(kubeconfig: Path, template: Mapping[str, Any]) -> AsyncIterator[BareClient]:
    """A client of the local cluster, its first connection open already."""
    config = yaml.safe_load(await trio.Path(kubeconfig).read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    authority = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    headers = {"authorization": f"Bearer {user['token']}"}
    async with httpx.AsyncClient(base_url=cluster["server"], verify=authority, headers=headers) as client:
        (await client.get("/version")).raise_for_status()
        yield BareClient(client, template)
