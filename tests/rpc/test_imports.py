"""What the door does without."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
sys.modules["grpc"] = None  # an import of it fails
import ottoscaler.service, ottoscaler.cli.serve, ottoscaler.cli.check
import ottoscaler.rpc.server, ottoscaler.calls.door, ottoscaler.logs.opening, ottoscaler.rpc.handler_link
print([name for name in sys.modules if name.split(".")[0] == "grpc" and sys.modules[name]])
"""


def test_a_service_with_its_door_does_not_need_grpcio() -> None:
    """The modules of `serve`, with the door and the logs switched on, import nothing of grpcio."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=50)
    assert (done.stdout, done.stderr) == ("[]\n", "")
