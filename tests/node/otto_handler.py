"""The otto-handler in Node as a test sees it: its packages, its process, and what it tells.

The packages are installed once into a folder below build/ that is named for the lock file; where Node or the packages
cannot be had, tests are skipped and say so.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
INSTALL_SECONDS = 45


def installed_modules() -> Path:
    """The folder of the packages, installed where they are not; skips the test where that is not possible."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node is not installed")
    lock = (HERE / "package-lock.json").read_bytes()
    folder = ROOT / "build" / f"node-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not (folder / "complete").exists():
        _install(folder)
    return folder / "node_modules"


def _install(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    try:
        subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=INSTALL_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        pytest.skip(f"the packages of Node cannot be installed: {error}")
    (folder / "complete").touch()


class NodeHandler:
    """The process. `entries`, `statuses` and `registered` are what it was brought as a handler, in that order."""

    def __init__(self, process: trio.Process) -> None:
        self.entries: list[dict[str, Any]] = []
        self.statuses: list[dict[str, Any]] = []
        self.registered: list[dict[str, Any]] = []
        self._process = process
        self._told: list[dict[str, Any]] = []
        self._news = trio.Event()
        self._calls = 0

    async def read(self) -> None:
        """Take what it tells, until it ends."""
        rest = b""
        assert self._process.stdout is not None
        async for piece in self._process.stdout:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                self._take(json.loads(line))

    def _take(self, told: dict[str, Any]) -> None:
        if "entry" in told:
            self.entries.append(told["entry"] | {"answer": told["status"]})
        elif "status" in told:
            self.statuses.append(told["status"])
        elif "registered" in told:
            self.registered.append(told["registered"])
        else:
            self._told.append(told)
        self._news.set()
        self._news = trio.Event()

    async def command(self, **command: Any) -> None:
        """Send a command."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps(command).encode() + b"\n")

    async def wait(self, condition: Callable[[], Any], seconds: float = 30) -> Any:
        """Wait until a condition over what was told holds, and return what it gives."""
        with trio.fail_after(seconds):
            while not (found := condition()):
                await self._news.wait()
        return found

    async def connect(self, address: str) -> None:
        """Calls go there from now on."""
        await self.command(connect=address)
        await self.wait(lambda: {"connected": address} in self._told)

    async def serve(self) -> str:
        """Serve OttoHandlerLogService and LogStreamingService; the address."""
        await self.command(serve=True)
        told = await self.wait(lambda: [told for told in self._told if "port" in told])
        return f"127.0.0.1:{told[0]['port']}"

    async def begin(self, rpc: str, request: dict[str, Any] | list[dict[str, Any]], **options: Any) -> int:
        """Begin a call, with all of its requests where it takes a stream of them; its number."""
        self._calls += 1
        await self.command(id=self._calls, rpc=rpc, request=request, **options)
        return self._calls

    async def call(self, rpc: str, request: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Call an rpc and return what was told of its end: `answer` or `error`."""
        return await self.wait_end(await self.begin(rpc, request, **options))

    async def wait_end(self, number: int) -> dict[str, Any]:
        """What was told of the end of a call: `answer`, `error` or `end`."""
        ends = ("answer", "error", "end")
        found = await self.wait(lambda: [told for told in self.told_of(number) if any(end in told for end in ends)])
        return dict(found[0])

    async def hammer(self, *rounds: dict[str, Any]) -> None:
        """Call without pause from now on: each of these (`rpc`, `request`) again as soon as it has ended."""
        await self.command(hammer=rounds)

    async def rest(self) -> tuple[list[int], list[dict[str, Any]]]:
        """End that; how often each was called, and all errors."""
        await self.command(rest=True)
        (told,) = await self.wait(lambda: [told for told in self._told if "hammered" in told])
        return told["hammered"], told["errors"]

    def told_of(self, number: int) -> list[dict[str, Any]]:
        """All that was told of a call so far."""
        return [told for told in self._told if told.get("id") == number]

    def news_of(self, number: int) -> list[dict[str, Any]]:
        """The news that a stream has brought so far."""
        return [told["news"] for told in self.told_of(number) if "news" in told]


@asynccontextmanager
async def open_node_handler() -> AsyncIterator[NodeHandler]:
    """A handler in Node, until the end of the block."""
    modules = installed_modules()
    command = ["node", str(HERE / "otto_handler.js"), str(modules), str(ROOT)]
    environ = {
        name: value for name, value in os.environ.items() if "proxy" not in name.lower()
    }  # grpc-js would use one
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ)
        handler = NodeHandler(process)
        nursery.start_soon(handler.read)
        try:
            yield handler
        finally:
            with trio.move_on_after(5, shield=True):
                process.terminate()
                await process.wait()
        nursery.cancel_scope.cancel(reason="the test is over")
