"""A rollout as an otto-handler sees it: replicas are replaced while it calls, and it notices nothing."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack

import trio

from ottoscaler.cli.playground import find_free_port
from tests.node.otto_handler import installed_modules, open_node_handler
from tests.process.bench import Bench, Serving
from tests.process.together import together
from tests.rpc.stage import serve_as_service

ON_THE_STREAM = "call is on the stream"
LAG_SECONDS = 0.3
"""For so long after a SIGTERM the Service still leads to the replica that ends."""
ROUNDS = (
    {"rpc": "ScaleUp", "request": {"task_id": "t", "worker_count": 1, "metadata": {"request_id": "new-#"}}},
    {"rpc": "ScaleUp", "request": {"task_id": "t", "worker_count": 1, "metadata": {"request_id": "same"}}},
    {"rpc": "GetWorkerStatus", "request": {"task_id": "t"}},
)


def door(port: int) -> dict[str, str]:
    """The settings of a replica whose door others reach, as behind a Service."""
    return {"GRPC_ENABLED": "true", "GRPC_PORT": str(port), "GRPC_INSECURE": "true", "DRAIN_SECONDS": "60"}


@together
async def test_a_client_in_node_notices_no_rollout(bench: Bench) -> None:
    """Calling without pause while both replicas are replaced, one after the other, by new ones that are there first,
    grpc-js sees no call fail, though it is with each of them in turn; each request is one event.
    """
    await trio.to_thread.run_sync(installed_modules)  # skips where there is no Node
    ports = [find_free_port() for _ in range(4)]
    async with bench.place() as place, AsyncExitStack() as replicas:
        place.open_gate()
        old = [await replicas.enter_async_context(place.serve(**door(port))) for port in ports[:2]]
        new: list[Serving] = []
        async with trio.open_nursery() as nursery, open_node_handler() as node:
            service = await nursery.start(serve_as_service, service_port := find_free_port(), ports[:1])
            await node.connect(f"127.0.0.1:{service_port}")
            await node.hammer(*ROUNDS)
            for number, ending in enumerate(old):
                await ending.hear(ON_THE_STREAM, times=3)
                new.append(await replicas.enter_async_context(place.serve(**door(ports[2 + number]))))
                service.ports = ports[number : number + 2]
                ending.send(signal.SIGTERM)
                await trio.sleep(LAG_SECONDS)
                service.ports = ports[number + 1 : number + 2]
                await ending.end()
            await new[0].hear(ON_THE_STREAM, times=len(new[0].said(ON_THE_STREAM)) + 3)
            calls, errors = await node.rest()
            nursery.cancel_scope.cancel(reason="the client rests")
        assert errors == []
        assert all(calls)
        place.events |= dict.fromkeys(set().union(*map(_asked, [*old, *new])), 1)
        assert len(place.events) == calls[0] + 1
        await place.judge()


def _asked(replica: Serving) -> set[str]:
    return {line["event_id"] for line in replica.said(ON_THE_STREAM)}
