"""A whole Ottoscaler as an otto-handler in Node sees it: it scales, watches, runs a pipeline and reads every line."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from ottoscaler.cli.playground import find_free_port, open_cluster, open_serve, without_settings
from tests.node.otto_handler import NodeHandler, open_node_handler

SCRIPT = 'for n in 1 2 3; do echo "line $n"; done; test -z "$OTTO_META_NAP" || sleep "$OTTO_META_NAP"'
ENDS = {"COMPLETED", "FAILED", "TERMINATED"}


@asynccontextmanager
async def open_whole(folder: Path) -> AsyncIterator[NodeHandler]:
    """A local cluster, a scaler without Redis, and the handler in Node that it knows and that knows it."""
    async with trio.open_nursery() as nursery, open_node_handler() as node:
        kubeconfig, port = folder / "kubeconfig", find_free_port()
        environ = {
            **without_settings(os.environ),
            "REDIS_URL": "memory://",
            "KUBECONFIG": str(kubeconfig),
            "NAMESPACE": "default",
            "GRPC_ENABLED": "true",
            "GRPC_PORT": str(port),
            "OTTO_HANDLER_HOST": await node.serve(),
            "WORKER_COMMAND": '["sh", "-c"]',
            "WORKER_ARGS": json.dumps([SCRIPT]),
            "CREATE_FENCE_SECONDS": "1",
            "DRAIN_SECONDS": "0.5",
        }
        said: list[str] = []
        async with open_cluster(nursery, folder, kubeconfig), open_serve(nursery, environ, show=said.append):
            await node.connect(f"127.0.0.1:{port}")
            try:
                yield node
            except BaseException:
                print(*said, sep="\n")  # what pytest shows of a test that failed
                raise


@pytest.mark.slow_clock
@pytest.mark.process
async def test_an_otto_handler_in_node_sees_it_all(tmp_path: Path) -> None:
    """Workers are started, told of, read, stopped and run in stages, each rpc answering as its .proto file says."""
    async with open_whole(tmp_path) as node:
        await node.command(answers={"retry": 4})
        await _scale_up(node)
        await _scale_down(node)
        await _run_pipeline(node)


async def _scale_up(node: NodeHandler) -> None:
    """Three workers run to their end; every line arrives, in order but for those that were asked for again."""
    request = {"task_id": "t", "worker_count": 3, "metadata": {"request_id": "r-1", "wait": "completed"}}
    answer = (await node.call("ScaleUp", request))["answer"]
    names = set(answer["worker_pod_names"])
    assert (answer["status"], answer["processed_count"], len(names)) == ("SUCCESS", 3, 3)
    again = (await node.call("ScaleUp", request))["answer"]
    assert (again["status"], set(again["worker_pod_names"])) == ("ALREADY_PROCESSED", names)

    def has_arrived() -> bool:
        kept = [entry for entry in node.entries if entry["answer"] == "ACK"]
        ended = {status["worker_id"] for status in node.statuses if status["status"] in ENDS}
        return len(kept) >= 9 and ended >= names

    await node.wait(has_arrived)
    kept = {(entry["worker_id"], entry["metadata"]["line"], entry["message"]) for entry in node.entries}
    assert kept == {(name, str(number), f"line {number}") for name in names for number in (1, 2, 3)}
    assert {entry["task_id"] for entry in node.entries} == {"t"}
    for name in names:
        states = [status["status"] for status in node.statuses if status["worker_id"] == name]
        assert [state for state, _ in itertools.groupby(states)] == ["CREATED", "RUNNING", "COMPLETED"]
    answer = (await node.call("GetWorkerStatus", {"task_id": "t", "status_filter": "succeeded"}))["answer"]
    assert (answer["total_count"], answer["succeeded_count"]) == (3, 3)
    assert {worker["pod_name"] for worker in answer["workers"]} == names


async def _scale_down(node: NodeHandler) -> None:
    """Of two workers that would run on, one may remain, then none."""
    up = {"task_id": "long", "worker_count": 2, "metadata": {"nap": "60"}}
    names = set((await node.call("ScaleUp", up))["answer"]["worker_pod_names"])
    stopped = [
        (await node.call("ScaleDown", {"task_id": "long", "worker_count": target}))["answer"] for target in (1, 0)
    ]
    assert [(answer["status"], answer["processed_count"]) for answer in stopped] == [("SUCCESS", 1), ("SUCCESS", 1)]
    assert {name for answer in stopped for name in answer["worker_pod_names"]} == names
    await node.wait(lambda: {each["worker_id"] for each in node.statuses if each["status"] == "TERMINATED"} >= names)


async def _run_pipeline(node: NodeHandler) -> None:
    """Two stages, one after the other; and a wrong one, which is refused by name."""
    stages = [
        {"stage_id": "build", "type": "build", "worker_count": 1},
        {"stage_id": "test", "type": "test", "worker_count": 2, "depends_on": ["build"]},
    ]
    number = await node.begin("ExecutePipeline", {"pipeline_id": "p", "stages": stages})
    assert "end" in await node.wait_end(number)
    ended = [news for news in node.news_of(number) if news["status"] == "STAGE_COMPLETED"]
    assert [(news["stage_id"], news["metrics"]["successful_workers"]) for news in ended] == [("build", 1), ("test", 2)]
    stages[1]["depends_on"] = ["bild"]
    error = (await node.call("ExecutePipeline", {"pipeline_id": "q", "stages": stages}))["error"]
    assert (error["code"], [each["field"] for each in error["violations"]]) == (
        "INVALID_ARGUMENT",
        ["stages[1].depends_on[0]"],
    )
