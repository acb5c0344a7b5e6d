"""The health service, `grpc.health.v1`: what balancers and probes ask; open to everybody."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal, TypeAlias

import trio_util
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from ottoscaler.rpc.answers import NotServed
from ottoscaler.rpc.door import InvalidCall, cut

SERVICE = "grpc.health.v1.Health"
Status: TypeAlias = health_pb2.HealthCheckResponse


class Health:
    """Whether the door serves, for each of `services` and for all of it (the empty name)."""

    def __init__(self, *services: str) -> None:
        self._services = {"", *services}
        self._is_serving = trio_util.AsyncBool(value=True)

    def stop_serving(self) -> None:
        """Say NOT_SERVING from now on."""
        self._is_serving.value = False

    def check(self, data: bytes) -> bytes:
        """The answer to one question. Raises `NotServed`."""
        service = _service(data)
        if service not in self._services:
            raise NotServed(f"{cut(service)!r} is not served here")
        return _answer(Status.SERVING if self._is_serving.value else Status.NOT_SERVING)

    async def watch(self, data: bytes) -> AsyncGenerator[bytes, None]:
        """The answer now and whenever it changes, without end."""
        if _service(data) not in self._services:
            yield _answer(Status.SERVICE_UNKNOWN)
            await trio_util.AsyncBool().wait_value(value=True)
        async with aclosing(self._is_serving.eventual_values()) as values:
            async for is_serving in values:
                yield _answer(Status.SERVING if is_serving else Status.NOT_SERVING)


def _answer(status: Literal[0, 1, 2, 3]) -> bytes:
    return Status(status=status).SerializeToString()


def _service(data: bytes) -> str:
    try:
        return health_pb2.HealthCheckRequest.FromString(data).service
    except DecodeError as error:
        raise InvalidCall("the message", f"{len(data)} bytes", "a HealthCheckRequest") from error
