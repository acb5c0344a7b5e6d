"""The image: what the Dockerfile's steps make runs as it will in a cluster, and its lock is complete.

No image is built: the steps are carried out below a folder (`dockerfile.py`), by this machine's Python.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ottoscaler import __version__
from ottoscaler.cli.playground import SERVE_READY, find_free_port
from ottoscaler.cli.programs import Program, open_program
from tests.deploy.dockerfile import Image, StepFailed, build, read_steps
from tests.process.bench import Place, open_bench

ROOT = Path(__file__).parents[2]
LOCKS = {name: ROOT / "deploy" / f"{name}.lock" for name in ("requirements", "build")}
USER = 65532
UNREACHABLE = re.compile(r"Connection|Temporary failure in name|Network is unreachable|Read timed out", re.I)
pytestmark = [pytest.mark.process, pytest.mark.slow_clock, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that any user may enter, which those of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="ottoscaler-image-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def image(folder: Path) -> Image:
    """What the Dockerfile makes; made once."""
    root = folder / "root"
    root.mkdir()
    try:
        return build(ROOT / "Dockerfile", ROOT, root, find_python())
    except StepFailed as failure:
        if UNREACHABLE.search(str(failure)):
            pytest.skip("the package index cannot be reached, and the packages of the lock are not in pip's cache")
        raise


AS_ROOT = os.geteuid() == 0
BECOME = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"] if AS_ROOT else []
"""Only root can become another user; without it the tests' own is not root either."""


def find_python() -> str:
    """A Python of this machine that the image's user can start: that of the tests may lie in root's own folder."""
    look = "import sys, os; os.listdir(sys.prefix); import ssl; sys.exit(sys.version_info < (3, 11))"
    for python in (getattr(sys, "_base_executable", sys.executable), "/usr/local/bin/python3", "/usr/bin/python3"):
        words = [*BECOME, "env", python, "-I", "-c", look]
        if Path(python).exists() and subprocess.run(words, capture_output=True).returncode == 0:
            return python
    pytest.skip("every Python 3.11 or later of this machine lies in a folder that only its owner may enter")


class Container:
    """How a process of the image is started here: its user, its environment, a working directory without write."""

    def __init__(self, image: Image, folder: Path) -> None:
        assert image.user == f"{USER}:{USER}"
        self.directory = folder / "read-only"
        self.directory.mkdir(exist_ok=True)
        self.directory.chmod(0o555)
        self.environ = {name: value.replace("/opt/", f"{image.root}/opt/") for name, value in image.env.items()}
        self.entrypoint = [str(image.place("/opt/ottoscaler/bin") / image.entrypoint[0]), *image.entrypoint[1:]]

    def words(self, *arguments: str) -> list[str]:
        """The command line; `env` goes to the directory first, because what starts it here cannot."""
        return [*BECOME, "env", f"--chdir={self.directory}", *self.entrypoint, *arguments]

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        words = self.words(*arguments)
        return subprocess.run(words, env={**self.environ, **environ}, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def container(image: Image, folder: Path) -> Container:
    """The image, to be run."""
    return Container(image, folder)


def test_the_dockerfile_confines_what_runs() -> None:
    """A numeric user that is not root, exec form everywhere, ports of both doors, and labels with this version."""
    steps = list(read_steps((ROOT / "Dockerfile").read_text()))
    last = dict(steps)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last["USER"])
    assert (last["ENTRYPOINT"], last["CMD"]) == ('["ottoscaler"]', '["serve"]')
    assert last["EXPOSE"] == "8080 9090"
    assert all(argument.startswith("[") for name, argument in steps if name == "RUN")
    assert f'org.opencontainers.image.version="{__version__}"' in last["LABEL"]


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_covers_what_is_needed(name: str) -> None:
    """Every core dependency is there at a version that fits, everything with its hashes; no address is named."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {"requirements": project["project"]["dependencies"], "build": project["build-system"]["requires"]}[name]
    text = LOCKS[name].read_text()
    blocks = re.split(r"\n(?=\S)", text.strip())
    locked = {}
    for block in blocks:
        requirement, *hashes = [line.strip(" \\") for line in block.splitlines()]
        assert hashes
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes)
        parsed = Requirement(requirement)
        (pin,) = parsed.specifier
        assert pin.operator == "=="
        locked[canonicalize_name(parsed.name)] = pin.version
    for each in map(Requirement, needed):
        assert locked[canonicalize_name(each.name)] in each.specifier, f"{each}: `make lock` renews {LOCKS[name].name}"
    assert "://" not in text


def test_it_runs_without_its_sources(container: Container, image: Image) -> None:
    """As another user, in a directory without write: the version, from a tree that holds no source folder and no
    pip, whose bytecode is all there.
    """
    done = container.run("--version")
    assert (done.stdout, done.stderr, done.returncode) == (f"ottoscaler {__version__}\n", "", 0)
    assert [path.name for path in image.root.iterdir()] == ["opt"]
    packages = next(image.place("/opt/ottoscaler/lib").glob("python*/site-packages"))
    assert not list(packages.glob("pip*"))
    sources = list((packages / "ottoscaler").rglob("*.py"))
    bytecode = list((packages / "ottoscaler").rglob("*.pyc"))
    assert len(sources) == len(bytecode) > 100


@asynccontextmanager
async def open_place(folder: Path) -> AsyncIterator[Place]:
    """A Valkey and a cluster that another user may reach."""
    servers = folder / "servers"
    servers.mkdir()
    async with open_bench(servers) as bench, bench.own_valkey("--unixsocketperm", "777") as valkey:
        async with bench.place(valkey=valkey) as place:
            place.cluster.kubeconfig.chmod(0o644)
            yield place


@asynccontextmanager
async def serve(place: Place, container: Container, **settings: str) -> AsyncIterator[Program]:
    """The image's own command, `serve`, at this place."""
    environ = {name: value for name, value in place.environ.items() if name not in os.environ}
    async with open_program(
        place.bench.nursery,
        "serve",
        container.words("serve"),
        ready=SERVE_READY,
        environ={**environ, **container.environ, **settings},
    ) as program:
        yield program


async def test_it_serves_and_checks(container: Container, folder: Path) -> None:
    """`check` finds all well, and `serve` runs an event to its end and leaves with 0 at SIGTERM."""
    async with open_place(folder) as place:
        place.open_gate()
        settings = {name: value for name, value in place.environ.items() if name not in os.environ}
        done = await trio.to_thread.run_sync(lambda: container.run("check", **settings))
        assert done.returncode == 0, done.stdout + done.stderr
        assert "FAIL" not in done.stdout
        port = str(find_free_port())
        async with serve(place, container, HTTP_HOST="127.0.0.1", HTTP_PORT=port, GRPC_ENABLED="false") as program:
            place.send(pods=2)
            await place.judge()
            assert await program.stop(10) == 0
