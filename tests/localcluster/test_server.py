"""The server over real HTTPS: trust, both protocols, streams, and the faults that reach the connection."""

from __future__ import annotations

import json
import os
import ssl
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import yaml

from ottoscaler.localcluster.cluster import LocalCluster, open_cluster
from ottoscaler.localcluster.faults import Fault

pytestmark = [pytest.mark.process, pytest.mark.slow_clock]

PODS = "/api/v1/namespaces/default/pods"
IMPATIENT = httpx.Timeout(30, read=0.2)
"""For an answer; a busy machine may take its time to connect."""


def _pod(name: str, script: str = "sleep 100", **spec: Any) -> dict[str, Any]:
    container = {
        "name": "worker",
        "image": "busybox:latest",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script],
    }
    return {
        "metadata": {"name": name, "labels": {"app": "x"}},
        "spec": {"restartPolicy": "Never", "containers": [container], **spec},
    }


@asynccontextmanager
async def _open(tmp_path: Path) -> AsyncIterator[tuple[LocalCluster, httpx.AsyncClient]]:
    async with open_cluster(data_dir=tmp_path / "data") as cluster:
        trust = ssl.create_default_context(cadata=cluster.ca_pem)
        headers = {"authorization": f"Bearer {cluster.token}"}
        async with httpx.AsyncClient(base_url=cluster.url, verify=trust, headers=headers, timeout=30) as client:
            yield cluster, client


