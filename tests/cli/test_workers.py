"""`workers`: pods in one word each, listed once or followed through everything that can happen to a watch."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ottoscaler import signals
from ottoscaler.cli import main, reach
from ottoscaler.cli.following import SELECTOR, follow_records, status_of
from ottoscaler.cli.workers import rows_as, selector_of
from ottoscaler.errors import Expired, Unavailable
from ottoscaler.pods import PodRecord
from ottoscaler.settings import Settings, load_settings


def record(**facts: Any) -> PodRecord:
    """A worker's record with some facts."""
    return PodRecord(name="otto-agent-1-5-0", uid="u1", **facts)


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ({"phase": "Pending"}, "Pending"),
        ({"phase": "Pending", "waiting_reason": "ImagePullBackOff"}, "ImagePullBackOff"),
        ({"phase": "Running"}, "Running"),
        ({"phase": "Running", "deleting": True}, "Terminating"),
        ({"phase": "Succeeded", "term_reason": "Completed", "exit_code": 0}, "Completed"),
        ({"phase": "Failed", "term_reason": "OOMKilled"}, "OOMKilled"),
        ({"phase": "Failed", "term_reason": "Error", "reason": "Evicted"}, "Evicted"),
        ({"phase": "Pending", "init_failure": ("setup", 2), "waiting_reason": "PodInitializing"}, "Init:Error"),
        ({"phase": "Succeeded", "deleting": True, "gone": True}, "Deleted"),
        ({}, "Unknown"),
    ],
)
def test_a_pod_s_state_is_one_word(facts: dict[str, Any], status: str) -> None:
    """The word is the one that kubectl shows in its STATUS column."""
    assert status_of(record(**facts)) == status


def test_the_table_has_kubectl_s_form() -> None:
    """Name, status, exit code, task and age; `wide` adds event, place and the reason on one line."""
    lines: list[str] = []
    ended = record(
        phase="Failed",
        term_reason="Error",
        exit_code=3,
        created_at=100.0,
        task_id="t",
        event_id="5-0",
        index=1,
        attempt=2,
        node="n",
        message="no\nluck",
    )
    rows_as(None, lines.append, lambda: 145.0)([ended])
    rows_as("wide", lines.append, lambda: 145.0)([ended])
    assert lines == [
        "NAME               STATUS   EXIT   TASK   AGE",
        "otto-agent-1-5-0   Error    3      t      45s",
        "NAME               STATUS   EXIT   TASK   AGE   EVENT   INDEX   ATTEMPT   NODE   IP   REASON",
        "otto-agent-1-5-0   Error    3      t      45s   5-0     1       2         n      -    no luck",
    ]


