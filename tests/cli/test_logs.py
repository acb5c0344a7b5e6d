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
from ottoscaler.cli.logs import Page, event_of, show_logs
from ottoscaler.cli.logs_follow import QUIET_SECONDS, follow_logs, open_asking
from ottoscaler.errors import FixYourCall, OttoscalerError, Refused, SettingsError, Unavailable
from ottoscaler.kube.manifest import pod_name
from ottoscaler.settings import load_settings
from ottoscaler.stream.memory import MemoryServer
from tests.logs.kubelet import FakeKubelet

EVENT = "5-0"


class Api:
    """Pods whose logs are files."""

    def __init__(self, nursery: trio.Nursery, folder: Path, *names: str) -> None:
        self.nursery = nursery
        self.ended: set[str] = set()
        self.kubelets = {name: FakeKubelet(nursery, folder / name) for name in names}
        self.version = 1
        self.away = 0
        """So many of the next looks at one pod get no answer."""
        self.is_forbidden = False
        """Whoever asks may not read logs."""
        self.said: list[str] = []
        self.where = "live"
        """How Redis says that the event stands; empty: it cannot be reached."""
        self.send, self.changes = trio.open_memory_channel[tuple[str, dict[str, Any]]](100)

    def pod(self, name: str) -> dict[str, Any]:
        """A pod as the API gives it."""
        state: dict[str, Any] = {"running": {"startedAt": "2026-11-20T20:41:21Z"}}
        if name in self.ended:
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

    async def ask(self, event_id: str) -> str:
        """Redis."""
        await trio.lowlevel.checkpoint()
        if not self.where:
            raise Unavailable("Redis is away")
        assert event_id == EVENT
        return self.where

    async def follow(self, target: str, out: list[bytes]) -> None:
        """`logs TARGET --follow`."""
        await follow_logs(self, "otto", target, Page(target, out.append), self.ask, self.said.append)

    async def start(self, folder: Path, name: str) -> None:
        """A worker that comes later."""
        self.kubelets[name] = FakeKubelet(self.nursery, folder / name)
        await self.send.send(("ADDED", self.pod(name)))

    async def end(self, *names: str) -> None:
        """The last line of some workers, and their end."""
        for name in names:
            self.kubelets[name].log.feed("stdout", b"end")
            self.kubelets[name].log.close()
            self.ended.add(name)
            await self.send.send(("MODIFIED", self.pod(name)))

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
        if self.is_forbidden:
            raise Refused("pods is forbidden", status=403)
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


