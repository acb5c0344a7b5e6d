"""Redis Cluster: keys that it would scatter are refused at the start; a hash tag keeps them together."""

import re
from pathlib import Path

import pytest
import trio

from ottoscaler.cli.playground import find_free_port
from ottoscaler.errors import FixYourCall
from ottoscaler.stream.keys import Keys
from tests.stream.backends import RedisBackend
from tests.stream.conftest import start_own


@pytest.mark.slow_clock
async def test_a_cluster_wants_a_hash_tag(tmp_path: Path) -> None:
    """Without one the start ends with a sentence; with one a cluster's node serves like any other Redis."""
    ports = ("--port", str(find_free_port()), "--cluster-port", str(find_free_port()))
    server = start_own(tmp_path, "--cluster-enabled", "yes", "--bind", "127.0.0.1", *ports)
    try:
        server.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        with trio.fail_after(10):
            while b"cluster_state:ok" not in server.command("CLUSTER", "INFO"):  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.05)
        backend = RedisBackend(server)
        words = f"key {backend.keys.stream} is one of many on a cluster, expected a hash tag, such as "
        with pytest.raises(FixYourCall, match=re.escape(words)):
            await backend.open("one").open_group("0", "default")
        backend.keys = Keys("{otto:scale}:events", "ottoscaler")
        era = await backend.open("one").open_group("0", "default")
        assert era.namespace == "default"
        backend.disconnect()
    finally:
        server.kill()
