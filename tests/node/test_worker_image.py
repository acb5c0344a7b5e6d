"""A worker image that sends its own lines to an otto-handler in Node."""

from __future__ import annotations

import os
import sys

import pytest
import trio

from tests.node.otto_handler import open_node_handler


@pytest.mark.slow_clock
@pytest.mark.process
async def test_forward_to_an_otto_handler_in_node() -> None:
    """`forward` registers, keeps the limit of bytes, and sends again what is asked for again, before it ends."""
    async with open_node_handler() as node:
        environ = {**os.environ, "OTTO_HANDLER_HOST": await node.serve(), "OTTO_TASK_ID": "t", "HOSTNAME": "pod-1"}
        await node.command(answers={"retry": 3})
        command = [sys.executable, "-m", "ottoscaler", "forward", "--", "sh", "-c", "seq 1 9; echo long-line; exit 4"]
        with trio.fail_after(45):
            done = await trio.run_process(command, env=environ, capture_stdout=True, capture_stderr=True, check=False)
        kept = [entry for entry in node.entries if entry["answer"] == "ACK"]
    assert (done.returncode, done.stderr) == (4, b"")
    assert [(worker["worker_id"], worker["task_id"]) for worker in node.registered] == [("pod-1", "t")]
    assert {entry["message"] for entry in kept} == {*map(str, range(1, 10)), "long-lin", "e"}
    assert len(kept) == 11
    assert {(entry["worker_id"], entry["source"]) for entry in kept} == {("pod-1", "stdout")}
    assert [entry["message"] for entry in kept if entry["metadata"].get("continued")] == ["long-lin"]
