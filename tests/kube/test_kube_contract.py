"""The real client against the local cluster: two independent readings of one API meet here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from ottoscaler.errors import Conflict, Expired, NotFound, Refused
from ottoscaler.fleet import Fleet, PodRecord
from ottoscaler.kube.access import load_access
from ottoscaler.kube.client import Kube, open_kube
from ottoscaler.kube.manifest import WorkerDefaults, WorkerIdentity, build_pod
from ottoscaler.kube.watch import watch_fleet
from ottoscaler.localcluster.cluster import LocalCluster, open_cluster

pytestmark = [pytest.mark.slow_clock, pytest.mark.process]

NAMESPACE, SELECTOR = "default", "ottoscaler/instance=i1"


def anything_goes() -> None:
    """A lease that never runs out."""


def worker(index: int, script: str, **metadata: str) -> dict[str, Any]:
    """A worker pod that runs a shell script."""
    identity = WorkerIdentity("1-0", index, 2, 1, "i1", "e1", "task 1", tuple(metadata.items()))
    return build_pod(identity, WorkerDefaults(command=["sh", "-c", script]))


@asynccontextmanager
async def opened(tmp_path: Path) -> AsyncIterator[tuple[LocalCluster, Kube, Fleet]]:
    """A local cluster, a client of it by its kubeconfig, and a fleet that is kept up to date."""
    async with open_cluster(data_dir=tmp_path / "data") as cluster:
        cluster.write_kubeconfig(tmp_path / "kubeconfig")
        access = load_access(str(tmp_path / "kubeconfig"), None, {})
        async with open_kube(access, may_write=anything_goes) as kube, trio.open_nursery() as nursery:
            fleet = Fleet()
            await nursery.start(partial(watch_fleet, kube, fleet, NAMESPACE, SELECTOR))
            with trio.fail_after(50):
                yield cluster, kube, fleet
            nursery.cancel_scope.cancel(reason="the test is over")


def has_ended(record: PodRecord | None) -> bool:
    """Whether the pod has reached its last phase."""
    return record is not None and record.is_final


def is_gone(record: PodRecord | None) -> bool:
    """Whether the pod was deleted."""
    return record is not None and record.gone


async def test_workers_run_and_the_fleet_sees_them_end(tmp_path: Path) -> None:
    """Create, run, end, delete: the environment arrives unchanged, exit codes come back, deletions are seen."""
    async with opened(tmp_path) as (_, kube, fleet):
        checked = worker(
            1, 'test "$OTTO_META_PRICE" = \'$(HOME) $5\' && test "$OTTO_TASK_ID" = "task 1"', price="$(HOME) $5"
        )
        for index, body in enumerate((checked, worker(2, "exit 3")), 1):
            name = body["metadata"]["name"]
            with fleet.follow(name) as follow:
                created = await kube.create_pod(NAMESPACE, body)
                record = await follow.wait(has_ended)
                assert record is not None
                assert (record.uid, record.index, record.task_id) == (created["metadata"]["uid"], index, "task 1")
                assert (record.phase, record.exit_code) == [("Succeeded", 0), ("Failed", 3)][index - 1]
                await kube.delete_pod(NAMESPACE, name, uid=record.uid)
                await follow.wait(is_gone)
        assert fleet.records == {}
        await kube.delete_pod(NAMESPACE, name)


async def test_refusals_are_those_of_kubernetes(tmp_path: Path) -> None:
    """A taken name, another uid, a missing pod, an invalid pod, an old version: each its own error."""
    async with opened(tmp_path) as (cluster, kube, _fleet):
        body = worker(1, "sleep 60")
        name = body["metadata"]["name"]
        first = await kube.create_pod(NAMESPACE, body)
        with pytest.raises(Conflict) as taken:
            await kube.create_pod(NAMESPACE, body)
        assert taken.value.reason == "AlreadyExists"
        with pytest.raises(Conflict):
            await kube.delete_pod(NAMESPACE, name, uid="00000000-0000-0000-0000-000000000000")
        with pytest.raises(NotFound):
            await kube.get_pod(NAMESPACE, "none")
        with pytest.raises(Refused) as invalid:
            await kube.create_pod(NAMESPACE, {**body, "metadata": {"name": "Bad_Name"}})
        assert invalid.value.status == 422
        await kube.delete_pod(NAMESPACE, name, grace_seconds=0)
        await kube.create_pod(NAMESPACE, worker(2, "exit 0"))
        cluster.compact()
        with pytest.raises(Expired):
            async for _ in kube.watch_pods(NAMESPACE, SELECTOR, int(first["metadata"]["resourceVersion"]), 5):
                pass
        assert (await kube.get_pod(NAMESPACE, worker(2, "")["metadata"]["name"]))["kind"] == "Pod"


async def test_finished_pods_are_deleted_together_and_running_ones_stay(tmp_path: Path) -> None:
    """The collection delete takes what has ended, and nothing else; pages and reviews work as well."""
    async with opened(tmp_path) as (_, kube, fleet):
        ended, running = worker(1, "exit 0"), worker(2, "sleep 60")
        with fleet.follow(ended["metadata"]["name"]) as follow:
            for body in (running, ended):
                await kube.create_pod(NAMESPACE, body)
            await follow.wait(has_ended)
            await kube.delete_finished_pods(NAMESPACE, SELECTOR)
            await follow.wait(is_gone)
        pods, version = await kube.list_pods(NAMESPACE, SELECTOR)
        assert [pod["metadata"]["name"] for pod in pods] == [running["metadata"]["name"]]
        assert version >= fleet.version
        assert await kube.review_access(NAMESPACE, "create", "pods") == (True, "")
        assert (await kube.version()).startswith("v1.")
