"""The image, made once for all tests that run it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.container import find_python
from tests.deploy.dockerfile import Image, StepFailed, build
from tests.deploy.helm import ROOT

UNREACHABLE = re.compile(r"Connection|Temporary failure in name|Network is unreachable|Read timed out", re.I)


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A folder that any user may enter, which those of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="ottoscaler-image-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def image(folder: Path) -> Image:
    """What the Dockerfile makes."""
    root = folder / "root"
    root.mkdir()
    try:
        return build(ROOT / "Dockerfile", ROOT, root, find_python())
    except StepFailed as failure:
        if UNREACHABLE.search(str(failure)):
            pytest.skip("the package index cannot be reached, and the packages of the lock are not in pip's cache")
        raise
