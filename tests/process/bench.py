"""The real things that tests run on: Valkey, the local cluster, `serve`; and for each test a place of its own on them.

One Valkey and one cluster serve all tests; who freezes or kills one opens it for itself. A `Place` is a stream, an
instance and a namespace that nobody else uses, and a log in which each worker writes down that it ran: the judge of
"nothing lost, nothing twice".
"""

from __future__ import annotations

import base64
import inspect
import itertools
import json
import os
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio
import yaml

from ottoscaler.cli.playground import open_cluster, open_serve, without_settings
from ottoscaler.cli.programs import Program, open_program
from tests.stream.servers import Server, valkey_nine

LOOK_SECONDS = 0.01
NOISE = 10.0
"""What is promised in seconds holds on a quiet machine; here several tests share its cores with all else that runs. It
is far below what a wait without a limit takes.
"""
Ending = dict[str, str]


async def wait_until(condition: Callable[[], Any], seconds: float = 25, *, about: Callable[[], str] = str) -> Any:
    """Return what `condition` gives (or its await) once it is true; AssertionError with its place where it never is."""
    with trio.move_on_after(seconds):
        while True:
            found = condition()
            if found := await found if inspect.isawaitable(found) else found:
                return found
            await trio.sleep(LOOK_SECONDS)
    code = condition.__code__
    raise AssertionError(f"not so in {seconds} s: {Path(code.co_filename).name}:{code.co_firstlineno}\n{about()}")


class Cluster:
    """A running local cluster and its API, faults included."""

    def __init__(self, program: Program, kubeconfig: Path, client: httpx.AsyncClient) -> None:
        self.program = program
        self.kubeconfig = kubeconfig
        self.client = client

    async def fault(self, **fault: Any) -> int:
        """Switch a fault on; its number."""
        answer = await self.client.post("/faults", json=fault)
        assert answer.status_code == 200, answer.text
        return int(answer.json()["number"])

    async def mend(self, number: int) -> None:
        """Switch a fault off."""
        await self.client.delete(f"/faults/{number}")

    async def wait_suffered(self, number: int, times: int = 1) -> None:
        """Return when a fault that was given a number of times has happened so often."""

        async def has_happened() -> bool:
            faults = {each["number"]: each for each in (await self.client.get("/faults")).json()}
            return number not in faults or faults[number]["fault"]["times"] - faults[number]["left"] >= times

        await wait_until(has_happened)

    async def pods(self, namespace: str) -> list[dict[str, Any]]:
        """All pods of a namespace."""
        return list((await self.client.get(f"/api/v1/namespaces/{namespace}/pods")).json()["items"])


@asynccontextmanager
async def start_cluster(
    nursery: trio.Nursery, folder: Path, port: int = 0, *, start_delay: float = 0.0
) -> AsyncIterator[Cluster]:
    """A local cluster below `folder`, whose node takes `start_delay` (s) to start a container."""
    kubeconfig = folder / "kubeconfig"
    options = ("--port", str(port), "--start-delay", str(start_delay))
    async with open_cluster(nursery, folder / "cluster", kubeconfig, *options) as program:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        certificate = ssl.create_default_context(
            cadata=base64.b64decode(cluster["certificate-authority-data"]).decode()
        )
        headers = {"authorization": f"Bearer {user['token']}"}
        async with httpx.AsyncClient(
            base_url=cluster["server"], verify=certificate, headers=headers, timeout=30
        ) as client:
            yield Cluster(program, kubeconfig, client)


class Serving:
    """One running `serve`: its process, what it said, and how it ended."""

    def __init__(self, program: Program, lines: list[str]) -> None:
        self.program = program
        self.lines = lines

    def send(self, number: int) -> None:
        """Send it a signal."""
        self.program.process.send_signal(number)

    async def kill(self) -> None:
        """End it without a word."""
        self.send(signal.SIGKILL)
        assert await self.program.wait() == -signal.SIGKILL

    async def end(self) -> float:
        """Wait for its end, which must be exit code 0; the seconds that it took."""
        begin = time.monotonic()
        code = await self.program.wait()
        assert code == 0, f"exit code {code}\n" + "\n".join(self.lines[-10:])
        return time.monotonic() - begin

    def said(self, *words: str) -> list[dict[str, Any]]:
        """Its log lines that hold all these words."""
        return [json.loads(line) for line in self.lines if all(word in line for word in words)]

    async def hear(self, *words: str, times: int = 1) -> None:
        """Wait for so many log lines that hold all these words (its output comes a moment after what it tells)."""
        await wait_until(
            lambda: len(self.said(*words)) >= times, about=lambda: "\n".join([str(words), *self.lines[-20:]])
        )