async def test_trust_token_and_kubeconfig(tmp_path: Path) -> None:
    """The certificate is trusted by the cluster's own CA, the token is asked for, the kubeconfig holds both, 0600."""
    async with _open(tmp_path) as (cluster, client):
        assert (await client.get("/readyz")).text == "ok"
        assert (await client.get(PODS, headers={"authorization": "Bearer wrong"})).status_code == 401
        path = tmp_path / "kubeconfig"
        cluster.write_kubeconfig(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        config = yaml.safe_load(path.read_text())
        assert config["users"][0]["user"]["token"] == cluster.token
        assert config["clusters"][0]["cluster"]["server"] == cluster.url
        with pytest.raises(httpx.ConnectError):
            async with httpx.AsyncClient(verify=ssl.create_default_context()) as stranger:
                await stranger.get(cluster.url)


async def test_a_pod_lives_and_its_log_is_served(tmp_path: Path) -> None:
    """A pod runs as processes; its log is followed, cut, silent, refused as recorded; leaving ends what runs."""
    stays = f"4711{os.getpid():07}"
    script = "for i in 1 2 3; do echo line $i; echo err $i >&2; sleep 0.1; done"
    async with _open(tmp_path) as (cluster, client):
        assert (await client.post(PODS, json=_pod("talk", script))).status_code == 201
        assert (await client.post(PODS, json=_pod("stay", f"exec sleep {stays}"))).status_code == 201
        await _wait_for(cluster, "talk", "Succeeded")
        log = f"{PODS}/talk/log"
        whole = (await client.get(log)).text
        assert sorted(whole.splitlines()) == ["err 1", "err 2", "err 3", "line 1", "line 2", "line 3"]
        assert (await client.get(f"{log}?follow=true")).text == whole
        cluster.faults.add(Fault(kind="watch_silent", path="/log$", times=1))
        with trio.move_on_after(0.3) as patience:  # a silent log does not even say that it is over
            await client.get(log)
        assert patience.cancelled_caught
        assert (await client.get(f"{log}?tailLines=2")).text == "".join(whole.splitlines(True)[-2:])
        assert (await client.get(f"{log}?limitBytes=10")).text == whole[:10]
        assert (await client.get(f"{log}?timestamps=true&tailLines=1")).text.split(" ", 1)[0].endswith("Z")
        previous = (await client.get(f"{log}?previous=true")).json()
        assert previous["message"] == 'previous terminated container "worker" in pod "talk" not found'
        await _wait_for(cluster, "stay", "Running")
    with trio.fail_after(20):
        while _is_running(stays):  # noqa: ASYNC110 - there is no event for other people's processes
            await trio.sleep(0.02)


def _is_running(seconds: str) -> bool:
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if process.read_bytes().split(b"\0")[:2] == [b"sleep", seconds.encode()]:
                return True
        except (FileNotFoundError, ProcessLookupError):
            continue
    return False


async def _wait_for(cluster: LocalCluster, name: str, phase: str) -> None:
    with trio.fail_after(30), cluster.store.subscribe("pods") as changes:
        if cluster.store.get("pods", "default", name)["status"]["phase"] == phase:
            return
        async for change in changes:
            if change.object["metadata"]["name"] == name and change.object["status"]["phase"] == phase:
                return


async def test_refused_slow_and_reset(tmp_path: Path) -> None:
    """429 names when to come back; a reset before leaves nothing done, a reset after leaves it done."""
    async with _open(tmp_path) as (cluster, client):
        cluster.faults.add(Fault(kind="reject", verb="create", status=429, retry_after=2, times=1))
        refused = await client.post(PODS, json=_pod("a"))
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
        assert refused.json()["details"]["retryAfterSeconds"] == 2
        cluster.faults.add(Fault(kind="reset_before", verb="create", times=1))
        with pytest.raises(httpx.TransportError):
            await client.post(PODS, json=_pod("b"))
        cluster.faults.add(Fault(kind="reset_after", verb="create", times=1))
        with pytest.raises(httpx.TransportError):
            await client.post(PODS, json=_pod("c"))
        cluster.faults.add(Fault(kind="latency", seconds=0.2, times=1))
        start = trio.current_time()
        names = [pod["metadata"]["name"] for pod in (await client.get(PODS)).json()["items"]]
        assert names == ["c"]
        assert trio.current_time() - start >= 0.2
        cluster.faults.add(Fault(kind="latency", seconds=60, times=1))
        late = await client.post(f"{PODS}?timeout=1s", json=_pod("d"))
        assert late.status_code == 504


async def test_carried_out_after_the_client_left(tmp_path: Path) -> None:
    """A late create happens only some time after its client gave up."""
    async with _open(tmp_path) as (cluster, client):
        cluster.faults.add(Fault(kind="late", verb="create", seconds=1.5, times=1))
        with pytest.raises(httpx.ReadTimeout):
            await client.post(PODS, json=_pod("late"), timeout=IMPATIENT)
        assert (await client.get(f"{PODS}/late")).status_code == 404
        with trio.fail_after(30), cluster.store.subscribe("pods") as changes:
            assert (await changes.receive()).object["metadata"]["name"] == "late"


async def test_silence(tmp_path: Path) -> None:
    """A silent server accepts and never answers: neither a request nor a new connection's handshake."""
    async with _open(tmp_path) as (cluster, client):
        cluster.faults.add(Fault(kind="silence", times=1))
        with pytest.raises(httpx.ReadTimeout):
            await client.get(PODS, timeout=IMPATIENT)
        cluster.faults.add(Fault(kind="accept_silent", times=1))
        with pytest.raises(httpx.ConnectTimeout):
            async with httpx.AsyncClient(verify=False, timeout=0.2) as other:
                await other.get(cluster.url)
        assert (await client.get(PODS)).status_code == 200


async def test_open_watches_suffer(tmp_path: Path) -> None:
    """A fault of watches reaches those that are open; a stripped label looks like a deletion to a selecting watch."""
    async with _open(tmp_path) as (cluster, client):
        await client.post(PODS, json=_pod("a"))
        await _wait_for(cluster, "a", "Running")
        send, receive = trio.open_memory_channel[str](10)

        async def watch(query: str) -> None:
            async with client.stream("GET", f"{PODS}?watch=1&{query}", timeout=60) as response:
                async for line in response.aiter_lines():
                    await send.send(json.loads(line)["type"])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, "labelSelector=app%3Dx")
            with trio.fail_after(30):
                assert await receive.receive() == "ADDED"
                cluster.strip_labels("default", "a")
                assert await receive.receive() == "DELETED"
            cluster.faults.add(Fault(kind="watch_cut", times=1))  # without it the nursery would not end
        assert (await client.get(f"{PODS}/a")).status_code == 200
        old = (await client.get(PODS)).json()["metadata"]["resourceVersion"]
        await client.patch(
            f"{PODS}/a",
            json={"metadata": {"labels": {"app": "y"}}},
            headers={"content-type": "application/merge-patch+json"},
        )
        cluster.compact()
        error = (await client.get(f"{PODS}?watch=1&resourceVersion={old}")).json()  # the one line of a stream that ends
        assert (error["type"], error["object"]["code"]) == ("ERROR", 410)


