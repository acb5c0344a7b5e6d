"""One container as a local process group: started, its output logged, stopped, and nothing of it left.

The process runs as the user who started the cluster, in a session of its own, with exactly the environment
given. When it ends, what is left of its group is killed, as the end of process 1 ends a container. Writable
files, HOME and the default working directory lie below the container's own directory.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from ottoscaler.localcluster.logs import ContainerLog, Stream
from ottoscaler.localcluster.strays import MARK

DEFAULT_PATH = os.defpath if "/" not in os.environ.get("PATH", "") else os.environ["PATH"]
_SYSTEM_FOLDERS = frozenset({"/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin"})
_READ_BYTES = 64 * 1024
_DRAIN_SECONDS = 0.5  # how long output is awaited of whoever holds the pipes after the group is gone
_REAP_SECONDS = 5.0
_FILES = 16_384  # enough for 4,000 containers at a time
_RUNTIME_FAILURE = "failed to create containerd task: failed to create shim task: OCI runtime create failed"


class StartError(Exception):
    """The process could not be started: the message of a container's StartError (exit code 128)."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"{_RUNTIME_FAILURE}: {cause}: unknown")


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """What to run: `words` (command and args), the pod's `environment`, `working_dir` as the pod names it ("" =
    none), the container's own `directory`, the number of the `run`, and the pod's `host_name`.
    """

    words: list[str]
    environment: dict[str, str]
    working_dir: str
    directory: Path
    run: int = 0
    host_name: str = ""

    @property
    def mark(self) -> str:
        """What every process of this run carries in its environment."""
        return f"{self.directory}:{self.run}"

    def full_environment(self) -> dict[str, str]:
        """The pod's variables; PATH, HOME and HOSTNAME, as a runtime gives them, where it sets none; and the mark that
        says whose process it is.
        """
        given = {"PATH": DEFAULT_PATH, "HOME": str(self.directory), "HOSTNAME": self.host_name}
        return {**given, **self.environment, MARK: self.mark}


class ContainerProcess:
    """A living process group. `run_process` owns it; others may stop it."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._patience = trio.CancelScope()
        self.group = process.pid
        self.out_of_memory = False

    def signal(self, number: signal.Signals) -> None:
        """Signal the whole group, gone or not."""
        try:
            os.killpg(self.group, number)
        except (ProcessLookupError, PermissionError):  # PermissionError: macOS, a group of zombies only
            return

    def request_stop(self, grace: float) -> None:
        """SIGTERM now, and SIGKILL after `grace` seconds; a later request can only shorten the grace."""
        if self._patience.deadline == float("inf"):
            self.signal(signal.SIGTERM)
        self._patience.deadline = min(self._patience.deadline, trio.current_time() + grace)

    def kill(self, *, out_of_memory: bool = False) -> None:
        """SIGKILL at once; `out_of_memory`: because it used more memory than its limit."""
        self.out_of_memory = out_of_memory
        self.signal(signal.SIGKILL)

    async def wait_ended(self) -> None:
        """Wait for the end of the first process, then kill whoever is left of its group (`run_process` alone)."""
        with self._patience:
            await self._process.wait()
        if self._process.returncode is None:
            self.signal(signal.SIGKILL)
            await self._process.wait()
        self.signal(signal.SIGKILL)


async def run_process(plan: ProcessPlan, log: ContainerLog, started: Callable[[ContainerProcess], None]) -> int:
    """Run to the end and return the exit code (128 + n when killed by signal n); raises StartError.

    `started` is called once the process lives. Cancelled: the group is killed at once and its end awaited, a few
    seconds at most.
    """
    process = await _open(plan)
    handle = ContainerProcess(process)
    pipes: dict[Stream, trio.abc.ReceiveStream | None] = {"stdout": process.stdout, "stderr": process.stderr}
    try:
        started(handle)
        async with trio.open_nursery() as pumps:
            for stream, pipe in pipes.items():
                pumps.start_soon(_pump, pipe, log, stream)
            await handle.wait_ended()
            pumps.cancel_scope.deadline = trio.current_time() + _DRAIN_SECONDS
    finally:
        handle.signal(signal.SIGKILL)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _REAP_SECONDS):
            await process.wait()
            for pipe in pipes.values():
                if pipe is not None:
                    await trio.aclose_forcefully(pipe)
    code = process.returncode
    if code is None:
        raise RuntimeError(f"process {process.pid} was killed and yet has not ended after {_REAP_SECONDS} s")
    return 128 - code if code < 0 else code


def raise_file_limit() -> None:
    """Let this process open more files, as each container needs four; its children inherit it. Never fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # macOS has a lower bound of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _open(plan: ProcessPlan) -> trio.Process:
    environment = plan.full_environment()
    directory = _working_directory(plan)
    program = _find_program(plan.words[0], environment["PATH"], directory)
    try:
        return await trio.lowlevel.open_process(
            [program, *plan.words[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=directory,
            start_new_session=True,
        )
    except ValueError as error:  # a NUL in a word or variable
        raise StartError(f"exec {plan.words[0]}: {error}") from error
    except OSError as error:
        if error.errno == errno.E2BIG:
            return await _open_complaint(plan, environment)
        raise StartError(f"exec {plan.words[0]}: {os.strerror(error.errno or errno.EIO)}") from error


async def _open_complaint(plan: ProcessPlan, environment: dict[str, str]) -> trio.Process:
    """What a runtime does with words or variables beyond what exec takes: a container that starts and exits 1."""
    return await trio.lowlevel.open_process(
        ["/bin/sh", "-c", 'echo "exec $0: Argument list too long" >&2; exit 1', plan.words[0][:100]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": environment["PATH"][:1000], MARK: plan.mark},
        start_new_session=True,
    )


def _working_directory(plan: ProcessPlan) -> Path:
    """Where the process starts: a directory of this machine if there is one of that name, else a new own one."""
    plan.directory.mkdir(parents=True, exist_ok=True)
    if not plan.working_dir:
        return plan.directory
    wanted = Path(plan.working_dir)
    if wanted.is_dir():
        return wanted
    if wanted.exists() or any(parent.is_file() for parent in wanted.parents):
        raise StartError(f"chdir `{plan.working_dir}`: Not a directory")
    own = plan.directory / plan.working_dir.lstrip("/")
    own.mkdir(parents=True, exist_ok=True)
    return own


def _find_program(name: str, path: str, directory: Path) -> str:
    """The file to execute. A program that an image would have in a system folder is found anywhere on PATH."""
    if "/" not in name:
        found = shutil.which(name, path=path)
        if found is None:
            raise StartError(f"executable file `{name}` not found in $PATH: No such file or directory")
        return found
    wanted = directory / name
    if not wanted.exists():
        elsewhere = shutil.which(wanted.name, path=path) if str(wanted.parent) in _SYSTEM_FOLDERS else None
        if elsewhere is None:
            raise StartError(f"executable file `{name}` not found in $PATH: No such file or directory")
        return elsewhere
    if wanted.is_dir() or not os.access(wanted, os.X_OK):
        raise StartError("open executable: Permission denied")
    return str(wanted)


async def _pump(source: trio.abc.ReceiveStream | None, log: ContainerLog, stream: Stream) -> None:
    with _broken_pipe_is_the_end():
        while source is not None and (data := await source.receive_some(_READ_BYTES)):
            log.feed(stream, bytes(data))


@contextmanager
def _broken_pipe_is_the_end() -> Iterator[None]:
    try:
        yield
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return
