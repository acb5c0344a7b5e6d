"""Clients that mean harm, or are broken: clear answers for each, and a door that serves the others as before."""

from __future__ import annotations

import hashlib
import re
import socket
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.settings
import pytest
import trio
from grpc_health.v1 import health_pb2

from ottoscaler.rpc import servicer
from ottoscaler.rpc.v1 import pipeline_pb2, scaling_pb2
from tests.rpc.stage import Scene, call, open_channel, open_door, refusal

pytestmark = pytest.mark.slow_clock
Code = grpc.StatusCode
LONG, LONGER = 15, 50
"""Seconds in which a busy machine does what is asked of it, and for which calls wait here."""
ONE = scaling_pb2.ScaleRequest(worker_count=1)
SERVING = health_pb2.HealthCheckResponse.SERVING


async def is_well(scene: Scene) -> bool:
    """Whether health and a short call are answered to a client of its own, long before what waits here would end."""
    with open_channel(scene.port) as channel:
        health: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        status: Any = channel.unary_unary("/ottoscaler.v1.OttoscalerService/GetWorkerStatus")
        answer = await call(health, b"", timeout=LONG)
        await call(status, b"", timeout=LONG)
    return bool(health_pb2.HealthCheckResponse.FromString(answer).status == SERVING)


def half_open(port: int, path: str, count: int) -> socket.socket:
    """A connection with `count` calls begun and no message sent."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    connection.initiate_connection()
    words = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"), ("te", "trailers")]
    for _ in range(count):
        connection.send_headers(
            connection.get_next_available_stream_id(), [*words, ("content-type", "application/grpc")]
        )
    opened = socket.create_connection(("127.0.0.1", port), 5)
    opened.sendall(connection.data_to_send())
    return opened


async def until_served(rpc: Any, request: Any) -> None:
    """Call until the call is not refused for want of room."""
    while True:
        try:
            await call(rpc, request)
        except grpc.RpcError as error:
            if error.code() != Code.RESOURCE_EXHAUSTED:
                raise
            await trio.sleep(0.02)
        else:
            return


async def test_a_flood_of_waiting_calls_starves_nobody() -> None:
    """Of 1,000 waiting calls as many wait as a client may have, the rest is refused at once; all others go on."""
    async with open_door(max_waiting_calls=100, calls_per_second=0) as scene:
        scene.door.holds = True
        waiting = [scene.stub.ScaleUp.future(ONE, timeout=LONGER) for _ in range(1000)]
        with trio.fail_after(LONG):
            while sum(each.done() for each in waiting) < 950:  # noqa: ASYNC110  they end in gRPC's threads
                await trio.sleep(0.02)
        assert await is_well(scene)
        codes = Counter(each.code() for each in waiting if each.done())
        assert codes == {Code.RESOURCE_EXHAUSTED: 950}
        refused = next(each for each in waiting if each.done())
        assert refused.details() == (
            "50 waiting calls of 127.0.0.1 are being answered, which is the limit of one client"
        )
        scene.door.release.set()
        with trio.fail_after(LONG):
            left = [each for each in waiting if not each.done() or each.code() == Code.OK]
            for each in left:
                await trio.to_thread.run_sync(each.result)
        assert len(left) == 50
        await call(scene.stub.ScaleUp, ONE)


async def test_one_client_does_not_take_all_places(tmp_path: Path) -> None:
    """A client holds half of the waiting places at most, under whatever address; others get the rest until all are
    taken. A client is the name of its token.
    """
    names = ("one", "other", "third")
    tokens = {name: (("authorization", f"Bearer {name}"),) for name in names}
    hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    file = tmp_path / "tokens.yaml"
    file.write_text("".join(f"- {{name: {name}, sha256: {hashes[name]}, roles: [scale]}}\n" for name in names))
    async with open_door(max_waiting_calls=4, tokens_file=file) as scene:
        scene.door.holds = True
        waiting = []
        for number, name in enumerate(("one", "one", "other", "other"), start=1):
            waiting.append(scene.stub.ScaleUp.future(ONE, timeout=LONGER, metadata=tokens[name]))
            while len(scene.door.asked) < number:  # noqa: ASYNC110  calls that arrive in threads set no event here
                await trio.sleep(0.01)
            if number == 2:
                error = await refusal(scene.stub.ScaleUp, ONE, metadata=tokens["one"])
                assert error.code() == Code.RESOURCE_EXHAUSTED
                assert error.details() == "2 waiting calls of one are being answered, which is the limit of one client"
        error = await refusal(scene.stub.ScaleUp, ONE, metadata=tokens["third"])
        assert error.details() == "4 waiting calls are being answered, which is the limit"
        scene.door.release.set()
        with trio.fail_after(LONG):
            await until_served(partial(scene.stub.ScaleUp, metadata=tokens["one"]), ONE)


async def test_streams_that_wait_count_like_calls_that_wait() -> None:
    """A pipeline that is followed takes a place of the waiting calls, and gives it back when its client goes."""
    async with open_door(max_waiting_calls=4) as scene:
        scene.door.holds = True
        streams = [scene.stub.ExecutePipeline(pipeline_pb2.PipelineRequest(), timeout=LONGER) for _ in range(2)]
        while len(scene.door.asked) < 2:  # noqa: ASYNC110  calls that arrive in threads set no event here
            await trio.sleep(0.01)
        assert (await refusal(scene.stub.ScaleUp, ONE)).code() == Code.RESOURCE_EXHAUSTED
        streams[0].cancel()
        await scene.door.left.wait()
        scene.door.release.set()
        with trio.fail_after(LONG):
            await until_served(scene.stub.ScaleUp, ONE)


async def test_a_huge_message_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """A message beyond GRPC_MAX_MESSAGE_BYTES is refused by its length, before it is read; the log has the peer."""
    async with open_door(max_message_bytes=10_000) as scene:
        error = await refusal(scene.stub.ScaleUp, scaling_pb2.ScaleRequest(reason="x" * 20_000))
        assert error.code() == Code.RESOURCE_EXHAUSTED
        assert re.fullmatch(r"Received message larger than max \(2000\d vs. 10000\)", str(error.details()))
        assert scene.door.asked == []
        assert await is_well(scene)
        await until_said(caplog, "ScaleUp", "Received message larger than max (2000")
        request = pipeline_pb2.PipelineRequest(name="x" * 20_000)
        error = await refusal(lambda *args, **options: next(scene.stub.ExecutePipeline(*args, **options)), request)
        assert error.code() == Code.RESOURCE_EXHAUSTED
        await until_said(caplog, "ExecutePipeline", "Received message larger than max (2000")


async def test_a_call_without_its_message_is_told_so() -> None:
    """A client that closes its side without a message hears what is missing, and is no riddle in the log."""
    async with open_door() as scene:
        rpc: Any = scene.channel.stream_unary("/ottoscaler.v1.OttoscalerService/ScaleUp")
        error = await refusal(rpc, iter(()))
        assert (error.code(), error.details()) == (
            Code.INVALID_ARGUMENT,
            "the message is 'missing', expected one message",
        )


async def test_what_is_not_served_is_refused_and_logged(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """An rpc, or a service, that is not there is UNIMPLEMENTED; the log has the peer and, at most in part, the name.
    Who may not call at all is not told that.
    """
    async with open_door() as scene:
        for path in ("/ottoscaler.v1.OttoscalerService/Fly", "/" + "x" * 1000):
            error = await refusal(scene.channel.unary_unary(path), b"")
            assert error.code() == Code.UNIMPLEMENTED
        await until_said(caplog, "unknown", "'/ottoscaler.v1.OttoscalerService/Fly' is not served here")
    file = tmp_path / "tokens.yaml"
    file.write_text(f"- {{name: one, sha256: {'a' * 64}, roles: [scale]}}\n")
    async with open_door(tokens_file=file) as scene:
        error = await refusal(scene.channel.unary_unary("/ottoscaler.v1.OttoscalerService/Fly"), b"")
        assert error.code() == Code.UNAUTHENTICATED


async def until_said(caplog: pytest.LogCaptureFixture, rpc: str, words: str) -> None:
    """Wait until a refusal of an rpc is logged in these words, with its peer."""
    with trio.fail_after(LONG):
        while True:
            facts = [vars(record)["facts"] for record in caplog.records if record.message == "call refused"]
            if any(fact["rpc"] == rpc and fact["reason"].startswith(words) for fact in facts):
                assert all(fact["peer"].startswith("127.0.0.1:") for fact in facts)
                return
            await trio.sleep(0.01)


async def test_a_client_that_calls_too_fast_is_slowed_down() -> None:
    """Beyond GRPC_CALLS_PER_SECOND an address is refused, and served again a moment later."""
    async with open_door(calls_per_second=5) as scene:
        began = trio.current_time()
        asked = [scene.stub.ScaleUp.future(ONE, timeout=LONG) for _ in range(40)]
        errors = [error for each in asked if (error := await trio.to_thread.run_sync(each.exception)) is not None]
        assert 5 <= len(asked) - len(errors) <= 5 + 5 * (trio.current_time() - began)
        assert {(error.code(), error.details()) for error in errors} == {
            (Code.RESOURCE_EXHAUSTED, "more than 5 calls a second from 127.0.0.1")
        }
        await trio.sleep(0.3)
        await call(scene.stub.ScaleUp, ONE)


@pytest.mark.parametrize(
    "path",
    [
        "/ottoscaler.v1.OttoscalerService/ScaleUp",
        "/ottoscaler.v1.OttoscalerService/GetWorkerStatus",
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ],
)
async def test_calls_without_a_message_do_not_hold_places_for_ever(
    path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Calls that are opened and never say anything are ended after a while; then all places are free again."""
    monkeypatch.setattr(servicer, "MESSAGE_SECONDS", 0.5)
    monkeypatch.setattr(servicer, "PROBE_SECONDS", 0.5)
    monkeypatch.setattr(servicer, "REFLECTION_SECONDS", 0.5)
    async with open_door(max_waiting_calls=20) as scene:
        with half_open(scene.port, path, 60):
            await trio.sleep(0.6)
            with trio.fail_after(LONG):
                health: Any = scene.channel.unary_unary("/grpc.health.v1.Health/Check")
                await until_served(health, b"")
            if rpc := path.rpartition("/")[2].replace("ServerReflectionInfo", ""):
                await until_said(caplog, rpc, "the call had no message within 0.5 s")
                await until_served(scene.stub.GetWorkerStatus, scaling_pb2.WorkerStatusRequest())
                await until_served(scene.stub.ScaleUp, ONE)


