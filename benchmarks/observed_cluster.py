"""The local cluster as a program of its own, which notes in a file when each request arrives and each pod runs.

`python -m benchmarks.observed_cluster --data DIR --kubeconfig FILE --records FILE [--latency SECONDS]`. One line a
note, appended at least every 50 ms: `TIME WHAT NAME`, where TIME is CLOCK_MONOTONIC (s), which all processes of a
machine share; WHAT is a verb of the API, `running`, or `killed` (deleted before its end); NAME is the pod's where it is
created, runs or is killed, else `-`. When a timed line of a log (`counting_handler.TIMED`) has been handed to the
network, this is `sent`, with the line's stamp as NAME.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import msgspec
import trio

from benchmarks.counting_handler import TIMED
from ottoscaler.cli.running import run_until_signal
from ottoscaler.localcluster.cluster import LocalCluster, open_cluster
from ottoscaler.localcluster.exchange import Request
from ottoscaler.localcluster.faults import Fault
from ottoscaler.localcluster.kubelet import Kubelet
from ottoscaler.localcluster.node import NodeSettings
from ottoscaler.localcluster.routes import Routes
from ottoscaler.localcluster.store import Change

FLUSH_SECONDS = 0.05


class _Metadata(msgspec.Struct):
    name: str


class _Named(msgspec.Struct):
    """As much of a pod as is read of it here."""

    metadata: _Metadata


_decode_named = msgspec.json.Decoder(_Named).decode


@contextmanager
def noting_requests(notes: TextIO) -> Iterator[None]:
    """Note each request right when it has arrived, before any fault and before it is carried out.

    `Routes.describe` is where the server asks what a request is, once for each; it is wrapped, for the cluster has no
    counter of its own.
    """
    describe = Routes.describe

    def describe_and_note(self: Routes, request: Request) -> str:
        arrived = time.monotonic()
        verb = describe(self, request)
        name = _decode_named(request.body).metadata.name if verb == "create" and request.path.endswith("/pods") else "-"
        notes.write(f"{arrived:.6f} {verb} {name}\n")
        return verb

    Routes.describe = describe_and_note  # type: ignore[method-assign]  # see above; undone below
    try:
        yield
    finally:
        Routes.describe = describe  # type: ignore[method-assign]  # the original again


@contextmanager
def noting_timed_lines(notes: TextIO) -> Iterator[None]:
    """Note each timed line of a log when it has been sent, as far as the cluster has to do with it."""
    read_log = Kubelet.read_log

    async def note_sent(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece  # until it was sent
                if TIMED in piece:
                    for line in piece.decode().splitlines():
                        notes.write(f"{time.monotonic():.6f} sent {line.partition(' ')[0]}\n")

    Kubelet.read_log = lambda self, *args: note_sent(read_log(self, *args))  # type: ignore[method-assign]  # as above
    try:
        yield
    finally:
        Kubelet.read_log = read_log  # type: ignore[method-assign]  # the original again


async def note_runs(cluster: LocalCluster, notes: TextIO, *, task_status: trio.TaskStatus[None]) -> None:
    """Note each pod once its container runs (a simulated one writes its first line right then), and those killed."""
    with cluster.store.subscribe("pods") as changes:
        task_status.started()
        async for change in changes:
            if what := what_happened(change):
                notes.write(f"{time.monotonic():.6f} {what} {change.object['metadata']['name']}\n")


def what_happened(change: Change) -> str:
    """`running` where a pod began to run, `killed` where one was deleted before its end, else nothing."""
    pod, previous = change.object, change.previous
    if change.type == "DELETED" or "deletionTimestamp" in pod["metadata"]:
        was_deleted = previous is not None and "deletionTimestamp" in previous["metadata"]
        return "" if was_deleted or has_ended(previous or pod) else "killed"
    before = previous["status"].get("phase") if previous else None
    return "running" if pod["status"].get("phase") == "Running" != before else ""


def has_ended(pod: Mapping[str, Any]) -> bool:
    """Whether all containers have ended, which they tell a second before the phase does."""
    states = [status["state"] for status in pod["status"].get("containerStatuses", ())]
    return bool(states) and all("terminated" in state for state in states)


async def flush(notes: TextIO) -> None:
    """Let readers of the file see the notes."""
    while True:
        await trio.sleep(FLUSH_SECONDS)
        notes.flush()


async def serve(args: argparse.Namespace, notes: TextIO, _: trio.Nursery) -> int:
    """Serve until cancelled; prints one line when ready."""
    settings = NodeSettings(max_log_bytes=args.max_log_bytes)
    async with open_cluster(data_dir=args.data, settings=settings) as cluster, trio.open_nursery() as nursery:
        if args.latency:
            cluster.faults.add(Fault(kind="latency", seconds=args.latency))
        cluster.write_kubeconfig(args.kubeconfig)
        await nursery.start(note_runs, cluster, notes)
        nursery.start_soon(flush, notes)
        print(f"ready at {cluster.url}", flush=True)
    return 0


def main() -> int:
    """Serve until SIGTERM, which is how it is meant to end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.observed_cluster")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--max-log-bytes", type=int, default=NodeSettings.max_log_bytes)
    args = parser.parse_args()
    args.data.mkdir(parents=True, exist_ok=True)
    with args.records.open("a") as notes, noting_requests(notes), noting_timed_lines(notes):
        trio.run(run_until_signal, partial(serve, args, notes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
