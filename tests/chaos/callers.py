"""Clients in heavy chaos: they call ScaleUp under request ids, are cut off, and ask again, of whichever replica.

The task of each call is its request id, so that the entries in the streams tell by themselves how many events it is.
"""

from __future__ import annotations

import json
from typing import Any

import grpc
import trio

from ottoscaler.rpc.v1 import scaling_pb2, scaling_pb2_grpc
from tests.chaos.pipelines import broken_pipelines
from tests.chaos.script import Ask
from tests.chaos.stage import BOUND, Run, Stage

LAST_SECONDS = 10.0
PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
"""What a client of a replica under harm may be told."""
ALREADY = scaling_pb2.ScaleResponse.ALREADY_PROCESSED


async def ask_all(stage: Stage) -> None:
    """Every client, from its time on."""
    async with trio.open_nursery() as nursery:
        for ask in stage.run.script.asks:
            nursery.start_soon(_ask_again, stage, ask)


async def _ask_again(stage: Stage, ask: Ask) -> None:
    await trio.sleep(ask.at)
    for turn, patience in enumerate(ask.patience):
        await _ask(stage, ask, turn, patience)
        await trio.sleep(0.1)


async def ask_last(stage: Stage) -> None:
    """When all harm is over each request is asked once more, until it is answered."""
    with trio.move_on_after(BOUND):
        for ask in stage.run.script.asks:
            turn = 0
            while not await _ask(stage, ask, turn, LAST_SECONDS):
                turn += 1
                await trio.sleep(0.2)


async def _ask(stage: Stage, ask: Ask, turn: int, patience: float) -> bool:
    """Ask once; whether there was an answer."""
    lives = list(stage.lives.values())
    life = lives[(int(ask.whom * len(lives)) + turn) % len(lives)]
    try:
        answer = await trio.to_thread.run_sync(_scale_up, life.port, ask, patience)
    except grpc.RpcError as error:
        if error.code() not in PASSING:
            stage.run.complaints.append(f"{ask.request_id} was answered {error.code()}: {error.details()}")
        return False
    stage.run.answers[ask.request_id].append((answer.status, tuple(answer.worker_pod_names)))
    return True


def _scale_up(port: int, ask: Ask, patience: float) -> Any:
    """In a thread of its own, on a connection of its own."""
    metadata = {"request_id": ask.request_id, "plan": ask.plan}
    count = len(ask.plan.split())
    request = scaling_pb2.ScaleRequest(task_id=ask.request_id, worker_count=count, metadata=metadata)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = scaling_pb2_grpc.OttoscalerServiceStub(channel)
        return stub.ScaleUp(request, timeout=patience)


# -- judging


def note_added(run: Run) -> None:
    """Take into `sent` what replicas have added themselves: the events of calls, and the stages that pipelines name."""
    plans = {ask.request_id: ask.plan for ask in run.script.asks}
    for _, fields in (*run.results, *run.dead):
        event_id, task = fields["event_id"], fields.get("task_id", "")
        if task in plans:
            run.sent[event_id] = _sent(plans[task]) | {"task_id": task}
        elif fields.get("type") == "pipeline" and "stages" in fields:
            asked = {stage["stage_id"]: stage for stage in json.loads(run.sent[event_id]["otto.pipeline"])["stages"]}
            for stage in json.loads(fields["stages"]):
                if stage["event_id"]:
                    marks = {"otto.parent": event_id, "stage_id": stage["stage_id"]}
                    run.sent[stage["event_id"]] = _sent(asked[stage["stage_id"]]["config"]["plan"]) | marks


def _sent(plan: str) -> dict[str, str]:
    return {"type": "scale_up", "pod_count": str(len(plan.split())), "plan": plan}


def broken_promises(run: Run) -> list[str]:
    """What does not hold of requests and pipelines."""
    entries = [fields for _, fields in (*run.results, *run.dead)]
    broken = broken_pipelines(run.sent, [fields for _, fields in run.results], [fields for _, fields in run.dead])
    for ask in run.script.asks:
        events = [fields["event_id"] for fields in entries if fields.get("task_id") == ask.request_id]
        answers = run.answers[ask.request_id]
        if len(events) != 1:
            broken.append(f"request {ask.request_id} is {len(events)} events: {events}")
        if not answers:
            broken.append(f"request {ask.request_id} was never answered")
        if len({names for _, names in answers}) > 1:
            broken.append(f"request {ask.request_id} was answered with different names: {answers}")
        if sum(status != ALREADY for status, _ in answers) > 1:
            broken.append(f"request {ask.request_id} was new several times: {answers}")
    return broken
