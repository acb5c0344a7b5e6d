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


async def test_harm_from_outside(tmp_path: Path, autojump_clock: Any) -> None:
    """An eviction asked for at the switch shows DisruptionTarget first, then the deletion, then the pod is gone."""
    async with open_cluster(data_dir=tmp_path, port=None, token="t") as cluster, open_transport(cluster) as transport:
        headers = {"authorization": "Bearer t"}
        async with httpx.AsyncClient(
            transport=transport, base_url=cluster.url, headers=headers, timeout=None
        ) as client:
            await client.post(PODS, json=_pod("a", duration="900"))
            await trio.sleep(5)
            version = (await client.get(PODS)).json()["metadata"]["resourceVersion"]
            asked = {"namespace": "default", "name": "a", "grace": 1}
            assert (await client.post("/faults/harm/evict", json=asked)).status_code == 200
            await trio.sleep(60)
            watched = (await client.get(f"{PODS}?watch=1&resourceVersion={version}&timeoutSeconds=1")).text
            events = [json.loads(line) for line in watched.splitlines()]
            first, second = events[0]["object"], events[1]["object"]
            assert first["status"]["conditions"][-1]["reason"] == "EvictionByEvictionAPI"
            assert "deletionTimestamp" not in first["metadata"]
            assert "deletionTimestamp" in second["metadata"]
            assert events[-1]["type"] == "DELETED"
            missing = await client.post("/faults/harm/evict", json={"namespace": "default", "name": "nobody"})
            assert (missing.status_code, missing.json()["message"]) == (404, 'pods "nobody" not found')
            wrong = await client.post("/faults/harm/evict", json={"name": "a"})
            assert wrong.status_code == 400


async def test_a_namespace_goes_with_all_it_holds(tmp_path: Path, autojump_clock: Any) -> None:
    """A deleted namespace says Terminating, lets its pods end with their grace, and then is gone with everything."""
    async with open_cluster(data_dir=tmp_path, port=None, token="t") as cluster, open_transport(cluster) as transport:
        headers = {"authorization": "Bearer t"}
        async with httpx.AsyncClient(
            transport=transport, base_url=cluster.url, headers=headers, timeout=None
        ) as client:
            team = "/api/v1/namespaces/team"
            await client.post("/api/v1/namespaces", json={"metadata": {"name": "team"}})
            await client.post(f"{team}/pods", json=_pod("a", duration="900", ignores_term="true"))
            await client.post(f"{team}/configmaps", json={"metadata": {"name": "c"}})
            await trio.sleep(5)
            assert (await client.delete(team)).json()["status"]["phase"] == "Terminating"
            await trio.sleep(10)  # of the pod's 30 s of grace
            assert (await client.get(team)).status_code == 200
            assert (await client.post(f"{team}/pods", json=_pod("b"))).status_code == 403
            await trio.sleep(40)
            assert (await client.get(team)).status_code == 404
            assert (await client.get(f"{team}/configmaps")).json()["items"] == []
            assert (await client.delete("/api/v1/namespaces/default")).status_code == 403
