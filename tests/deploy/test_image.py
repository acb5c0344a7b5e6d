"""The image: what the Dockerfile's steps make runs as it will in a cluster, and its lock is complete.

No image is built: the steps are carried out below a folder (`dockerfile.py`), by this machine's Python.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import trio
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ottoscaler import __version__
from ottoscaler.cli.playground import find_free_port
from tests.deploy.container import Container
from tests.deploy.dockerfile import Image, read_steps
from tests.deploy.helm import ROOT
from tests.deploy.running import open_container, open_place, settings_of

LOCKS = {name: ROOT / "deploy" / f"{name}.lock" for name in ("requirements", "build")}
pytestmark = [pytest.mark.process, pytest.mark.slow_clock, pytest.mark.timeout(600)]


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
    """Every core dependency, and what traces need, is there at a version that fits, with its hashes; no address is."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    of_image = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["otel"]]
    needed = {"requirements": of_image, "build": project["build-system"]["requires"]}[name]
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
    pip, whose bytecode is all there, and which can send traces.
    """
    done = container.run("--version")
    assert (done.stdout, done.stderr, done.returncode) == (f"ottoscaler {__version__}\n", "", 0)
    assert [path.name for path in image.root.iterdir()] == ["opt"]
    packages = next(image.place("/opt/ottoscaler/lib").glob("python*/site-packages"))
    assert not list(packages.glob("pip*"))
    assert (packages / "opentelemetry" / "sdk").is_dir()
    sources = list((packages / "ottoscaler").rglob("*.py"))
    bytecode = list((packages / "ottoscaler").rglob("*.pyc"))
    assert len(sources) == len(bytecode) > 100


async def test_it_serves_and_checks(container: Container, folder: Path) -> None:
    """`check` finds all well, and `serve` runs an event to its end and leaves with 0 at SIGTERM."""
    async with open_place(folder / "servers") as place:
        place.open_gate()
        port = str(find_free_port())
        settings = settings_of(place) | {"HTTP_HOST": "127.0.0.1", "HTTP_PORT": port, "GRPC_ENABLED": "false"}
        place.cluster.kubeconfig.chmod(0o644)
        done = await trio.to_thread.run_sync(lambda: container.run("check", **settings))
        assert done.returncode == 0, done.stdout + done.stderr
        assert "FAIL" not in done.stdout
        async with open_container(place, container, settings) as program:
            place.send(pods=2)
            await place.judge()
            assert await program.stop(30) == 0
