"""Nothing outlives the kubelet: the mark that every pod process carries, and the guard that reads it.

Each process that a kubelet starts has the variable `LOCALCLUSTER_CONTAINER` (the container's own directory) in
its environment, and so has everything that it starts, in its process group or not. `kill_marked` finds them
by it. A guard process, started beside the first pod process, waits for its standard input to end, which also
happens when the kubelet is killed by signal 9, and then kills all that carry the kubelet's mark.

Not caught: a process that leaves its group (setsid) and also empties its environment before its last exec.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import psutil

MARK = "LOCALCLUSTER_CONTAINER"
_MARK_BYTES = f"{MARK}=".encode()
_ROUNDS = 100  # a process may fork while it is looked for: look again until nothing is left
_ROUND_SECONDS = 0.01


def marked_processes(root: Path) -> list[tuple[int, str]]:
    """(pid, mark) of all processes whose container directory lies below `root`; other users' are not seen."""
    prefix = f"{root}{os.sep}"
    found = []
    for pid in psutil.pids():
        mark = _mark_of(pid)
        if mark is not None and mark.startswith(prefix):
            found.append((pid, mark))
    return found


def kill_marked(root: Path) -> int:
    """Kill, by signal 9, every process that carries a mark below `root`; how many. Blocks for some milliseconds."""
    killed: set[int] = set()
    for _ in range(_ROUNDS):
        found = {pid for pid, _mark in marked_processes(root)}
        if not found:
            break
        for pid in found:
            kill(pid)
        killed |= found
        time.sleep(_ROUND_SECONDS)
    return len(killed)


def kill(pid: int) -> None:
    """Signal 9 to one process, gone or not."""
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _mark_of(pid: int) -> str | None:
    """The mark of a process, or None; zombies have none."""
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None if os.path.isdir("/proc/self") else _mark_without_proc(pid)  # noqa: PTH112 - called per process
    for variable in content.split(b"\0"):
        if variable.startswith(_MARK_BYTES):
            return variable[len(_MARK_BYTES) :].decode(errors="replace")
    return None


def _mark_without_proc(pid: int) -> str | None:
    try:
        return psutil.Process(pid).environ().get(MARK)
    except (psutil.Error, OSError):
        return None


def guard(root: Path) -> None:
    """Wait for the kubelet's end, then kill what it left."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdin.buffer.read()
    kill_marked(root)


if __name__ == "__main__":
    guard(Path(sys.argv[1]))
