"""The list and watch of warnings: whatever happens to it, it comes back, and nothing waits for it."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.backoff import Backoff
from ottoscaler.errors import Expired, OttoscalerError, Refused, Unavailable
from ottoscaler.fleet import PodRecord
from ottoscaler.kube import requests
from ottoscaler.kube.client import WatchEvent
from ottoscaler.kube.warnings import watch_warnings
from ottoscaler.pod_warnings import PodWarnings
from ottoscaler.verdicts import judge_end
from tests.kube.test_kube_contract import NAMESPACE, opened, worker

POD = "otto-agent-1"


class Api:
    """Warnings with a history, and ways to lose touch with them."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.refusal: OttoscalerError | None = None
        self.is_silent = False
        self.ends = trio.Event()
        self._changed = trio.Event()

    def warn(self, reason: str) -> None:
        """One more warning."""
        about = {"kind": "Pod", "name": POD, "uid": "u1"}
        version = {"resourceVersion": str(len(self.events) + 11)}
        self.events.append({"metadata": version, "involvedObject": about, "reason": reason, "message": "no"})
        self._wake()

    def cut(self) -> None:
        """End all open watches."""
        self.ends.set()
        self.ends = trio.Event()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _answer(self, what: str) -> None:
        self.asked.append(what)
        if self.refusal is not None:
            raise self.refusal

    async def list_warnings(self, namespace: str) -> tuple[list[dict[str, Any]], int]:
        """As the API does."""
        await trio.sleep(0.01)
        self._answer("list")
        return list(self.events), len(self.events) + 10

    async def watch_warnings(
        self, namespace: str, resource_version: int, timeout_seconds: int = 30
    ) -> AsyncGenerator[WatchEvent, None]:
        """As the API does, a bookmark at the end."""
        await trio.sleep(0.01)
        self._answer(f"watch {resource_version}")
        told, ends, deadline = resource_version - 10, self.ends, trio.current_time() + timeout_seconds
        while trio.current_time() < deadline and not ends.is_set():
            for event in self.events[told:] if not self.is_silent else ():
                yield WatchEvent("ADDED", event)
            told = len(self.events)
            with trio.move_on_at(deadline):
                await self._changed.wait()
        if self.is_silent:
            await trio.sleep_forever()
        yield WatchEvent("BOOKMARK", {"metadata": {"resourceVersion": str(told + 10)}})


@asynccontextmanager
async def following(api: Api) -> AsyncIterator[PodWarnings]:
    """Warnings kept up to date by the real watch."""
    warnings = PodWarnings()
    steady = Backoff(0.2, 10.0, jitter=0.0)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(watch_warnings, api, warnings, "otto", lambda name: True, retry=steady))
        yield warnings
        nursery.cancel_scope.cancel(reason="the test is over")


def reasons(warnings: PodWarnings) -> list[str]:
    """What is known of the pod."""
    return [warning.reason for warning in warnings.of(POD, "u1")]


async def test_warnings_of_before_and_of_now_are_told(autojump_clock: MockClock) -> None:
    """What was listed and what is watched both arrive; one list is enough as long as the watch goes on."""
    api = Api()
    api.warn("Unhealthy")
    async with following(api) as warnings:
        await trio.sleep(1)
        assert reasons(warnings) == ["Unhealthy"]
        api.warn("FailedMount")
        await trio.sleep(0.1)
        assert reasons(warnings) == ["Unhealthy", "FailedMount"]
        await trio.sleep(100)
        assert api.asked.count("list") == 1
        assert api.asked[-1] == "watch 12"


@pytest.mark.parametrize(
    "error", [Expired("too old"), Unavailable("connection refused"), Unavailable("busy", retry_after=3)]
)
async def test_a_watch_that_is_lost_lists_again(autojump_clock: MockClock, error: OttoscalerError) -> None:
    """After an expired version or an outage nothing is missed: it is listed anew."""
    api = Api()
    async with following(api) as warnings:
        await trio.sleep(1)
        api.refusal = error
        api.cut()
        await trio.sleep(20)
        api.refusal = None
        api.warn("FailedMount")
        await trio.sleep(15)
        assert reasons(warnings) == ["FailedMount"]
        assert api.asked.count("list") > 1


