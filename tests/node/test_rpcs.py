"""Every rpc as a client in Node sees it: names, numbers, defaults, streams and errors, from the .proto files alone."""

from __future__ import annotations

import pytest
import trio

from ottoscaler.cli.playground import find_free_port
from ottoscaler.rpc.door import (
    InvalidCall,
    PipelineCall,
    PipelineNews,
    RetryCall,
    ScaleAnswer,
    ScaleDownCall,
    ScaleUpCall,
    StageCall,
    StageMetrics,
    StatusAnswer,
    StatusQuestion,
    WorkerStatus,
)
from ottoscaler.rpc.http2.connection import Connection
from ottoscaler.rpc.server import RpcServer
from tests.node.otto_handler import open_node_handler
from tests.rpc.stage import FakeDoor, FakeDrain, open_door, settings_with

pytestmark = [pytest.mark.slow_clock, pytest.mark.process]


async def test_every_rpc_from_node() -> None:
    """ScaleUp, ScaleDown, GetWorkerStatus and ExecutePipeline carry every field there and back."""
    async with open_node_handler() as node, open_door() as scene:
        await node.connect(f"127.0.0.1:{scene.port}")
        scene.door.answer = ScaleAnswer(
            status="already_processed",
            message="m",
            processed_count=1,
            worker_pod_names=("w",),
            started_at="s",
            first_status="failed",
        )
        request = {
            "task_id": "t",
            "repository": "r",
            "commit_sha": "c",
            "worker_count": 2,
            "build_config": {"a": "b"},
            "triggered_by": "me",
            "reason": "why",
            "metadata": {"request_id": "i", "wait": "completed", "x": "y"},
        }
        assert (await node.call("ScaleUp", request))["answer"] == {
            "status": "ALREADY_PROCESSED",
            "message": "m",
            "processed_count": 1,
            "worker_pod_names": ["w"],
            "started_at": "s",
            "completed_at": "",
            "first_status": "FAILED",
        }
        assert (await node.call("ScaleDown", {"worker_count": 0}))["answer"]["status"] == "ALREADY_PROCESSED"
        worker = WorkerStatus(pod_name="w", status="running", labels={"l": "v"}, pod_ip="10.0.0.1")
        scene.door.answer = StatusAnswer(total_count=9, terminated_count=4, workers=(worker,), next_page_token="n")
        answer = (await node.call("GetWorkerStatus", {"task_id": "t", "status_filter": "running"}))["answer"]
        assert (answer["total_count"], answer["terminated_count"], answer["next_page_token"]) == (9, 4, "n")
        assert answer["workers"][0].items() >= {"pod_name": "w", "status": "running", "labels": {"l": "v"}}.items()
    given = {"task_id": "t", "repository": "r", "commit_sha": "c", "triggered_by": "me", "reason": "why"}
    assert scene.door.asked == [
        ScaleUpCall(
            worker_count=2, build_config={"a": "b"}, metadata={"x": "y"}, request_id="i", wait_completed=True, **given
        ),
        ScaleDownCall(target=0),
        StatusQuestion(task_id="t", status_filter="running"),
    ]


async def test_a_pipeline_from_node() -> None:
    """The stages arrive whole, each change comes as it happens, and the stream ends OK."""
    stage = {
        "stage_id": "b",
        "type": "build",
        "name": "B",
        "worker_count": 2,
        "depends_on": ["a"],
        "config": {"k": "v"},
        "image": "i",
        "command": ["c"],
        "args": ["d"],
        "timeout_seconds": 5,
        "retry_policy": {"max_attempts": 3, "retry_delay_seconds": 1, "retryable_failures": ["OOMKilled"]},
    }
    async with open_node_handler() as node, open_door() as scene:
        metrics = StageMetrics(duration_seconds=3, successful_workers=2, total_workers=2)
        scene.door.news = [
            PipelineNews(pipeline_id="p", stage_id="b", status="running", worker_pod_names=("w",)),
            PipelineNews(pipeline_id="p", stage_id="b", status="completed", progress_percentage=100, metrics=metrics),
        ]
        await node.connect(f"127.0.0.1:{scene.port}")
        number = await node.begin("ExecutePipeline", {"pipeline_id": "p", "stages": [stage]})
        assert "end" in await node.wait_end(number)
    first, second = node.news_of(number)
    assert (first["status"], first["worker_pod_names"], first["metrics"]) == ("STAGE_RUNNING", ["w"], None)
    assert (second["status"], second["progress_percentage"]) == ("STAGE_COMPLETED", 100)
    assert second["metrics"].items() >= {"duration_seconds": 3, "successful_workers": 2, "total_workers": 2}.items()
    (call,) = scene.door.asked
    retry = RetryCall(max_attempts=3, retry_delay_seconds=1, retryable_failures=("OOMKilled",))
    asked = StageCall(
        stage_id="b",
        type="build",
        name="B",
        worker_count=2,
        depends_on=("a",),
        config={"k": "v"},
        image="i",
        command=("c",),
        args=("d",),
        timeout_seconds=5,
        retry=retry,
    )
    assert call == PipelineCall(pipeline_id="p", stages=(asked,))