async def test_following_ends_when_the_event_and_every_worker_have_ended(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Lines come as they are written; after the event's result the last lines are shown, and the command is over."""
    async with opened(tmp_path, "w1", "w2") as (api, out):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(api.follow, EVENT, out)
            await trio.sleep(1)
            for number, name in enumerate(("w1", "w2", "w1", "w2")):
                api.kubelets[name].log.feed("stdout", b"%d\n" % number)
                await trio.sleep(1)
            assert b"".join(out) == b"w1 | 0\nw2 | 1\nw1 | 2\nw2 | 3\n"
            api.where = "ended"
            await trio.sleep(1)
            await api.end("w1", "w2")
        assert sorted(b"".join(out).splitlines())[-1] == b"w2 | end"
        assert api.said == []


async def test_following_waits_for_the_workers_that_come_later(tmp_path: Path, autojump_clock: MockClock) -> None:
    """While the event has no result the view goes on without any worker, and over an outage of Redis, too: the next
    attempt, or who waits for a slot, is shown.
    """
    async with opened(tmp_path, "w1") as (api, out):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(api.follow, EVENT, out)
            await trio.sleep(1)
            await api.end("w1")
            await trio.sleep(600)
            api.where = ""
            await trio.sleep(QUIET_SECONDS - 5)
            api.where = "live"
            await trio.sleep(600)
            await api.start(tmp_path, "w2")
            await trio.sleep(1)
            await api.end("w2")
            await trio.sleep(1)
            api.where = "ended"
        assert [line for line in b"".join(out).splitlines() if b"may be" not in line] == [b"w1 | end", b"w2 | end"]
        assert len(api.said) == 1


async def test_without_redis_following_ends_when_none_came_for_a_while(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Where Redis cannot say whether more will come the view ends some time after the last worker, and says so once."""
    async with opened(tmp_path, "w1") as (api, out):
        api.where = ""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(api.follow, EVENT, out)
            await trio.sleep(100)
            await api.end("w1")
            ended = trio.current_time()
            await trio.sleep(QUIET_SECONDS - 5)
            await api.start(tmp_path, "w2")
            await trio.sleep(1)
            await api.end("w2")
        assert b"w2 | end\n" in b"".join(out)
        assert 2 * QUIET_SECONDS - 5 < trio.current_time() - ended < 2 * QUIET_SECONDS + 5
        assert len(api.said) == 1
        assert api.said[0].startswith("Redis is away; without Redis this ends when no worker is left and none came for")


async def test_following_one_worker_ends_with_its_log(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Of a worker that is named nothing more can come, however the event stands."""
    async with opened(tmp_path, "w1", "w2") as (api, out):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(api.follow, "w1", out)
            await trio.sleep(1)
            await api.end("w1")
        assert b"".join(out) == b"end\n"


async def test_an_event_that_ends_without_a_worker_is_an_error(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Where nothing could be shown the command does not look like one that has shown everything."""
    async with opened(tmp_path) as (api, out):
        async with trio.open_nursery() as nursery:

            async def follow() -> None:
                with pytest.raises(OttoscalerError, match="no pod of '5-0' came"):
                    await api.follow(EVENT, out)

            nursery.start_soon(follow)
            await trio.sleep(5)
            api.where = "ended"


async def test_an_api_that_is_away_for_a_moment_ends_no_view(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A look at one pod that fails is tried again, said once; the others are shown meanwhile."""
    async with opened(tmp_path, "w1", "w2") as (api, out):
        api.away = 4
        async with trio.open_nursery() as nursery:
            nursery.start_soon(api.follow, EVENT, out)
            await trio.sleep(1)
            await api.end("w1", "w2")
            api.where = "ended"
        assert sorted(b"".join(out).splitlines()) == [b"w1 | end", b"w2 | end"]
        assert sorted(api.said) == [f"{name}: the API is away; it is tried again" for name in ("w1", "w2")]


async def test_a_log_that_may_not_be_read_ends_the_view(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Waiting would not help whoever may list pods but not read their logs: the API's own sentence is the end."""
    async with opened(tmp_path, "w1") as (api, out):
        api.is_forbidden = True
        with pytest.RaisesGroup(
            pytest.RaisesExc(FixYourCall, match="pods is forbidden"), allow_unwrapped=True, flatten_subgroups=True
        ):
            await api.follow(EVENT, out)


def test_the_event_of_a_worker_stands_in_its_name() -> None:
    """Names as they are made lead back to the event; those that were too long, or are no worker's, to none."""
    for suffix, attempt in (("", 1), ("1a2b3c", 2), ("9-0", 1)):
        assert event_of(pod_name("1756659802903-0", 12, attempt, suffix)) == "1756659802903-0"
    assert event_of(pod_name("1" * 20 + "-" + "2" * 20, 12, 2, "a" * 20)) == event_of("nosuch") == ""
    assert event_of("5-0") == "5-0"


async def test_an_unknown_target_is_named(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Where no pod is meant the command says what it was given and what it wanted."""
    async with opened(tmp_path, "w1") as (api, out):
        with pytest.raises(FixYourCall, match="there is no pod of '7-0', expected an event, such as 17"):
            await show_logs(api, "otto", "7-0", Page("7-0", out.append), api.said.append)


@pytest.mark.parametrize(
    ("target", "where", "why"),
    [
        ("nosuch", "live", ""),
        ("nosuch", "", ""),
        (EVENT, "nowhere", ", and Redis knows no such event"),
        (EVENT, "ended", ", and the event has ended"),
        (f"otto-agent-1-{EVENT}", "nowhere", ", and Redis knows no such event"),
    ],
)
async def test_following_what_cannot_come_is_refused_at_once(
    tmp_path: Path, autojump_clock: MockClock, target: str, where: str, why: str
) -> None:
    """A typo, or an event that is unknown or over, is not waited for."""
    async with opened(tmp_path) as (api, out):
        api.where = where
        begun = trio.current_time()
        with pytest.RaisesGroup(pytest.RaisesExc(FixYourCall, match=f"no pod of '{target}'{why}, expected an event")):
            await api.follow(target, out)
        assert trio.current_time() - begun < 1
        assert api.said == []


@pytest.mark.parametrize("where", ["live", ""])
async def test_following_what_may_come_says_that_it_waits(
    tmp_path: Path, autojump_clock: MockClock, where: str
) -> None:
    """A worker that waits for a slot is waited for, and who asked is told; not for ever where Redis cannot be asked."""
    async with opened(tmp_path) as (api, out):
        api.where = where
        name = f"otto-agent-1-{EVENT}"

        async def come() -> None:
            await trio.sleep(QUIET_SECONDS - 5)
            await api.start(tmp_path, name)
            await trio.sleep(1)
            await api.end(name)

        api.nursery.start_soon(come)
        await api.follow(name, out)
        assert b"".join(out).endswith(b"end\n")
        assert api.said[-1] == f"there is no pod of '{name}' yet in the namespace otto: waiting for one"
        assert len(api.said) == (1 if where else 2)


async def test_a_stream_in_memory_is_one_that_nobody_can_ask() -> None:
    """`REDIS_URL=memory://` ends no view: the question is answered as if Redis were away, with the reason."""
    async with open_asking(load_settings({"REDIS_URL": "memory://"})) as ask:
        with pytest.raises(SettingsError, match="that stream lives in the scaler's own process"):
            await ask(EVENT)


async def test_a_worker_that_nobody_knows_is_not_waited_for_without_end(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A name that does not tell its event is waited for a while, and then the command fails."""
    async with opened(tmp_path) as (api, out):
        target = "otto-agent-1-" + "0123456789ab" * 2
        with pytest.raises(OttoscalerError, match=f"no pod of '{target}' came"):
            await api.follow(target, out)
        assert len(api.said) == 2
        assert "came for 30 s" in api.said[0]


def test_the_command_reads_the_api(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path, server: MemoryServer
) -> None:
    """`ottoscaler logs WORKER` writes the worker's lines to stdout; what is wrong goes to stderr and the exit code."""

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
    assert main(["logs", "7-0", "-f"]) == 2
    assert b"there is no pod of '7-0', and Redis knows no such event, expected" in capfdbinary.readouterr().err


async def _no_pod(api: Api, namespace: str, name: str) -> dict[str, Any]:
    raise Unavailable("the API is away")
