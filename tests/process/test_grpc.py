"""The gRPC door of a real `serve`: calls that survive a kill, are answered through a drain, and need no Redis."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import grpc
import trio

from ottoscaler.cli.playground import find_free_port
from ottoscaler.rpc.v1 import scaling_pb2
from tests.process.bench import Bench, wait_until
from tests.process.together import together

CALL_SECONDS = 50.0
"""Below the limit of a scenario; a call takes a second, but for all else that these two cores may have to do."""
REPLIES: dict[str, Any] = {
    "ScaleUp": scaling_pb2.ScaleResponse,
    "ScaleDown": scaling_pb2.ScaleResponse,
    "GetWorkerStatus": scaling_pb2.WorkerStatusResponse,
}


class Client:
    """A plain gRPC client, each call in a thread."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    async def call(self, name: str, request: Any, timeout: float = CALL_SECONDS) -> Any:
        """One call. Raises `grpc.RpcError`."""
        method = self._channel.unary_unary(
            f"/ottoscaler.v1.OttoscalerService/{name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=REPLIES[name].FromString,
        )
        return await trio.to_thread.run_sync(partial(method, request, timeout=timeout, wait_for_ready=True))

    async def scale_up(self, number: int, **metadata: str) -> scaling_pb2.ScaleResponse:
        """ScaleUp."""
        request = scaling_pb2.ScaleRequest(task_id="t", worker_count=number, metadata=metadata)
        answer: scaling_pb2.ScaleResponse = await self.call("ScaleUp", request)
        return answer


@contextmanager
def client(port: int) -> Iterator[Client]:
    """A client of the door on this port."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Client(channel)


def door(port: int) -> dict[str, str]:
    """The settings of a replica with a door; its lease and its drain outlast a moment in which it gets no CPU."""
    return {"GRPC_ENABLED": "true", "GRPC_PORT": str(port), "LEASE_SECONDS": "3"}


def is_closed(port: int) -> bool:
    """Whether nobody takes connections there any more."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return True
    return False


@together
async def test_an_answered_call_survives_a_kill(bench: Bench) -> None:
    """After kill -9 another replica answers the same request with the same names, and counts and stops the workers."""
    ports = find_free_port(), find_free_port()
    status = scaling_pb2.ScaleResponse.Status
    async with bench.place() as place, place.serve(**door(ports[0])) as one, place.serve(**door(ports[1])):
        with client(ports[0]) as first:
            answer = await first.scale_up(3, request_id="r", branch="main")
            assert (answer.status, answer.processed_count) == (status.SUCCESS, 3)
            one.send(signal.SIGKILL)
        with client(ports[1]) as second:
            again = await second.scale_up(3, request_id="r", branch="main")
            assert again.status == status.ALREADY_PROCESSED
            assert list(again.worker_pod_names) == list(answer.worker_pod_names)
            question = scaling_pb2.WorkerStatusRequest(task_id="t")
            assert (await second.call("GetWorkerStatus", question)).total_count == 3
            down = await second.call("ScaleDown", scaling_pb2.ScaleRequest(task_id="t", worker_count=1))
            assert (down.status, down.processed_count) == (status.SUCCESS, 2)
            counted = await second.call("GetWorkerStatus", question)
            assert (counted.total_count, counted.terminated_count) == (3, 2)
        place.open_gate()


@together
async def test_a_waiting_call_is_answered_in_a_drain(bench: Bench) -> None:
    """SIGTERM with a call that waits for the end: the port closes, the call is answered when the workers have ended,
    and the exit is 0, all long before the drain's deadline.
    """
    port = find_free_port()
    async with bench.place() as place, place.serve(**door(port), DRAIN_SECONDS="60") as one:
        with client(port) as asking:
            answers: list[scaling_pb2.ScaleResponse] = []

            async def ask() -> None:
                answers.append(await asking.scale_up(2, wait="completed"))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await place.wait_started(2)
                one.send(signal.SIGTERM)
                await wait_until(lambda: is_closed(port))
                assert answers == []
                place.open_gate()
            assert [answer.status for answer in answers] == [scaling_pb2.ScaleResponse.Status.SUCCESS]
        await one.end()


@together
async def test_a_port_that_is_taken_ends_the_start(bench: Bench) -> None:
    """Exit code 2 and one sentence that names GRPC_PORT."""
    port = find_free_port()
    async with bench.place() as place, place.serve(**door(port)), place.start(**door(port)) as other:
        assert await other.program.wait() == 2
        sentence = f"GRPC_PORT is '{port}', expected a port that is free on 127.0.0.1"
        await wait_until(lambda: [line for line in other.lines if sentence in line] != [])


@together
async def test_calls_need_no_redis(bench: Bench) -> None:
    """With memory:// calls are served from this process alone, and the log says what a crash would cost."""
    port = find_free_port()
    async with bench.place() as place:
        place.open_gate()
        async with place.serve(**door(port), REDIS_URL="memory://") as one:
            assert len(one.said("a crash loses every event")) == 1
            with client(port) as asking:
                answer = await asking.scale_up(2, wait="completed", request_id="r")
                assert (answer.status, answer.processed_count) == (scaling_pb2.ScaleResponse.Status.SUCCESS, 2)
                again = await asking.scale_up(2, request_id="r")
                assert list(again.worker_pod_names) == list(answer.worker_pod_names)
