"""A scaler with its gRPC door open, and a client of it whose calls run in threads."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
import trio

import ottoscaler.rpc  # noqa: F401  first: it keeps gRPC's core from writing to stderr
from benchmarks.arena import Arena
from ottoscaler.cli.playground import find_free_port
from ottoscaler.cli.programs import Program
from ottoscaler.rpc.v1 import scaling_pb2, scaling_pb2_grpc

CALL_SECONDS = 60.0
AT_ONCE = 200
"""Calls at a time. All are of one client, which may have half of the scaler's GRPC_MAX_WAITING_CALLS."""


class Caller:
    """Makes calls on one channel; each raises `grpc.RpcError`."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub: Any = scaling_pb2_grpc.OttoscalerServiceStub(channel)
        self._threads = trio.CapacityLimiter(AT_ONCE)

    async def scale_up(self, workers: int, **metadata: str) -> scaling_pb2.ScaleResponse:
        """ScaleUp, answered when all workers were accepted."""
        request = scaling_pb2.ScaleRequest(task_id="benchmark", worker_count=workers, metadata=metadata)
        answer: scaling_pb2.ScaleResponse = await self._call(self._stub.ScaleUp, request)
        return answer

    async def status(self, task_id: str = "") -> scaling_pb2.WorkerStatusResponse:
        """GetWorkerStatus."""
        request = scaling_pb2.WorkerStatusRequest(task_id=task_id)
        answer: scaling_pb2.WorkerStatusResponse = await self._call(self._stub.GetWorkerStatus, request)
        return answer

    async def _call(self, method: Callable[..., Any], request: Any) -> Any:
        call = partial(method, request, timeout=CALL_SECONDS)
        return await trio.to_thread.run_sync(call, limiter=self._threads)


@asynccontextmanager
async def open_door(arena: Arena, **settings: str) -> AsyncIterator[tuple[Program, Caller]]:
    """A `serve` with its door on a free port, without a limit of calls a second, and a client that has called once."""
    port = find_free_port()
    door = {"GRPC_ENABLED": "true", "GRPC_PORT": str(port), "GRPC_CALLS_PER_SECOND": "0"}
    door["GRPC_MAX_WAITING_CALLS"] = str(2 * AT_ONCE)
    async with arena.open_serve(**door, **settings) as serve:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            caller = Caller(channel)
            await caller.status()
            yield serve, caller


async def timed(call: Callable[[], Any], took: list[float]) -> Any:
    """Make a call and note how long it took, ms."""
    begun = time.monotonic()
    answer = await call()
    took.append((time.monotonic() - begun) * 1000)
    return answer
