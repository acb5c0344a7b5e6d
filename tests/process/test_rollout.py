"""A rollout as an otto-handler sees it: replicas are replaced while it calls, and it notices nothing."""

from __future__ import annotations

import signal

import trio

from ottoscaler.cli.playground import find_free_port
from tests.node.otto_handler import installed_modules, open_node_handler
from tests.process.bench import Bench, Serving
from tests.process.together import together
from tests.rpc.stage import serve_as_service

LAG_SECONDS = 0.3
"""For so long after a SIGTERM the Service still leads to the replica that ends."""
ROUNDS = (
    {"rpc": "ScaleUp", "request": {"task_id": "t", "worker_count": 1, "metadata": {"request_id": "new-#"}}},
    {"rpc": "ScaleUp", "request": {"task_id": "t", "worker_count": 1, "metadata": {"request_id": "same"}}},
    {"rpc": "GetWorkerStatus", "request": {"task_id": "t"}},
)


def door(port: int) -> dict[str, str]:
    """The settings of a replica whose door others reach, as behind a Service."""
    return {"GRPC_ENABLED": "true", "GRPC_PORT": str(port), "GRPC_INSECURE": "true", "DRAIN_SECONDS": "10"}


@together
async def test_a_client_in_node_notices_no_rollout(bench: Bench) -> None:
    """Calling without pause while a replica is replaced, grpc-js sees no call fail; each request is one event."""
    await trio.to_thread.run_sync(installed_modules)  # skips where there is no Node
    ports = find_free_port(), find_free_port()
    async with bench.place() as place, place.serve(**door(ports[0])) as one, place.serve(**door(ports[1])) as other:
        place.open_gate()
        async with trio.open_nursery() as nursery, open_node_handler() as node:
            service = await nursery.start(serve_as_service, service_port := find_free_port(), ports[0])
            await node.connect(f"127.0.0.1:{service_port}")
            await node.hammer(*ROUNDS)
            await one.hear("call is on the stream", times=3)
            one.send(signal.SIGTERM)
            await trio.sleep(LAG_SECONDS)
            service.port = ports[1]
            await one.end()
            served = len(other.said("call is on the stream"))
            await other.hear("call is on the stream", times=served + 3)
            calls, errors = await node.rest()
            nursery.cancel_scope.cancel(reason="the client rests")
        assert errors == []
        assert all(calls)
        place.events |= dict.fromkeys(_asked(one) | _asked(other), 1)
        assert len(place.events) == calls[0] + 1
        await place.judge()


def _asked(replica: Serving) -> set[str]:
    return {line["event_id"] for line in replica.said("call is on the stream")}