async def test_a_thousand_idle_connections_harm_nobody() -> None:
    """1,000 connections that say nothing, and 200 that only begin HTTP/2, leave the door as it was."""
    async with open_door() as scene:
        with ExitStack() as connections:
            for number in range(1000):
                opened = connections.enter_context(socket.create_connection(("127.0.0.1", scene.port), 5))
                if number < 200:
                    opened.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            assert await is_well(scene)  # all of them are let in at this moment
            await call(scene.stub.ScaleUp, ONE)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"\xff" * 100_000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 1000,
    ],
    ids=["http", "tls", "bytes", "frames"],
)
async def test_garbage_on_the_port_harms_nobody(garbage: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    """What is no gRPC is closed; nothing of it reaches stdout or stderr."""
    async with open_door() as scene:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", scene.port), 5) as opened:
                opened.sendall(garbage)
        assert await is_well(scene)
    assert capfd.readouterr() == ("", "")


async def test_a_watcher_that_reads_nothing_stops_no_check() -> None:
    """A client of Watch whose window is closed holds up neither other checks nor the drain."""
    async with open_door(drain_seconds=2) as scene:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        window = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0}  # not one byte may be sent
        connection.local_settings = h2.settings.Settings(client=True, initial_values=window)
        connection.initiate_connection()
        words = [(":method", "POST"), (":scheme", "http"), (":path", "/grpc.health.v1.Health/Watch")]
        words += [(":authority", "x"), ("te", "trailers"), ("content-type", "application/grpc")]
        connection.send_headers(1, words)
        connection.send_data(1, bytes(5), end_stream=True)
        with socket.create_connection(("127.0.0.1", scene.port), 5) as opened:
            opened.sendall(connection.data_to_send())
            await trio.sleep(0.1)
            assert await is_well(scene)
            scene.drain.begin()
            assert await scene.health() == health_pb2.HealthCheckResponse.NOT_SERVING
            with trio.fail_after(LONG):
                await scene.closed.wait()


async def test_clients_that_come_and_go_leave_no_place_taken() -> None:
    """300 calls cancelled at any moment, many before they were begun, give back every place."""
    async with open_door(max_waiting_calls=20, calls_per_second=0) as scene:
        scene.door.holds = True
        for number in range(300):
            waiting = scene.stub.ScaleUp.future(ONE, timeout=LONGER)
            if number % 3:
                await trio.sleep(0.001 * (number % 4))
            waiting.cancel()
        scene.door.release.set()
        scene.door.holds = False
        with trio.fail_after(LONG):
            for _ in range(20):
                await call(retried, scene.stub.ScaleUp)


def retried(rpc: Any, timeout: float) -> None:
    """Ten calls at a time, which is every place that one client has, until all ten get through."""
    for _ in range(100):
        calls = [rpc.future(ONE, timeout=timeout) for _ in range(10)]
        if all(each.exception() is None for each in calls):
            return
    raise AssertionError("a place is still taken")
