"""How the door ends: health first, answers for a while, GOAWAY, and the limit of the drain for what waits."""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from typing import Any

import grpc
import pytest
import trio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ottoscaler.cli.playground import find_free_port
from ottoscaler.errors import SettingsError
from ottoscaler.rpc import server as server_module
from ottoscaler.rpc.server import RpcServer, serve_rpc
from ottoscaler.rpc.v1 import pipeline_pb2, scaling_pb2
from tests.rpc.stage import (
    FakeDoor,
    FakeDrain,
    call,
    open_channel,
    open_door,
    refusal,
    serve_as_service,
    settings_with,
    taken,
)

pytestmark = pytest.mark.slow_clock
ONE = scaling_pb2.ScaleRequest(worker_count=1)
LONG, LONGER = 15, 50
"""Seconds in which a busy machine does what is asked of it, and for which a drain or a call would wait here."""
Status = health_pb2.HealthCheckResponse


async def until_refused(port: int) -> None:
    """Return when nobody takes connections there any more."""
    with trio.fail_after(LONG), suppress(ConnectionRefusedError):
        while True:
            socket.create_connection(("127.0.0.1", port), LONG).close()
            await trio.sleep(0.05)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time in which calls are answered on, shortened."""
    monkeypatch.setattr(server_module, "ANSWER_ON_SECONDS", 0.3)


async def test_health_says_not_serving_while_calls_are_answered_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first moment of a drain health is NOT_SERVING, for watchers too, and calls are answered as before; a
    watcher keeps nothing open.
    """
    monkeypatch.setattr(server_module, "ANSWER_ON_SECONDS", 1.5)
    async with open_door(drain_seconds=LONGER) as scene:
        stub: Any = health_pb2_grpc.HealthStub(scene.channel)
        watching = stub.Watch(health_pb2.HealthCheckRequest())
        assert [each.status for each in await trio.to_thread.run_sync(taken, watching, 1)] == [Status.SERVING]
        scene.drain.begin()
        assert [each.status for each in await trio.to_thread.run_sync(taken, watching, 1)] == [Status.NOT_SERVING]
        assert await scene.health() == Status.NOT_SERVING
        assert (await call(scene.stub.ScaleUp, ONE)).status == scaling_pb2.ScaleResponse.SUCCESS
        with trio.fail_after(LONG):
            await scene.closed.wait()
        assert (await refusal(lambda timeout: next(watching))).code() == grpc.StatusCode.UNAVAILABLE


async def test_the_port_closes_after_the_while_and_waiting_calls_go_on(quick: None) -> None:
    """New connections are refused when calls are answered on no more; a call that waits then still gets its answer."""
    async with open_door(drain_seconds=LONGER) as scene:
        scene.door.holds = True
        waiting = scene.stub.ScaleUp.future(ONE, timeout=LONGER)
        await scene.door.entered.wait()
        scene.drain.begin()
        await until_refused(scene.port)
        assert not waiting.done()
        scene.door.release.set()
        assert (await trio.to_thread.run_sync(waiting.result)).status == scaling_pb2.ScaleResponse.SUCCESS
        with trio.fail_after(LONG):
            await scene.closed.wait()


async def test_a_door_with_nothing_to_do_waits_for_nobody(quick: None) -> None:
    """Without calls the door is closed when the time of answering on is over, long before the drain's deadline."""
    async with open_door(drain_seconds=LONGER) as scene:
        started = trio.current_time()
        scene.drain.begin()
        await scene.closed.wait()
        assert trio.current_time() - started < LONG


async def test_what_waits_at_the_deadline_is_told_so(quick: None) -> None:
    """Waiting and streaming calls end with UNAVAILABLE at the drain's deadline; their work is not cancelled."""
    async with open_door(drain_seconds=0.5) as scene:
        scene.door.holds = True
        waiting = scene.stub.ScaleUp.future(ONE, timeout=LONGER)
        await scene.door.entered.wait()
        request = pipeline_pb2.PipelineRequest(pipeline_id="p", metadata={"on_disconnect": "cancel"})
        news = scene.stub.ExecutePipeline(request, timeout=LONGER)
        while len(scene.door.asked) < 2:  # noqa: ASYNC110  a call that arrives in a thread sets no event here
            await trio.sleep(0.01)
        started = trio.current_time()
        scene.drain.begin()
        error = await refusal(lambda timeout: waiting.result(timeout))
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert error.details() == "this replica is about to end; what was begun goes on"
        assert (await refusal(lambda timeout: next(news))).code() == grpc.StatusCode.UNAVAILABLE
        with trio.fail_after(LONG):
            await scene.closed.wait()
        assert trio.current_time() - started < LONG
        assert any("the door is closed" in reason for reason in scene.door.ended)
        assert scene.door.cancelled == []


