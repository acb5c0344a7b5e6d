"""Reads the Dockerfile and carries out what its steps do, below a folder, where no docker is at hand.

All stages share one tree, which stands for `/`; in the end only what the last stage copied is left in it. `python` is
one of this machine, given by the test (the one that runs the tests where pip is needed), and what lies below `/usr` is
the machine's and left alone.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

NEVER_COPIED = ("__pycache__", "*.pyc")


@dataclass
class Image:
    """What came of a Dockerfile: its tree, and how a container of it is started."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    user: str = ""
    ports: tuple[int, ...] = ()
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()

    def place(self, path: str) -> Path:
        """Where an absolute path of the image is here."""
        return self.root / path.lstrip("/")


class StepFailed(Exception):
    """A RUN step ended with another code than 0; the message is what it said."""


def read_steps(text: str) -> Iterator[tuple[str, str]]:
    """Each instruction with its argument, continued lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        name, _, argument = line.partition(" ")
        yield name, argument.strip()


def build(dockerfile: Path, context: Path, root: Path, python: str) -> Image:
    """Carry out all steps; raises StepFailed, and ValueError for what this does not know. `python` needs no pip."""
    image, kept = Image(root), list[Path]()
    directory = root
    for name, argument in read_steps(dockerfile.read_text()):
        match name:
            case "ARG":
                pass
            case "FROM":
                image, directory = Image(root), root
            case "WORKDIR":
                directory = image.place(argument)
                directory.mkdir(parents=True, exist_ok=True)
            case "COPY" if argument.startswith("--from="):
                _, source, target = argument.split()
                if source != target:
                    raise ValueError(f"COPY {argument}: expected the same path in both stages")
                kept.append(image.place(target))
            case "COPY":
                *sources, target = argument.split()
                _copy(context, sources, directory / target)
            case "RUN":
                _run(image, json.loads(argument), directory, python)
            case _:
                _note(image, name, argument)
    _drop_all_but(kept, root)
    return image


def _note(image: Image, name: str, argument: str) -> None:
    """What a step says about containers."""
    match name:
        case "ENV":
            image.env |= _pairs(argument)
        case "LABEL":
            image.labels |= _pairs(argument)
        case "USER":
            image.user = argument
        case "EXPOSE":
            image.ports = tuple(map(int, argument.split()))
        case "ENTRYPOINT":
            image.entrypoint = tuple(json.loads(argument))
        case "CMD":
            image.command = tuple(json.loads(argument))
        case _:
            raise ValueError(f"{name}: not known here")


def _pairs(argument: str) -> dict[str, str]:
    return {name: value for name, _, value in (word.partition("=") for word in shlex.split(argument))}


def _copy(context: Path, sources: list[str], target: Path) -> None:
    """A folder's content goes into the target, a file beside the others in it; what is ignored is not there."""
    for source in sources:
        if not is_in_context(context, source):
            raise StepFailed(f"COPY {source}: left out by .dockerignore")
        if (context / source).is_dir():
            shutil.copytree(context / source, target, ignore=shutil.ignore_patterns(*NEVER_COPIED))
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(context / source, target)


def is_in_context(context: Path, path: str) -> bool:
    """Whether .dockerignore lets a path in: the last line that matches it or a folder of it decides."""
    is_in = True
    for line in (context / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#") and any(fnmatch(part, pattern) for part in _folders(path)):
            is_in = line.startswith("!")
    return is_in


def _folders(path: str) -> list[str]:
    parts = Path(path).parts
    return ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _run(image: Image, words: list[str], directory: Path, python: str) -> None:
    """One step; absolute paths are below the tree, and what is meant for the base image's own files does nothing."""
    if any(word.startswith("/usr/") for word in words):
        return
    if words[0] != "python":
        raise ValueError(f"RUN {words}: expected python, the one program that is sure to be there")
    mapped = [str(image.place(word)) if word.startswith(("/opt/", "/wheels")) else word for word in words[1:]]
    program = sys.executable if mapped[:2] == ["-m", "pip"] else python
    done = subprocess.run([program, *mapped], cwd=directory, capture_output=True, text=True, env=_environment())
    if done.returncode:
        raise StepFailed(f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def _environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Ours, without what would let Python see more than the tree, and pip say more than needed."""
    kept = {name: value for name, value in environ.items() if not name.startswith("PYTHON")}
    return {**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}


def _drop_all_but(kept: list[Path], root: Path) -> None:
    """Remove what the last stage does not have."""
    for top in root.iterdir():
        if not any(path.is_relative_to(top) for path in kept):
            shutil.rmtree(top)
            continue
        for inner in top.iterdir():
            if inner not in kept:
                shutil.rmtree(inner)
