"""Watches under a virtual clock: selections, bookmarks, history, tables, faults."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from ottoscaler.localcluster.faults import Fault

from .replay import Api, Json, read_lines

PODS = "/api/v1/namespaces/default/pods"


def _create(api: Api, name: str, **labels: str) -> Json:
    container = {"name": "worker", "image": "busybox"}
    pod = {"metadata": {"name": name, "labels": labels}, "spec": {"containers": [container]}}
    created: Json = api.ask_json("POST", PODS, pod)
    assert created["kind"] == "Pod", created
    return created


class _Seen:
    """What a watch has sent so far, with the moment of each piece."""

    def __init__(self) -> None:
        self.lines: list[tuple[float, Json]] = []
        self.ended: float | None = None

    def types(self) -> list[str]:
        """The event types in order."""
        return [line["type"] for _, line in self.lines]

    def times(self, event: str) -> list[float]:
        """When events of one type came, in seconds from the start."""
        return [round(moment, 3) for moment, line in self.lines if line["type"] == event]


@asynccontextmanager
async def _watching(api: Api, query: str, **headers: str) -> AsyncIterator[_Seen]:
    seen, start = _Seen(), trio.current_time()
    response = api.ask("GET", f"{PODS}?watch=1&{query}", **headers)
    assert response.stream is not None, response.body

    async def keep(piece: bytes) -> None:
        seen.lines += [(trio.current_time() - start, json.loads(line)) for line in piece.splitlines()]

    async def run() -> None:
        assert response.stream is not None
        await response.stream(keep)
        seen.ended = trio.current_time() - start

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        yield seen
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel(reason="the test has seen enough")


async def test_entering_and_leaving_a_selection(autojump_clock: Any) -> None:
    """An object that begins to match is ADDED, one that ceases to is DELETED with its previous labels."""
    api = Api()
    _create(api, "a", app="x")
    merge = {"content_type": "application/merge-patch+json"}
    async with _watching(api, "labelSelector=app%3Dx") as seen:
        api.ask("PATCH", f"{PODS}/a", {"metadata": {"labels": {"n": "1"}}}, **merge)
        after = api.ask_json("PATCH", f"{PODS}/a", {"metadata": {"labels": {"app": "y"}}}, **merge)
        api.ask("PATCH", f"{PODS}/a", {"metadata": {"labels": {"app": "x"}}}, **merge)
        await trio.testing.wait_all_tasks_blocked()
    assert seen.types() == ["ADDED", "MODIFIED", "DELETED", "ADDED"]
    left = seen.lines[2][1]["object"]["metadata"]
    assert left["labels"] == {"app": "x", "n": "1"}
    assert left["resourceVersion"] == after["metadata"]["resourceVersion"]


async def test_going_on_from_a_version(autojump_clock: Any) -> None:
    """A watch from a version gets each later change once, whether it was before or after the watch began."""
    api = Api()
    version = _create(api, "a")["metadata"]["resourceVersion"]
    _create(api, "b")
    async with _watching(api, f"resourceVersion={version}") as seen:
        _create(api, "c")
        await trio.testing.wait_all_tasks_blocked()
    assert [line["object"]["metadata"]["name"] for _, line in seen.lines] == ["b", "c"]


async def test_bookmarks_and_timeout(autojump_clock: Any) -> None:
    """Bookmarks come each minute and twice shortly before the timeout, which ends the stream without an error."""
    api = Api()
    async with _watching(api, "allowWatchBookmarks=true&timeoutSeconds=150&resourceVersion=1") as seen:
        await trio.sleep(200)
    assert seen.times("BOOKMARK") == [60.0, 120.0, 148.0, 149.2]
    assert seen.ended == pytest.approx(150)
    bookmark = seen.lines[0][1]["object"]
    assert bookmark["metadata"]["resourceVersion"] == str(api.store.revision)
    assert bookmark["spec"] == {"containers": None}


async def test_a_bookmark_never_overtakes_a_change(autojump_clock: Any) -> None:
    """When a change and a bookmark are due at once, the change is sent first."""
    api = Api()
    async with _watching(api, "allowWatchBookmarks=true&timeoutSeconds=100&resourceVersion=1") as seen:
        await trio.sleep(60)
        _create(api, "a")
        await trio.sleep(1)
    versions = [int(line["object"]["metadata"]["resourceVersion"]) for _, line in seen.lines]
    assert versions == sorted(versions)


async def test_a_version_of_the_future_is_silent(autojump_clock: Any) -> None:
    """A watch from a version that does not exist yet says nothing at all until its timeout."""
    api = Api()
    async with _watching(api, "allowWatchBookmarks=true&timeoutSeconds=90&resourceVersion=999999") as seen:
        _create(api, "a")
        await trio.sleep(100)
    assert seen.lines == []
    assert seen.ended == pytest.approx(90)


async def test_tables_define_their_columns_once(autojump_clock: Any) -> None:
    """A watch of tables sends rows, with the columns in the first event only."""
    api = Api()
    _create(api, "a")
    table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    async with _watching(api, "timeoutSeconds=90", accept=table) as seen:
        _create(api, "b")
        await trio.testing.wait_all_tasks_blocked()
    tables = [line["object"] for _, line in seen.lines]
    assert [t["rows"][0]["cells"][0] for t in tables] == ["a", "b"]
    assert tables[0]["columnDefinitions"][0]["name"] == "Name"
    assert tables[1]["columnDefinitions"] is None


async def test_silent_delayed_and_cut(autojump_clock: Any) -> None:
    """Faults make open watches late, then silent, and end new ones after their time."""
    api = Api()
    async with _watching(api, "timeoutSeconds=90") as seen:
        api.faults.add(Fault(kind="watch_delayed", seconds=3, times=1))
        _create(api, "a")
        await trio.sleep(5)
        api.faults.add(Fault(kind="watch_silent", times=1))
        _create(api, "b")
        await trio.sleep(5)
    ((when, line),) = seen.lines
    assert when == pytest.approx(3)
    assert line["object"]["metadata"]["name"] == "a"
    api.faults.add(Fault(kind="watch_cut", seconds=7, times=1))
    async with _watching(api, "timeoutSeconds=90") as cut:
        await trio.sleep(20)
    assert cut.ended == pytest.approx(7)


async def test_what_is_compacted_meanwhile_does_not_hurt_an_open_watch(autojump_clock: Any) -> None:
    """Compaction ends no open watch; only one that comes back from before gets 410."""
    api = Api()
    old = _create(api, "a")["metadata"]["resourceVersion"]
    async with _watching(api, f"resourceVersion={old}&timeoutSeconds=9") as seen:
        _create(api, "b")
        api.store.compact(api.store.revision)
        _create(api, "c")
        await trio.sleep(1)
    assert seen.types() == ["ADDED", "ADDED"]
    lines = await read_lines(api.ask("GET", f"{PODS}?watch=1&resourceVersion={old}"), 5)
    assert [(line["type"], line["object"]["reason"]) for line in lines] == [("ERROR", "Expired")]


async def test_a_fault_takes_itself_away(autojump_clock: Any) -> None:
    """A fault that lasts some seconds happens until then, and is not listed afterwards."""
    api = Api()
    api.faults.add(Fault(kind="reject", lasts=10))
    assert len(api.faults.take("get", "/x")) == len(api.faults.statistics()) == 1
    await trio.sleep(10)
    assert api.faults.take("get", "/x") == []
    assert api.faults.statistics() == []
