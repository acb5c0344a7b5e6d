"""A place whose servers another user may reach, and `serve` as the image starts it there."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from ottoscaler.cli.playground import SERVE_READY
from ottoscaler.cli.programs import Program, open_program
from tests.deploy.container import Container
from tests.process.bench import Place, open_bench


@asynccontextmanager
async def open_place(folder: Path) -> AsyncIterator[Place]:
    """A Valkey and a cluster below a new folder."""
    folder.mkdir()
    async with open_bench(folder) as bench, bench.own_valkey("--unixsocketperm", "777") as valkey:
        async with bench.place(valkey=valkey) as place:
            yield place


def settings_of(place: Place) -> dict[str, str]:
    """What of a place's environment is not this process's own."""
    return {name: value for name, value in place.environ.items() if name not in os.environ}


@asynccontextmanager
async def open_container(place: Place, container: Container, settings: Mapping[str, str]) -> AsyncIterator[Program]:
    """The image's own command while the block runs, entered when it is ready."""
    async with open_program(
        place.bench.nursery,
        "serve",
        container.words("serve"),
        ready=SERVE_READY,
        environ={**container.environ, **settings},
    ) as program:
        yield program