class Place:
    """A stream, an instance and a namespace of one test, on a Valkey and a cluster."""

    def __init__(self, bench: Bench, name: str, folder: Path, valkey: Server, cluster: Cluster) -> None:
        folder.mkdir()
        self.bench = bench
        self.valkey = valkey
        self.cluster = cluster
        self.namespace = name
        self.prefix = f"otto:{name}"
        self.events: dict[str, int] = {}  # how many workers each has
        self.refused: list[str] = []
        self._log, self._gate = folder / "log", folder / "gate"
        os.mkfifo(self._gate)
        self._log.touch()
        self._holding: int | None = None
        self._pods_seen: list[str] = []
        self._heard: list[list[str]] = []
        who = "$OTTO_EVENT_ID $OTTO_WORKER_INDEX $OTTO_ATTEMPT"
        script = f'echo "start {who}" >> {self._log}; : < {self._gate}; echo "end {who}" >> {self._log}'
        self.environ = {
            **without_settings(os.environ),
            "REDIS_URL": f"unix://{valkey.path}",
            "REDIS_STREAM": f"{self.prefix}:events",
            "KUBECONFIG": str(cluster.kubeconfig),
            "NAMESPACE": name,
            "INSTANCE_NAME": name,
            "WORKER_COMMAND": '["sh", "-c"]',
            "WORKER_ARGS": json.dumps([script]),
            "LEASE_SECONDS": "1.5",
            "DRAIN_SECONDS": "0.3",
            "CREATE_FENCE_SECONDS": "1",
            "LOG_FORMAT": "json",
            "HTTP_PORT": "0",
            "GRPC_ENABLED": "false",
        }

    # -- acting

    @asynccontextmanager
    async def serve(self, **settings: str) -> AsyncIterator[Serving]:
        """A `serve` here, entered when it is ready."""
        lines = self._listen()
        environ = {**self.environ, **settings}
        async with open_serve(self.bench.nursery, environ, show=lines.append) as program:
            yield Serving(program, lines)

    @asynccontextmanager
    async def start(self, **settings: str) -> AsyncIterator[Serving]:
        """A `serve` here, entered with its first word, whatever becomes of it."""
        lines = self._listen()
        environ = {**self.environ, **settings}
        command = (sys.executable, "-m", "ottoscaler", "serve")
        program = open_program(self.bench.nursery, "serve", command, ready="", environ=environ, show=lines.append)
        async with program as started:
            yield Serving(started, lines)

    def send(self, kind: str = "scale_up", pods: int = 1, **fields: str) -> str:
        """Add an event and return its id."""
        words = itertools.chain(*fields.items())
        event_id = self.command("XADD", f"{self.prefix}:events", "*", "type", kind, "pod_count", pods, *words).decode()
        self.events[event_id] = pods if kind == "scale_up" else 0
        return str(event_id)

    async def start_workers(self, pods: int) -> str:
        """Add an event and return its id once its workers run, as those of all before do."""
        event_id = self.send(pods=pods)
        await self.wait_started(sum(self.events.values()))
        return event_id

    async def finish(self) -> None:
        """Let the workers end, and judge what the next start makes of it."""
        self.open_gate()
        async with self.serve():
            await self.judge()

    def send_bad(self) -> None:
        """Add an entry that is no event."""
        words = ("type", "scale_up", "pod_count", "many")
        self.refused.append(self.command("XADD", f"{self.prefix}:events", "*", *words).decode())

    def open_gate(self) -> None:
        """Let all workers end that wait for it, now and later."""
        self._holding = os.open(self._gate, os.O_RDWR | os.O_NONBLOCK)

    def close(self) -> None:
        """Give back what is held open."""
        if self._holding is not None:
            os.close(self._holding)

    async def fault(self, kind: str, verb: str, **more: Any) -> int:
        """Switch a fault on that only this place suffers, for the first thousand requests."""
        fault = {"kind": kind, "verb": verb, "path": f"/namespaces/{self.namespace}/pods", "times": 1000, **more}
        return await self.cluster.fault(**fault)

    # -- looking

    def command(self, *words: Any) -> Any:
        """One command to Redis."""
        return self.valkey.command(*words)

    def ran(self, what: str) -> list[str]:
        """`event index attempt` of each `start` or `end` that workers wrote down, in order."""
        lines = (line.split(" ", 1) for line in self._log.read_text().splitlines())
        return [identity for word, identity in lines if word == what]

    async def wait_started(self, number: int) -> None:
        """Return when so many workers have begun."""
        await wait_until(lambda: len(self.ran("start")) >= number)

    async def wait_ended(self, number: int) -> None:
        """Return when so many workers have ended."""
        await wait_until(lambda: len(self.ran("end")) >= number)

    def endings(self, where: str = "results") -> list[Ending]:
        """All results, or all dead letters (`dlq`)."""
        entries = self.command("XRANGE", f"{self.prefix}:{where}", "-", "+")
        return [_as_dict(flat) for _, flat in entries]

    async def wait_results(self, number: int, seconds: float = 25) -> list[Ending]:
        """Return the results once there are so many."""
        await wait_until(lambda: len(self.endings()) >= number, seconds)
        return self.endings()

    async def pods(self) -> list[dict[str, Any]]:
        """All pods of this place."""
        return await self.cluster.pods(self.namespace)

    async def has_no_pods(self) -> bool:
        """Whether no pod is left."""
        self._pods_seen = [f"{pod['metadata']} {pod['status'].get('phase')}" for pod in await self.pods()]
        return not self._pods_seen

    def _listen(self) -> list[str]:
        """What one more `serve` will say."""
        self._heard.append([])
        return self._heard[-1]

    def _last_words(self) -> str:
        """The pods that were seen last, and what every `serve` said at the end."""
        return "\n".join([*self._pods_seen, *("\n".join(["-- serve", *lines[-20:]]) for lines in self._heard)])

    # -- judging

    async def judge(self, seconds: float = 25, **statuses: str) -> None:
        """Every event ended exactly once and well (or as `statuses`, by kind, say), each bad entry is one dead letter,
        each worker ran exactly once, and nothing is left. `seconds`: how long that may take.
        """
        await self.wait_results(len(self.events), seconds)
        results = self.endings()
        assert sorted(result["event_id"] for result in results) == sorted(self.events)
        for result in results:
            assert result["status"] == statuses.get(result["type"], "succeeded"), result
        await wait_until(lambda: len(self.endings("dlq")) >= len(self.refused))
        assert sorted(each["event_id"] for each in self.endings("dlq")) == sorted(self.refused)
        expected = [f"{event} {index} 1" for event, pods in self.events.items() for index in range(1, pods + 1)]
        assert sorted(self.ran("start")) == sorted(expected)
        await self.judge_rest()

    async def judge_rest(self) -> None:
        """Nothing is left in Redis but what is meant to stay, no pod and no worker's process."""
        await wait_until(lambda: self.pending() == 0)
        await wait_until(lambda: self.leftovers() == [])
        await wait_until(self.has_no_pods, about=self._last_words)
        await wait_until(lambda: self.processes() == [])

    def pending(self) -> int:
        """Entries that were delivered and are not acknowledged."""
        return int(self.command("XPENDING", f"{self.prefix}:events", "ottoscaler")[0])

    def leftovers(self) -> list[str]:
        """Keys that must not be there when all events have ended."""
        names = [name.decode().removeprefix(f"{self.prefix}:") for name in self.command("KEYS", f"{self.prefix}:*")]
        stay = ("events", "results", "dlq", "done", "era", "sessions", "marker", "tended", "fences", "news", "request")
        return [name for name in names if name.split(":")[0] not in stay]

    def processes(self) -> list[int]:
        """Processes of this place's workers."""
        mark = str(self._gate).encode()
        return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if mark in _read(path)]