async def test_node_sees_nothing_of_being_sent_away() -> None:
    """Told to leave its connection again and again, grpc-js sees no call fail.

    It learns that a connection is left a moment after the HTTP/2 below it has, and sends what that refuses once more,
    but once only: so each connection has answered calls of every sort before it is left.
    """
    door, port = FakeDoor(), find_free_port()
    server = RpcServer(door, settings_with(port=port, calls_per_second=0))
    rounds = [{"rpc": "ScaleUp", "request": {"worker_count": 1, "task_id": task}} for task in "ab"]
    rounds.append({"rpc": "GetWorkerStatus", "request": {"task_id": "c"}})

    async def wait_moved(before: set[Connection]) -> None:
        while server._connections.keys() <= before:  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.003)
        moved = len(door.asked)
        while min([one.task_id for one in door.asked[moved:]].count(task) for task in "abc") < 2:  # noqa: ASYNC110
            await trio.sleep(0.003)

    async with trio.open_nursery() as nursery, open_node_handler() as node:
        await nursery.start(server.serve, FakeDrain())
        await node.connect(f"127.0.0.1:{port}")
        await node.hammer(*rounds)
        before = set[Connection]()
        for _ in range(30):
            with trio.fail_after(20):
                await wait_moved(before)
            before = set(server._connections)
            server._send_away()
        calls, errors = await node.rest()
        nursery.cancel_scope.cancel(reason="the test is over")
    assert errors == []
    assert min(calls) > 60


async def test_health_in_node() -> None:
    """Check and Watch of grpc.health.v1 say SERVING, for the door and for its service; a drain is told to who watches;
    another name is NOT_FOUND to Check and SERVICE_UNKNOWN to Watch.
    """
    async with open_node_handler() as node, open_door(drain_seconds=20) as scene:
        await node.connect(f"127.0.0.1:{scene.port}")
        for service in ("", "ottoscaler.v1.OttoscalerService"):
            assert (await node.call("Check", {"service": service}))["answer"] == {"status": "SERVING"}
        assert (await node.call("Check", {"service": "other"}))["error"]["code"] == "NOT_FOUND"
        unknown, known = await node.begin("Watch", {"service": "other"}), await node.begin("Watch", {})
        await node.wait(lambda: node.news_of(unknown) and node.news_of(known))
        scene.drain.begin()
        await node.wait(lambda: len(node.news_of(known)) == 2)
        assert (await node.call("Check", {}))["answer"] == {"status": "NOT_SERVING"}
    assert node.news_of(unknown) == [{"status": "SERVICE_UNKNOWN"}]
    assert node.news_of(known) == [{"status": "SERVING"}, {"status": "NOT_SERVING"}]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_in_node(version: str) -> None:
    """Under both of its names reflection lists what is served, and gives the files of our service."""
    requests = [{"list_services": ""}, {"file_containing_symbol": "ottoscaler.v1.OttoscalerService"}]
    async with open_node_handler() as node, open_door() as scene:
        await node.connect(f"127.0.0.1:{scene.port}")
        number = await node.begin(f"ServerReflectionInfo.{version}", requests)
        assert "end" in await node.wait_end(number)
    listed, files = node.news_of(number)
    names = {service["name"] for service in listed["list_services_response"]["service"]}
    assert names >= {
        "ottoscaler.v1.OttoscalerService",
        "grpc.health.v1.Health",
        f"grpc.reflection.{version}.ServerReflection",
    }
    assert len(files["file_descriptor_response"]["file_descriptor_proto"]) == 2


async def test_errors_in_node() -> None:
    """A wrong field is INVALID_ARGUMENT with a BadRequest that Node can read; a deadline and a cancel end the wait."""
    async with open_node_handler() as node, open_door() as scene:
        await node.connect(f"127.0.0.1:{scene.port}")
        scene.door.answer = InvalidCall("worker_count", 0, "a number from 1 on")
        error = (await node.call("ScaleUp", {"worker_count": 0}))["error"]
        said = "worker_count is 0, expected a number from 1 on"
        assert error == {
            "code": "INVALID_ARGUMENT",
            "message": said,
            "violations": [{"field": "worker_count", "description": said}],
        }
        scene.door.answer, scene.door.holds = None, True
        assert (await node.call("ScaleUp", {"worker_count": 1}, deadline=1000))["error"]["code"] == "DEADLINE_EXCEEDED"
        with trio.fail_after(20):
            await scene.door.left.wait()
        scene.door.left, scene.door.entered = trio.Event(), trio.Event()
        number = await node.begin("ExecutePipeline", {"pipeline_id": "p", "stages": [{"stage_id": "a"}]})
        with trio.fail_after(30):
            await scene.door.entered.wait()
        await node.command(id=number, cancel=True)
        assert (await node.wait_end(number))["error"]["code"] == "CANCELLED"
        with trio.fail_after(30):
            await scene.door.left.wait()
    assert scene.door.ended[-1] == "p"
