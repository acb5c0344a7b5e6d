"""The whole cluster inside the test's process, under a virtual clock: an hour of pods takes no time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from ottoscaler.localcluster.cluster import open_cluster
from ottoscaler.localcluster.faults import Fault

from .inprocess import open_transport

PODS = "/api/v1/namespaces/default/pods"


def _pod(name: str, **annotations: str) -> dict[str, Any]:
    simulated = {f"ottoscaler.local/{key.replace('_', '-')}": value for key, value in annotations.items()}
    metadata = {"name": name, "annotations": {"ottoscaler.local/simulate": "true", **simulated}}
    return {"metadata": metadata, "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox"}]}}


async def test_an_hour_in_no_time(tmp_path: Path, autojump_clock: Any) -> None:
    """Simulated pods run for their hour of virtual time, seen through list, watch and log as over the network."""
    async with open_cluster(data_dir=tmp_path, port=None, token="t") as cluster, open_transport(cluster) as transport:
        headers = {"authorization": "Bearer t"}
        async with httpx.AsyncClient(
            transport=transport, base_url=cluster.url, headers=headers, timeout=None
        ) as client:
            start = trio.current_time()
            assert (await client.post(PODS, json=_pod("good", duration="3600"))).status_code == 201
            assert (await client.post(PODS, json=_pod("bad", duration="60", exit_code="3"))).status_code == 201
            ended: dict[str, float] = {}
            async with client.stream("GET", f"{PODS}?watch=1&timeoutSeconds=3700") as watch:
                async for line in watch.aiter_lines():
                    pod = json.loads(line)["object"]
                    if pod["status"]["phase"] in ("Succeeded", "Failed"):
                        ended.setdefault(pod["metadata"]["name"], trio.current_time() - start)
            assert ended == {"good": pytest.approx(3600, abs=5), "bad": pytest.approx(60, abs=5)}


async def test_faults_without_a_network(tmp_path: Path, autojump_clock: Any) -> None:
    """Resets, silence and late creates befall requests here as over sockets."""
    async with open_cluster(data_dir=tmp_path, port=None, token="t") as cluster, open_transport(cluster) as transport:
        headers = {"authorization": "Bearer t"}
        async with httpx.AsyncClient(transport=transport, base_url=cluster.url, headers=headers, timeout=2) as client:
            for kind, error in (("reset_after", httpx.ReadError), ("silence", httpx.ReadTimeout)):
                cluster.faults.add(Fault(kind=kind, verb="create", times=1))  # type: ignore[arg-type]  # two of its kinds
                with pytest.raises(error):
                    await client.post(PODS, json=_pod(kind.replace("_", "-"), duration="900"))
            cluster.faults.add(Fault(kind="late", verb="create", seconds=30, times=1))
            with pytest.raises(httpx.ReadTimeout):
                await client.post(PODS, json=_pod("late", duration="900"))
            await trio.sleep(29)
            names = [pod["metadata"]["name"] for pod in (await client.get(PODS)).json()["items"]]
            assert names == ["reset-after"]
            await trio.sleep(2)
            assert (await client.get(f"{PODS}/late")).status_code == 200