@pytest.mark.parametrize("leaves", [True, False])
async def test_calls_that_still_come_keep_the_door_open(
    leaves: bool, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where endpoints lead here for too long the door answers on: until the client has changed over, but no longer than
    it may.
    """
    monkeypatch.setattr(server_module, "LINGER_SECONDS", LONGER if leaves else 1.0)
    monkeypatch.setattr(server_module, "QUIET_SECONDS", 1.0)  # for a machine that is busy between two calls
    async with open_door(drain_seconds=LONGER) as scene:
        began = trio.current_time()
        scene.drain.begin()
        with trio.move_on_after(0.8 if leaves else 30), suppress(grpc.RpcError):
            while not scene.closed.is_set():
                await call(scene.stub.ScaleUp, ONE)
                await trio.sleep(0.05)
        with trio.fail_after(LONG):
            await scene.closed.wait()
        assert (0.8 if leaves else 1.3) <= trio.current_time() - began < LONG


async def test_a_short_drain_takes_no_longer_than_it_has() -> None:
    """With less than the usual while left, calls are answered on for that long only."""
    async with open_door(drain_seconds=0.2) as scene:
        started = trio.current_time()
        scene.drain.begin()
        await scene.closed.wait()
        assert trio.current_time() - started < server_module.ANSWER_ON_SECONDS


async def test_clients_change_over_without_a_failed_call(quick: None) -> None:
    """Clients that call without pause, each on one channel, while their replica goes and another is there: no failure.

    Between them stands what a Service is: new connections go to the replica that is ready, others stay where they are.
    """
    ports, service_port = [find_free_port(), find_free_port()], find_free_port()
    drains, doors = [FakeDrain(LONGER), FakeDrain(LONGER)], [FakeDoor(), FakeDoor()]
    outcomes: list[str] = []

    async def client() -> None:
        with open_channel(service_port) as channel:
            stub: Any = channel.unary_unary("/ottoscaler.v1.OttoscalerService/ScaleUp")
            while not is_over.is_set():
                try:
                    await call(stub, ONE.SerializeToString(), timeout=30)  # gRPC's core pauses between connections
                except grpc.RpcError as error:
                    outcomes.append(f"{error.code()}: {error.details()}")
                else:
                    outcomes.append("OK")

    is_over, closed = trio.Event(), trio.Event()

    async def first(*, task_status: trio.TaskStatus[None]) -> None:
        await RpcServer(doors[0], settings_with(port=ports[0])).serve(drains[0], task_status=task_status)
        closed.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(first)
        await nursery.start(RpcServer(doors[1], settings_with(port=ports[1])).serve, drains[1])
        service = await nursery.start(serve_as_service, service_port, ports[:1])
        async with trio.open_nursery() as clients:
            for _ in range(4):
                clients.start_soon(client)
            await doors[0].entered.wait()
            drains[0].begin()
            await trio.sleep(0.1)
            service.ports = (ports[1],)
            await closed.wait()
            with trio.fail_after(LONG):
                await doors[1].entered.wait()
            is_over.set()
        nursery.cancel_scope.cancel(reason="the test is over")
    assert set(outcomes) == {"OK"}


async def test_clients_that_are_sent_away_again_and_again_lose_no_call() -> None:
    """Told to leave their connections at any moment, clients that call without pause see nothing of it."""
    door, port, outcomes = FakeDoor(), find_free_port(), list[str]()
    server, is_over = RpcServer(door, settings_with(port=port, calls_per_second=0)), trio.Event()

    async def client() -> None:
        with open_channel(port) as channel:
            stub: Any = channel.unary_unary("/ottoscaler.v1.OttoscalerService/ScaleUp")
            while not is_over.is_set():
                try:
                    await call(stub, ONE.SerializeToString(), timeout=30)  # gRPC's core pauses between connections
                except grpc.RpcError as error:
                    outcomes.append(f"{error.code()}: {error.details()}")
                else:
                    outcomes.append("OK")

    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, FakeDrain())
        async with trio.open_nursery() as clients:
            for _ in range(3):
                clients.start_soon(client)
            with trio.move_on_after(45):
                while len(outcomes) < 200:
                    await trio.sleep(0.05)
                    server._send_away()
            is_over.set()
        nursery.cancel_scope.cancel(reason="the test is over")
    assert set(outcomes) == {"OK"}
    assert len(outcomes) >= 200


async def test_a_port_that_is_taken_ends_the_start_in_one_sentence() -> None:
    """Two doors on one port: the second says so at once, and does not share the calls in silence."""
    async with open_door() as scene:
        taken_port = f"GRPC_PORT is '{scene.port}', expected a port that is free on 0.0.0.0"
        with pytest.raises(SettingsError, match=re.escape(taken_port)):
            await serve_rpc(FakeDoor(), settings_with(port=scene.port), FakeDrain())
        assert (await call(scene.stub.ScaleUp, ONE)).status == scaling_pb2.ScaleResponse.SUCCESS


async def test_a_cancelled_door_frees_its_port_at_once() -> None:
    """Cancelled without a drain, the door leaves a port that the next one can take."""
    port = find_free_port()
    for _ in range(3):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_rpc, FakeDoor(), settings_with(port=port), FakeDrain())
            nursery.cancel_scope.cancel(reason="the test says so")


async def test_a_door_of_this_machine_alone_is_not_kept_open() -> None:
    """Bound to 127.0.0.1 there are no endpoints that lag: a drain with nothing to do ends at once."""
    async with open_door(drain_seconds=LONGER, host="127.0.0.1") as scene:
        started = trio.current_time()
        scene.drain.begin()
        await scene.closed.wait()
        assert trio.current_time() - started < server_module.ANSWER_ON_SECONDS