def _as_dict(flat: list[bytes]) -> Ending:
    words = [word.decode() for word in flat]
    return dict(zip(words[::2], words[1::2], strict=True))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


class Bench:
    """What all tests share, and where they get things of their own."""

    def __init__(self, nursery: trio.Nursery, folder: Path, valkey: Server, cluster: Cluster) -> None:
        self.nursery = nursery
        self.valkey = valkey
        self.cluster = cluster
        self._folder = folder
        self._numbers = itertools.count(1)

    @asynccontextmanager
    async def place(self, *, valkey: Server | None = None, cluster: Cluster | None = None) -> AsyncIterator[Place]:
        """A fresh place, on the shared servers unless others are given."""
        name = f"place-{next(self._numbers)}"
        place = Place(self, name, self._folder / name, valkey or self.valkey, cluster or self.cluster)
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        assert (await place.cluster.client.post("/api/v1/namespaces", json=body)).status_code == 201
        try:
            yield place
        finally:
            place.close()

    def own_valkey(self, *options: str) -> AbstractAsyncContextManager[Server]:
        """A Valkey of one test, which may freeze and kill it."""
        return _start_valkey(self._new_folder("valkey"), *options)

    @asynccontextmanager
    async def own_cluster(self, port: int = 0) -> AsyncIterator[Cluster]:
        """A cluster of one test, which may freeze and kill it."""
        async with start_cluster(self.nursery, self._new_folder("cluster"), port) as cluster:
            yield cluster

    def _new_folder(self, kind: str) -> Path:
        folder = self._folder / f"{kind}-{next(self._numbers)}"
        folder.mkdir()
        return folder


@asynccontextmanager
async def _start_valkey(folder: Path, *options: str) -> AsyncIterator[Server]:
    """Each write on disk before its answer. Started from the main thread, for a server dies with the one that did."""
    binary = valkey_nine()
    assert binary is not None
    server = Server(binary, folder, "--appendonly", "yes", "--appendfsync", "always", *options)
    try:
        yield server
    finally:
        server.kill()


@asynccontextmanager
async def open_bench(folder: Path) -> AsyncIterator[Bench]:
    """The shared servers, while the block runs."""
    async with trio.open_nursery() as nursery:
        for name in ("valkey", "cluster"):
            (folder / name).mkdir()
        async with (
            _start_valkey(folder / "valkey") as valkey,
            start_cluster(nursery, folder / "cluster") as cluster,
        ):
            yield Bench(nursery, folder, valkey, cluster)
        nursery.cancel_scope.cancel(reason="the tests have ended")
