"""`logs`: what workers wrote, one worker plain, those of an event behind their names."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.cli import main, reach
from ottoscaler.cli.logs import Page, follow_logs, show_logs
from ottoscaler.errors import FixYourCall, Unavailable
from tests.logs.kubelet import FakeKubelet

EVENT = "5-0"


class Api:
    """Pods whose logs are files."""

    def __init__(self, nursery: trio.Nursery, folder: Path, *names: str) -> None:
        self.kubelets = {name: FakeKubelet(nursery, folder / name) for name in names}
        self.version = 1
        self.away = 0
        """So many of the next looks at one pod get no answer."""
        self.said: list[str] = []
        self.send, self.changes = trio.open_memory_channel[tuple[str, dict[str, Any]]](100)

    def pod(self, name: str, *, ended: bool = False, started: bool = True) -> dict[str, Any]:
        """A pod as the API gives it."""
        state: dict[str, Any] = {"running": {"startedAt": "2026-11-20T20:41:21Z"}} if started else {}
        if ended:
            times = {"startedAt": "2026-11-20T20:41:21Z", "finishedAt": "2026-11-20T20:41:22Z"}
            state = {"terminated": {"exitCode": 0, "reason": "Completed", **times}}
        self.version += 1
        return {
            "metadata": {
                "name": name,
                "uid": name,
                "resourceVersion": str(self.version),
                "labels": {"ottoscaler/event-id": EVENT, "ottoscaler/index": name[-1], "managed-by": "ottoscaler"},
                "creationTimestamp": f"2026-11-20T20:41:2{name[-1]}Z",
            },
            "spec": {"containers": [{"name": "worker"}]},
            "status": {"phase": "Running", "containerStatuses": [{"name": "worker", "state": state}]},
        }

    async def list_pods(self, namespace: str, selector: str) -> tuple[list[dict[str, Any]], int]:
        """All of them."""
        await trio.lowlevel.checkpoint()
        return [self.pod(name) for name in self.kubelets], self.version

    async def watch_pods(
        self, namespace: str, selector: str, resource_version: int
    ) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        """What the test sends."""
        async for change in self.changes:
            yield change

    async def get_pod(self, namespace: str, name: str) -> dict[str, Any]:
        """One of them."""
        await trio.lowlevel.checkpoint()
        if self.away:
            self.away -= 1
            raise Unavailable("the API is away", status=503)
        return self.pod(name)

    async def read_log(
        self,
        namespace: str,
        name: str,
        container: str,
        *,
        follow: bool,
        since: str = "",
        limit_bytes: int | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """The log of one."""
        assert container == "worker"
        async for piece in self.kubelets[name].read(follow=follow, since=since, limit_bytes=limit_bytes):
            yield piece


@asynccontextmanager
async def opened(folder: Path, *names: str) -> AsyncGenerator[tuple[Api, list[bytes]], None]:
    """An API with these workers, and what was written."""
    async with trio.open_nursery() as nursery:
        api = Api(nursery, folder, *names)
        try:
            yield api, []
        finally:
            for kubelet in api.kubelets.values():
                kubelet.log.close()
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_one_worker_is_shown_plain_and_an_event_with_names(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Bytes of one worker come as they are; of an event each line begins with its worker."""
    async with opened(tmp_path, "w1", "w2") as (api, out):
        api.kubelets["w1"].log.feed("stdout", b"one\n\xff two\n")
        api.kubelets["w2"].log.feed("stderr", b"three\n")
        await show_logs(api, "otto", "w1", Page("w1", out.append), api.said.append)
        assert b"".join(out) == b"one\n\xff two\n"
        out.clear()
        await show_logs(api, "otto", EVENT, Page(EVENT, out.append), api.said.append)
        assert b"".join(out) == b"w1 | one\nw1 | \xff two\nw2 | three\n"
        out.clear()
        page = Page(EVENT, out.append, is_coloured=True, has_stamps=True)
        assert await show_logs(api, "otto", EVENT, page, api.said.append)
        assert b"".join(out).startswith(b"\x1b[36mw1\x1b[0m | 2026-")
        assert b"\x1b[33mw2\x1b[0m | 2026-" in b"".join(out)


async def test_following_ends_when_every_worker_has_ended(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Lines come as they are written; after the last worker's end the command is over."""
    async with opened(tmp_path, "w1", "w2") as (api, out):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow_logs, api, "otto", EVENT, Page(EVENT, out.append), api.said.append)
            await trio.sleep(1)
            for number, name in enumerate(("w1", "w2", "w1", "w2")):
                api.kubelets[name].log.feed("stdout", b"%d\n" % number)
                await trio.sleep(1)
            assert b"".join(out) == b"w1 | 0\nw2 | 1\nw1 | 2\nw2 | 3\n"
            for name, kubelet in api.kubelets.items():
                kubelet.log.feed("stdout", b"end")
                kubelet.log.close()
                await api.send.send(("MODIFIED", api.pod(name, ended=True)))
        assert sorted(b"".join(out).splitlines())[-1] == b"w2 | end"


async def test_an_api_that_is_away_for_a_moment_ends_no_view(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A look at one pod that fails is tried again, said once; the others are shown meanwhile."""
    async with opened(tmp_path, "w1", "w2") as (api, out):
        api.away = 4
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow_logs, api, "otto", EVENT, Page(EVENT, out.append), api.said.append)
            await trio.sleep(1)
            for name, kubelet in api.kubelets.items():
                kubelet.log.feed("stdout", b"hello\n")
                kubelet.log.close()
                await api.send.send(("MODIFIED", api.pod(name, ended=True)))
        assert sorted(b"".join(out).splitlines()) == [b"w1 | hello", b"w2 | hello"]
        assert sorted(api.said) == [f"{name}: the API is away; it is tried again" for name in ("w1", "w2")]


async def test_an_unknown_target_is_named(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Where no pod is meant the command says what it was given and what it wanted."""
    async with opened(tmp_path, "w1") as (api, out):
        with pytest.raises(FixYourCall, match="there is no pod of '7-0', expected an event or a worker"):
            await show_logs(api, "otto", "7-0", Page("7-0", out.append), api.said.append)


def test_the_command_reads_the_api(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    """`ottoscaler logs WORKER` writes the worker's lines to stdout."""

    @asynccontextmanager
    async def open_api(settings: object) -> AsyncGenerator[Api, None]:
        async with opened(tmp_path, "w1") as (api, _):
            api.kubelets["w1"].log.feed("stdout", b"hello\n")
            yield api

    monkeypatch.setattr(reach, "open_kube_of", open_api)
    assert main(["logs", "w1"]) == 0
    assert capfdbinary.readouterr().out == b"hello\n"
    monkeypatch.setattr(Api, "get_pod", _no_pod)
    assert main(["logs", "w1"]) == 1
    assert capfdbinary.readouterr() == (b"", b"ottoscaler: w1: the API is away\n")
    assert main(["logs", "w9"]) == 2
    assert b"there is no pod of 'w9'" in capfdbinary.readouterr().err


async def _no_pod(api: Api, namespace: str, name: str) -> dict[str, Any]:
    raise Unavailable("the API is away")