def test_whose_a_worker_is_has_a_column() -> None:
    """With --all-instances the first column is the installation's label."""
    lines: list[str] = []
    rows_as(None, lines.append, lambda: 1.0, has_instance=True)([record(instance="a" * 16, phase="Running"), record()])
    assert lines == [
        "INSTANCE           NAME               STATUS    EXIT   TASK   AGE",
        "aaaaaaaaaaaaaaaa   otto-agent-1-5-0   Running   -      -      -",
        "-                  otto-agent-1-5-0   Unknown   -      -      -",
    ]


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ([], ["default"]),
        (["--instance-name", "two"], ["two"]),
        (["--redis-stream", "other:events"], ["other"]),
        (["--redis-consumer-group", "nobody"], []),
        (["--all-instances"], ["default", "other", "two"]),
    ],
)
def test_two_installations_in_one_namespace_are_told_apart(
    options: list[str], shown: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the workers of the installation with the current settings are listed, or all of them when asked."""
    given: dict[str, dict[str, str]] = {
        "default": {},
        "two": {"INSTANCE_NAME": "two"},
        "other": {"REDIS_STREAM": "other:events"},
    }
    pods = {name: selector_of(load_settings(settings, {})) for name, settings in given.items()}

    class Api:
        async def list_pods(self, namespace: str, selector: str) -> tuple[list[dict[str, Any]], int]:
            return [pod(name, "Running", 1) for name, own in pods.items() if selector in (own, SELECTOR)], 1

    @asynccontextmanager
    async def open_api(settings: Settings) -> AsyncGenerator[Api, None]:
        yield Api()

    monkeypatch.setattr(reach, "open_kube_of", open_api)
    monkeypatch.setattr(signals, "restore_signals", lambda: None)
    assert main(["workers", "-o", "json", *options]) == 0
    assert sorted(json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()) == shown


def test_json_has_every_fact() -> None:
    """Each line is one JSON object with the status word and all that is known."""
    lines: list[str] = []
    rows_as("json", lines.append)([record(phase="Running", index=1, started_at=1.5)])
    found = json.loads(lines[0])
    assert (found["name"], found["status"], found["index"], found["started_at"]) == (
        "otto-agent-1-5-0",
        "Running",
        1,
        1.5,
    )


def pod(name: str, phase: str, version: int) -> dict[str, Any]:
    """A pod as the API sends it, as far as it matters here."""
    metadata = {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}
    return {"metadata": metadata, "status": {"phase": phase}}


class ScriptedPods:
    """An API that gives prepared lists and watches, one after the other, and then is silent for ever."""

    def __init__(self, lists: list[Any], watches: list[list[Any]]) -> None:
        self.lists = lists
        self.watches = watches
        self.versions: list[int] = []

    async def list_pods(self, namespace: str, selector: str) -> tuple[list[dict[str, Any]], int]:
        """The next list."""
        await trio.lowlevel.checkpoint()
        answer = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]  # the script holds such pairs

    async def watch_pods(
        self, namespace: str, selector: str, resource_version: int
    ) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        """The next watch; its last item may be an exception."""
        self.versions.append(resource_version)
        if not self.watches:
            await trio.sleep_forever()
        for event in self.watches.pop(0):
            await trio.lowlevel.checkpoint()
            if isinstance(event, Exception):
                raise event
            yield event


async def follow(pods: ScriptedPods, seconds: float) -> list[tuple[str, str]]:
    """Name and status of all that is told within a time."""
    told: list[PodRecord] = []
    with trio.move_on_after(seconds):
        await follow_records(pods, "default", told.extend, told.append)
    return [(record.name, status_of(record)) for record in told]


async def test_changes_are_told_as_they_come(autojump_clock: MockClock) -> None:
    """The list first, then each change; a deleted pod comes once more."""
    pods = ScriptedPods(
        [([pod("a", "Pending", 1)], 5), ([pod("b", "Pending", 10)], 12)],
        [
            [
                ("MODIFIED", pod("a", "Running", 6)),
                ("BOOKMARK", {"metadata": {"resourceVersion": "9"}}),
                ("ADDED", pod("b", "Pending", 10)),
                ("DELETED", pod("a", "Running", 11)),
                Unavailable("cut"),
            ]
        ],
    )
    assert await follow(pods, 30) == [("a", "Pending"), ("a", "Running"), ("b", "Pending"), ("a", "Deleted")]
    assert pods.versions == [5, 12]


async def test_what_was_missed_is_told_after_a_new_list(autojump_clock: MockClock) -> None:
    """When the watch has expired, what changed and what vanished meanwhile is told, and nothing twice."""
    lists = [
        ([pod("a", "Pending", 1), pod("b", "Running", 2)], 5),
        ([pod("b", "Running", 2), pod("c", "Running", 8)], 9),
    ]
    told = await follow(ScriptedPods(lists, [[Expired("too old")]]), 30)
    assert told == [("a", "Pending"), ("b", "Running"), ("a", "Deleted"), ("c", "Running")]


async def test_a_silent_watch_is_renewed(autojump_clock: MockClock) -> None:
    """A watch in which nothing comes for longer than the server's own limit is given up."""
    pods = ScriptedPods([([], 5), ([], 7)], [])
    await follow(pods, 80)
    assert pods.versions == [5, 7, 7]


async def test_an_api_that_is_away_at_first_is_an_error(autojump_clock: MockClock) -> None:
    """The first list says what is wrong; later ones are repeated."""
    with pytest.raises(Unavailable, match="away"):
        await follow(ScriptedPods([Unavailable("away")], []), 10)
    lists = [([pod("a", "Running", 1)], 1), Unavailable("away"), ([], 9)]
    told = await follow(ScriptedPods(lists, [[Unavailable("cut")], [Unavailable("cut")]]), 30)
    assert told == [("a", "Running"), ("a", "Deleted")]
