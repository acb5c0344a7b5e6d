"""A door in a test: a real server on a free port, a client in threads, and a service behind it that plays a script."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import grpc
import trio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ottoscaler.cli.playground import find_free_port
from ottoscaler.rpc.door import (
    Door,
    PipelineCall,
    PipelineNews,
    ScaleAnswer,
    ScaleDownCall,
    ScaleUpCall,
    StatusAnswer,
    StatusQuestion,
)
from ottoscaler.rpc.server import serve_rpc
from ottoscaler.rpc.v1 import scaling_pb2_grpc
from ottoscaler.settings import Settings, load_settings

T = TypeVar("T")
Script = Callable[[Any], Any]


@dataclass
class FakeDoor:
    """Notes what it is asked, and answers what the test says: a value, an error, or after an event."""

    asked: list[Any] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    answer: Any = None
    news: list[PipelineNews] = field(default_factory=list)
    given: int = 0
    release: trio.Event = field(default_factory=trio.Event)
    entered: trio.Event = field(default_factory=trio.Event)
    left: trio.Event = field(default_factory=trio.Event)
    holds: bool = False
    holds_status: bool = False

    async def _answer(self, call: Any, usual: T) -> T:
        self.asked.append(call)
        self.entered.set()
        try:
            if self.holds:
                await self.release.wait()
        except trio.Cancelled as cancelled:
            self.ended.append(str(cancelled))
            self.left.set()
            raise
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer if self.answer is not None else usual

    async def scale_up(self, call: ScaleUpCall) -> ScaleAnswer:
        """As `Door`."""
        return await self._answer(call, ScaleAnswer(status="success"))

    async def scale_down(self, call: ScaleDownCall) -> ScaleAnswer:
        """As `Door`."""
        return await self._answer(call, ScaleAnswer(status="success"))

    async def worker_status(self, question: StatusQuestion) -> StatusAnswer:
        """As `Door`."""
        if isinstance(self.answer, Exception):
            raise self.answer
        self.asked.append(question)
        if self.holds_status:
            await self.release.wait()
        return self.answer if isinstance(self.answer, StatusAnswer) else StatusAnswer()

    async def execute_pipeline(
        self, call: PipelineCall, is_abandoned: Callable[[], bool]
    ) -> AsyncGenerator[PipelineNews, None]:
        """As `Door`."""
        self.asked.append(call)
        self.entered.set()
        try:
            for each in self.news:
                self.given += 1
                yield each
            if self.holds:
                await self.release.wait()
            if isinstance(self.answer, Exception):
                raise self.answer
        finally:
            self.ended.append(call.pipeline_id)
            if call.ends_with_call and is_abandoned():
                self.cancelled.append(call.pipeline_id)
            self.left.set()


class FakeDrain:
    """A drain that a test begins; `seconds` for all of it."""

    def __init__(self, seconds: float = 0.5) -> None:
        self.requested = trio.Event()
        self.deadline = float("inf")
        self._seconds = seconds

    def begin(self) -> None:
        """As SIGTERM does."""
        self.deadline = trio.current_time() + self._seconds
        self.requested.set()

    async def wait_deadline(self) -> None:
        """Return when the time is over."""
        await self.requested.wait()
        await trio.sleep_until(self.deadline)


@dataclass
class Scene:
    """A door that is open."""

    door: FakeDoor
    drain: FakeDrain
    port: int
    channel: grpc.Channel
    closed: trio.Event
    """Set when the door has closed by itself."""

    @property
    def stub(self) -> Any:
        """The client of our service; its types are not generated."""
        return scaling_pb2_grpc.OttoscalerServiceStub(self.channel)

    async def health(self, service: str = "", seconds: float = 20) -> int:
        """The health status of a service."""
        stub: Any = health_pb2_grpc.HealthStub(self.channel)
        answer = await call(stub.Check, health_pb2.HealthCheckRequest(service=service), timeout=seconds)
        return int(answer.status)


async def call(rpc: Callable[..., T], *args: Any, timeout: float = 30, **options: Any) -> T:
    """Call an rpc of a stub in a thread, as Trio's time may not stand still for it."""
    return await trio.to_thread.run_sync(partial(rpc, *args, timeout=timeout, **options), abandon_on_cancel=True)


async def refusal(rpc: Callable[..., Any], *args: Any, **options: Any) -> grpc.RpcError:
    """Call an rpc that must fail, and return its error, which has code(), details() and trailing_metadata()."""
    try:
        answer = await call(rpc, *args, **options)
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"not refused: {answer!r}")


def settings_with(**values: object) -> Settings:
    """Settings with some of the GRPC_ ones given in lower case: tls_cert="…"."""
    environ = {f"GRPC_{name.upper()}": str(value) for name, value in values.items()}
    return load_settings({"GRPC_INSECURE": "true", **environ})


@asynccontextmanager
async def open_door(
    *,
    credentials: grpc.ChannelCredentials | None = None,
    drain_seconds: float = 0.5,
    service: Door | None = None,
    **values: object,
) -> AsyncIterator[Scene]:
    """Serve with `values` as GRPC_ settings until the end of the block; a client's channel beside it.

    Behind it is a `FakeDoor`, or another `service`.
    """
    port = find_free_port()
    door, drain, closed = FakeDoor(), FakeDrain(drain_seconds), trio.Event()
    settings = settings_with(port=port, **values)

    async def serve(*, task_status: trio.TaskStatus[None]) -> None:
        await serve_rpc(service or door, settings, drain, task_status=task_status)
        closed.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        with open_channel(port, credentials) as channel:
            yield Scene(door, drain, port, channel, closed)
        nursery.cancel_scope.cancel(reason="the test is over")


def open_channel(port: int, credentials: grpc.ChannelCredentials | None = None) -> grpc.Channel:
    """A channel that shares no connection with another."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    if credentials is None:
        return grpc.insecure_channel(f"127.0.0.1:{port}", options)
    return grpc.secure_channel(f"localhost:{port}", credentials, options)


def taken(stream: Iterator[T], count: int) -> list[T]:
    """The first items of a stream, from a thread."""
    return [next(stream) for _ in range(count)]


class Service:
    """Where new connections lead: to each of its ports in turn."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.ports = tuple(ports)
        self._turn = 0

    def pick(self) -> int:
        """The port for one connection."""
        self._turn += 1
        return self.ports[self._turn % len(self.ports)]


async def serve_as_service(
    port: int, to_ports: Sequence[int], *, task_status: trio.TaskStatus[Service] = trio.TASK_STATUS_IGNORED
) -> None:
    """Pass connections on to the ports that `Service` has when they begin."""
    service = Service(to_ports)

    async def pass_on(client: trio.SocketStream) -> None:
        async with client, await trio.open_tcp_stream("127.0.0.1", service.pick()) as replica:
            async with trio.open_nursery() as both:
                both.start_soon(_copy, client, replica)
                await _copy(replica, client)
                both.cancel_scope.cancel(reason="the replica has closed, and all that it said was passed on")

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_tcp, pass_on, port, host="127.0.0.1"))
        task_status.started(service)


async def _copy(source: trio.SocketStream, target: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError):
        async for data in source:
            await target.send_all(data)
        await target.send_eof()
