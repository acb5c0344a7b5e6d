"""The scaler's pod as the chart makes it: image, environment, account and Role, on a file system without write."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import trio
import yaml

from ottoscaler.cli.playground import find_free_port
from tests.deploy.container import Container, can_mount
from tests.deploy.dockerfile import Image
from tests.deploy.helm import Object, Values, render
from tests.deploy.running import open_container, open_place, settings_of
from tests.process.bench import Place

pytestmark = [pytest.mark.process, pytest.mark.slow_clock, pytest.mark.timeout(600)]
NOT_SETTINGS = ("KUBECONFIG", "NAMESPACE", "INSTANCE_NAME", "LOG_FORMAT", "REDIS_URL")
"""What a pod finds out by itself, what the chart says anyway, and a secret."""


def values_for(place: Place) -> Values:
    """The chart's values by which it works at a place."""
    settings = {name: value for name, value in settings_of(place).items() if name not in NOT_SETTINGS}
    doors = {f"{door}_{what}": value for door in ("HTTP", "GRPC") for what, value in open_at(find_free_port()).items()}
    settings |= doors | {"GRPC_ENABLED": "true"}
    return {"name": place.namespace, "settings": settings, "secrets": {"REDIS_URL": place.environ["REDIS_URL"]}}


def open_at(port: int) -> dict[str, str]:
    """Host and port of a door."""
    return {"HOST": "127.0.0.1", "PORT": str(port)}


async def start_account(place: Place, role: Object, folder: Path) -> Path:
    """Bind an account to this Role; the folder of files that its pods find."""
    token, name = "token-of-the-pod", f"system:serviceaccount:{place.namespace}:{place.namespace}"
    body = {"token": token, "name": name, "role": role, "namespace": place.namespace}
    assert (await place.cluster.client.post("/faults/users", json=body)).status_code == 200
    cluster = yaml.safe_load(place.cluster.kubeconfig.read_text())["clusters"][0]["cluster"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    folder.mkdir()
    for file, text in {"token": token, "ca.crt": authority, "namespace": place.namespace}.items():
        (folder / file).write_text(text)
        (folder / file).chmod(0o644)
    return folder


async def create_worker_account(place: Place, account: Object) -> None:
    """The workers' account, as the chart has it."""
    path = f"/api/v1/namespaces/{place.namespace}/serviceaccounts"
    answer = await place.cluster.client.post(path, json=account)
    assert answer.status_code in (201, 404), answer.text  # 404: a cluster without accounts asks for none


@pytest.mark.skipif(not can_mount(), reason="only root can have mounts of its own here")
async def test_the_pod_works_as_shipped(image: Image, folder: Path) -> None:
    """By the chart's ConfigMap, Secret and Role alone, as the pod's user and with nothing to write to: `check` finds
    all well, and `serve` runs an event to its end and leaves with 0 at SIGTERM.
    """
    async with open_place(folder / "pod") as place:
        place.open_gate()
        objects = render(values_for(place), place.namespace)
        account = await start_account(place, objects["Role", place.namespace], folder / "account")
        await create_worker_account(place, objects["ServiceAccount", f"{place.namespace}-worker"])
        pod = Container(image, folder, account)
        url = place.cluster.client.base_url
        environ = {
            **objects["ConfigMap", place.namespace]["data"],
            **objects["Secret", place.namespace]["stringData"],
            "KUBERNETES_SERVICE_HOST": str(url.host),
            "KUBERNETES_SERVICE_PORT": str(url.port),
        }
        done = await trio.to_thread.run_sync(lambda: pod.run("check", **environ))
        assert done.returncode == 0, done.stdout + done.stderr
        assert "FAIL" not in done.stdout
        assert "warn  permission" not in done.stdout
        async with open_container(place, pod, environ) as program:
            for door in ("HTTP", "GRPC"):
                async with await trio.open_tcp_stream("127.0.0.1", int(environ[f"{door}_PORT"])):
                    pass
            place.send(pods=2)
            await place.judge()
            assert await program.stop(30) == 0