async def test_a_silent_watch_is_left(autojump_clock: MockClock) -> None:
    """A watch that says nothing beyond its time is given up, and the warnings are listed anew."""
    api = Api()
    api.is_silent = True
    async with following(api) as warnings:
        await trio.sleep(1)
        api.warn("FailedMount")
        await trio.sleep(40)
        assert reasons(warnings) == ["FailedMount"]


async def test_without_the_right_it_says_so_once(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """A refusal is one log line and asked for again every few minutes; given later, the right is used."""
    api = Api()
    api.refusal = Refused("events is forbidden", status=403)
    with caplog.at_level(logging.WARNING):
        async with following(api) as warnings:
            await trio.sleep(3600)
            assert [record.message for record in caplog.records] == ["no warnings of pods: causes may be less precise"]
            assert len(api.asked) < 20
            api.refusal = None
            api.warn("Unhealthy")
            await trio.sleep(400)
            assert reasons(warnings) == ["Unhealthy"]


def test_only_warnings_of_pods_are_asked_for() -> None:
    """The server selects, so that a busy namespace costs nothing."""
    selected = "fieldSelector=involvedObject.kind%3DPod%2Ctype%3DWarning"
    assert requests.list_warnings("otto", "page 2").url == (
        f"/api/v1/namespaces/otto/events?{selected}&limit=500&continue=page+2"
    )
    assert requests.watch_warnings("otto", 7, 30).url == (
        f"/api/v1/namespaces/otto/events?watch=1&allowWatchBookmarks=true&{selected}&resourceVersion=7&timeoutSeconds=30"
    )


@pytest.mark.slow_clock
@pytest.mark.process
async def test_the_local_cluster_tells_of_a_failed_mount(tmp_path: Path) -> None:
    """The real client hears why a pod's volume cannot be mounted."""
    async with opened(tmp_path) as (_, kube, fleet), trio.open_nursery() as nursery:
        warnings = PodWarnings()
        is_there = fleet.records.__contains__
        await nursery.start(partial(watch_warnings, kube, warnings, NAMESPACE, is_there))
        pod = worker(1, "sleep 60")
        pod["spec"]["volumes"] = [{"name": "v", "secret": {"secretName": "none"}}]
        pod["spec"]["containers"][0]["volumeMounts"] = [{"name": "v", "mountPath": "/v"}]
        created = PodRecord.from_pod(await kube.create_pod(NAMESPACE, pod))
        await warnings.wait_change(created.name, created.uid, ())
        (warning,) = warnings.of(created.name, created.uid)
        assert (warning.reason, "none" in warning.message) == ("FailedMount", True)
        nursery.cancel_scope.cancel(reason="the test is over")


@pytest.mark.slow_clock
@pytest.mark.process
async def test_the_local_cluster_shows_a_liveness_kill_as_such(tmp_path: Path) -> None:
    """From the kill of a real process and the warning of its probe the verdict is LivenessFailed."""
    async with opened(tmp_path) as (_, kube, fleet), trio.open_nursery() as nursery:
        warnings = PodWarnings()
        await nursery.start(partial(watch_warnings, kube, warnings, NAMESPACE, fleet.records.__contains__))
        pod = worker(1, "sleep 60")
        pod["spec"]["terminationGracePeriodSeconds"] = 1
        probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
        pod["spec"]["containers"][0]["livenessProbe"] = probe
        created = PodRecord.from_pod(await kube.create_pod(NAMESPACE, pod))
        with fleet.follow(created.name) as follow:
            record = await follow.wait(lambda now: now is not None and now.is_final)
        assert record is not None
        verdict = judge_end(record, warnings.of(record.name, record.uid))
        assert verdict is not None
        assert (verdict.cause, verdict.has_started) == ("LivenessFailed", True)
        nursery.cancel_scope.cancel(reason="the test is over")