async def test_the_switch_from_outside(tmp_path: Path) -> None:
    """Faults are switched by the administrator's token over the API itself, and a wrong one is named."""
    async with _open(tmp_path) as (cluster, client):
        number = (await client.post("/faults", json={"kind": "reject", "path": "pods$", "times": 2})).json()["number"]
        assert (await client.get(PODS)).status_code == 503
        assert (await client.get("/faults")).json() == [
            {
                "number": number,
                "left": 1,
                "fault": {
                    "kind": "reject",
                    "verb": "*",
                    "path": "pods$",
                    "times": 2,
                    "lasts": None,
                    "probability": 1.0,
                    "seconds": 0.0,
                    "status": 503,
                    "retry_after": None,
                },
            }
        ]
        await client.delete(f"/faults/{number}")
        assert (await client.get(PODS)).status_code == 200
        wrong = await client.post("/faults", json={"kind": "flood"})
        assert wrong.status_code == 400
        assert "flood" in wrong.json()["message"]
        cluster.access.add_user("other", "somebody")
        other = await client.get("/faults", headers={"authorization": "Bearer other"})
        assert other.status_code == 403


async def test_http2(tmp_path: Path) -> None:
    """A client that offers HTTP/2 gets it."""
    async with open_cluster(data_dir=tmp_path) as cluster:
        trust = ssl.create_default_context(cadata=cluster.ca_pem)
        trust.set_alpn_protocols(["h2"])
        address = cluster.url.removeprefix("https://").split(":")
        stream = await trio.open_ssl_over_tcp_stream(address[0], int(address[1]), ssl_context=trust)
        await stream.do_handshake()
        assert stream.selected_alpn_protocol() == "h2"
        with trio.fail_after(30):
            await stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
            assert (await stream.receive_some(3))[:2] == b"\0\0"  # a SETTINGS frame answers
        await trio.aclose_forcefully(stream)


async def test_a_client_that_never_reads_delays_no_end(tmp_path: Path) -> None:
    """A client that asks for much and reads nothing does not keep the cluster from ending at once."""
    async with open_cluster(data_dir=tmp_path) as cluster:
        for number in range(300):
            big = {"metadata": {"name": f"c{number}", "namespace": "default"}, "data": {"x": "y" * 20_000}}
            cluster.store.create("configmaps", big)
        trust = ssl.create_default_context(cadata=cluster.ca_pem)
        address = cluster.url.removeprefix("https://").split(":")
        stream = await trio.open_ssl_over_tcp_stream(address[0], int(address[1]), ssl_context=trust)
        head = f"GET /api/v1/configmaps HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {cluster.token}\r\n\r\n"
        await stream.send_all(head.encode())
        await trio.sleep(0.1)
        left = trio.current_time()
    assert trio.current_time() - left < 10
    await trio.aclose_forcefully(stream)


async def test_a_cluster_started_again_is_the_same(tmp_path: Path) -> None:
    """In the same folder, a second start has the same CA and token, readable by nobody else, and no objects."""
    async with open_cluster(data_dir=tmp_path) as first:
        first.store.create("configmaps", {"metadata": {"name": "c", "namespace": "default"}})
    async with open_cluster(data_dir=tmp_path) as second:
        assert (second.token, second.ca_pem) == (first.token, first.ca_pem)
        assert [c["metadata"]["name"] for c in second.store.list("configmaps", "default")] == ["kube-root-ca.crt"]
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("authority.pem", "token")} == {0o600}
