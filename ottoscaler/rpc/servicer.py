"""The rpcs: what each call passes on its way in, in a thread of its lane, and how its answer gets out.

Messages are taken as bytes and as streams, also where a call has only one: so that a call has its place, its token and
its time checked before it may make a thread wait, and that bytes which are no message get an answer like any other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import grpc
import trio
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection, reflection_pb2

from ottoscaler.metrics import RPC_SECONDS
from ottoscaler.rpc import health as health_service
from ottoscaler.rpc import messages
from ottoscaler.rpc.access import Access, Refusals, client_of
from ottoscaler.rpc.answers import NotOffered, NotRead, answer_to
from ottoscaler.rpc.bridge import Bridge, Gone
from ottoscaler.rpc.door import Door, InvalidCall, PipelineCall, PipelineNews
from ottoscaler.rpc.health import Health
from ottoscaler.rpc.lanes import Lane
from ottoscaler.rpc.patience import Patience
from ottoscaler.rpc.tokens import Role
from ottoscaler.rpc.trace_headers import with_trace

SERVICE = "ottoscaler.v1.OttoscalerService"
REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
MESSAGE_SECONDS = 10.0
"""How long an open call may be without its message."""
PROBE_SECONDS = 1.0
"""The same for health checks, which are open to everybody: who holds them up must begin anew all the time."""
REFLECTION_SECONDS = 60.0
CANCEL_SECONDS = 0.2
"""Within this time after the end of its messages a call that gRPC itself refuses turns out to be over."""
MOST_SHOWN = 100
"""Characters of a name that is not ours."""
Context = grpc.ServicerContext
Requests = Iterator[bytes]
Behaviour = Callable[[Requests, Context], Any]


class Lanes(NamedTuple):
    """One for each sort of call, and for what only machines that watch the door ask."""

    waiting: Lane
    short: Lane
    health: Lane
    watching: Lane

    def close(self) -> None:
        """Let all of their threads end."""
        for lane in self:
            lane.close()


class Servicer:
    """Everything that is served. `handlers` gives it to a gRPC server."""

    def __init__(
        self, door: Door, bridge: Bridge, access: Access, health: Health, lanes: Lanes, patience: Patience
    ) -> None:
        self._door = door
        self._bridge = bridge
        self._access = access
        self._health = health
        self._lanes = lanes
        self._patience = patience
        self._refusals = Refusals()
        self._begun = 0.0  # when the last call came, of those that change over to another replica
        self._reflection = reflection.ReflectionServicer([SERVICE, health_service.SERVICE, *REFLECTION])

    async def wait_quiet(self, seconds: float) -> None:
        """Return when no call came for so long; health checks, which nobody ends, do not count."""
        while (left := self._begun + seconds - time.monotonic()) > 0:  # noqa: ASYNC110  calls come in threads
            await trio.sleep(left)

    def handlers(self) -> dict[str, dict[str, grpc.RpcMethodHandler[bytes, bytes]]]:
        """By service and rpc; what is asked for beside them is refused by `unknown`."""
        door, waiting, short = self._door, self._lanes.waiting, self._lanes.short
        ours = {
            "ScaleUp": self._unary(
                "ScaleUp", waiting, "scale", messages.read_scale_up, door.scale_up, messages.write_scale_answer
            ),
            "ScaleDown": self._unary(
                "ScaleDown", waiting, "scale", messages.read_scale_down, door.scale_down, messages.write_scale_answer
            ),
            "GetWorkerStatus": self._unary(
                "GetWorkerStatus",
                short,
                "read",
                messages.read_status_question,
                door.worker_status,
                messages.write_status_answer,
            ),
            "ExecutePipeline": _streaming(waiting, self._execute_pipeline),
        }
        checks = {
            "Check": _one(self._lanes.health, self._check),
            "Watch": _streaming(self._lanes.watching, self._watch),
        }
        reflecting = {"ServerReflectionInfo": _streaming(self._lanes.watching, self._reflect)}
        return {SERVICE: ours, health_service.SERVICE: checks, **dict.fromkeys(REFLECTION, reflecting)}

    def unknown(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Refuse a call that no handler is for, which gRPC would do without a word in the log."""

        def refuse(requests: Requests, context: Context) -> None:
            with self._answering("unknown", context, self._lanes.short, "read"):
                raise NotOffered(f"{str(details.method)[:MOST_SHOWN]!r} is not served here")

        return _one(self._lanes.short, refuse)

    def _unary(
        self,
        rpc: str,
        lane: Lane,
        role: Role,
        read: Callable[[bytes], Any],
        ask: Callable[[Any], Awaitable[Any]],
        write: Callable[[Any], bytes],
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        def answer(requests: Requests, context: Context) -> bytes:
            with self._answering(rpc, context, lane, role):
                call = with_trace(read(self._message(requests, context)), context)
                return write(self._bridge.ask(context, partial(ask, call)))

        return _one(lane, answer)

    def _execute_pipeline(self, requests: Requests, context: Context) -> Iterator[bytes]:
        with self._answering("ExecutePipeline", context, self._lanes.waiting, "scale"):
            call = with_trace(messages.read_pipeline(self._message(requests, context)), context)
            begin = partial(self._door.execute_pipeline, call)
            for news in self._news(context, begin, call):
                yield messages.write_pipeline_news(news)

    def _news(
        self, context: Context, begin: Callable[[], AsyncGenerator[PipelineNews, None]], call: PipelineCall
    ) -> Iterable[PipelineNews]:
        cancel = partial(self._door.cancel_pipeline, call.pipeline_id, "its client went away")
        return self._bridge.stream(context, begin, on_left=cancel if call.ends_with_call else None)

    def _check(self, requests: Requests, context: Context) -> bytes:
        with self._answering("Check", context, self._lanes.health, None):
            return self._health.check(self._message(requests, context, PROBE_SECONDS))

    def _watch(self, requests: Requests, context: Context) -> Iterator[bytes]:
        with self._answering("Watch", context, self._lanes.watching, None):
            watch = partial(self._health.watch, self._message(requests, context))
            yield from self._bridge.stream(context, watch)

    def _reflect(self, requests: Requests, context: Context) -> Iterator[bytes]:
        with (
            self._answering("ServerReflectionInfo", context, self._lanes.watching, "read"),
            self._patience.limit(context, REFLECTION_SECONDS),
        ):
            for answer in self._reflection.ServerReflectionInfo(map(_read_reflection, requests), context):
                yield answer.SerializeToString()

    @contextmanager
    def _answering(self, rpc: str, context: Context, lane: Lane, role: Role | None) -> Iterator[None]:
        """Let a call in and hold its place; an error inside is answered, and logged as a refusal."""
        peer = context.peer()  # it is not told any more when the call is over
        started, code = time.monotonic(), "CANCELLED"  # where nothing else is said: the client is gone
        try:
            client = client_of(peer)
            if role is not None:
                self._begun = started
                client = self._access.admit(context, role) or client
            with lane.room(client):
                yield
            code = "OK"
        except grpc.RpcError:  # from reading: the client is gone
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, the call gets an answer
            answer = answer_to(error)
            code = answer.code.name
            if not isinstance(error, Gone):
                self._refusals.note(peer, rpc, code, answer.message)
            context.set_trailing_metadata(answer.trailer())
            context.abort(answer.code, answer.message)
        finally:
            RPC_SECONDS.labels(rpc, code).observe(time.monotonic() - started)

    def _message(self, requests: Requests, context: Context, seconds: float | None = None) -> bytes:
        """The one message of a call. Raises `NotRead` where it ended before, `Gone` where its deadline passed."""
        seconds, over = seconds or MESSAGE_SECONDS, threading.Event()
        until = time.monotonic() + seconds
        if not context.add_callback(over.set):
            over.set()
        with self._patience.limit(context, seconds), suppress(grpc.RpcError):
            for message in requests:
                return message
        if not over.wait(CANCEL_SECONDS):
            raise InvalidCall("the message", "missing", "one message")
        if time.monotonic() >= until:
            raise NotRead(f"the call had no message within {seconds:g} s")
        if context.time_remaining() <= 0:
            raise Gone
        raise NotRead("its message is larger than GRPC_MAX_MESSAGE_BYTES, or the client left before it was there")


def _one(lane: Lane, behaviour: Behaviour) -> grpc.RpcMethodHandler[bytes, bytes]:
    return grpc.stream_unary_rpc_method_handler(_in_lane(lane, behaviour))


def _streaming(lane: Lane, behaviour: Behaviour) -> grpc.RpcMethodHandler[bytes, bytes]:
    return grpc.stream_stream_rpc_method_handler(_in_lane(lane, behaviour))


def _in_lane(lane: Lane, behaviour: Behaviour) -> Behaviour:
    """The behaviour, run in the lane's pool: grpcio looks for it in this attribute."""

    def run(requests: Requests, context: Context) -> Any:
        return behaviour(requests, context)

    run.experimental_thread_pool = lane.pool  # type: ignore[attr-defined]  # functions take attributes
    return run


def _read_reflection(data: bytes) -> reflection_pb2.ServerReflectionRequest:
    try:
        return reflection_pb2.ServerReflectionRequest.FromString(data)
    except DecodeError as error:
        raise InvalidCall("the message", f"{len(data)} bytes", "a ServerReflectionRequest") from error
