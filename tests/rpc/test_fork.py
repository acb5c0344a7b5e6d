"""A process that serves gRPC may start others."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import subprocess
from concurrent.futures import ThreadPoolExecutor
import ottoscaler.rpc
import grpc

server = grpc.server(ThreadPoolExecutor(2))
channel = grpc.insecure_channel(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
server.start()
grpc.channel_ready_future(channel).result(10)
ends = [subprocess.run(["true"], preexec_fn=lambda: sum(range(20000))).returncode for _ in range(80)]
print(sorted(set(ends)))
"""


@pytest.mark.process
def test_children_of_a_serving_process_start() -> None:
    """gRPC's own support of forks aborts one child in twenty; with `ottoscaler.rpc` imported first it is off."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environ, capture_output=True, text=True, timeout=50)
    assert (done.stdout, done.stderr) == ("[0]\n", "")
