"""The files of `dlq export` and `dlq import`; `-` is stdout or stdin."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ottoscaler.errors import FixYourCall


@contextlib.contextmanager
def written(name: str) -> Iterator[IO[bytes]]:
    """A file to write, or stdout for `-`; a file that exists is replaced when all is written, and not before."""
    if name == "-":
        if sys.stdout is None:
            raise FixYourCall("FILE is '-', expected a stdout that is open")
        yield sys.stdout.buffer
        return
    path = Path(name)
    is_plain = path.is_file() or not path.exists()
    part = path.with_name(f"{path.name}.{os.getpid()}.part") if is_plain else path
    with _explained(name, "a file that can be written"):
        try:
            with part.open("wb") as file:
                yield file
            if is_plain:
                part.replace(path)
        finally:
            if is_plain:
                part.unlink(missing_ok=True)


def lines_of(name: str) -> list[bytes]:
    """The lines of a file, or of stdin for `-`."""
    if name == "-":
        if sys.stdin is None:
            raise FixYourCall("FILE is '-', expected a stdin that is open")
        return sys.stdin.buffer.readlines()
    with _explained(name, "a file that can be read"):
        return Path(name).read_bytes().splitlines()


@contextlib.contextmanager
def _explained(name: str, expected: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FixYourCall(f"FILE is {name!r}, expected {expected} ({error.strerror or error})") from error
