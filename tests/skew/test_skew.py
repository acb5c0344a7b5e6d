"""What released versions wrote is read by this one, which finishes what their replicas left behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from ottoscaler import __version__
from ottoscaler.logs.mark import Mark
from ottoscaler.pods import PodRecord
from ottoscaler.stream.base import Registration
from ottoscaler.stream.progress import VERSION, Progress, read_progress
from tests.skew.replica import Replica
from tests.skew.state import dump, restore
from tests.spine.world import Plan, World
from tests.stream.servers import Server, valkey_nine

RELEASES = sorted(folder for folder in Path(__file__).parent.iterdir() if (folder / "keys.json").exists())
PREFIX = "otto:scale"
MARK = Mark("2026-01-01T00:00:01.5Z", "00c0ffee00c0ffee", 1, 7, "2026-01-01T00:00:01Z", told=2)


class Release:
    """The files of one release: its keys, its pods, and its events by what they show."""

    def __init__(self, folder: Path) -> None:
        self.keys: dict[str, Any] = json.loads((folder / "keys.json").read_text("utf-8"))
        self.pods: list[dict[str, Any]] = json.loads((folder / "pods.json").read_text("utf-8"))
        self.events: dict[str, str] = json.loads((folder / "events.json").read_text("utf-8"))

    def progress(self, name: str) -> Progress:
        """The progress of one of its events."""
        id_ = self.events[name]
        return read_progress(id_, self.keys[f"{PREFIX}:progress:{id_}"]["value"])

    def entries(self, which: str) -> dict[str, dict[str, str]]:
        """Results or dead letters by event."""
        found = (dict(pairs) for _, pairs in self.keys[f"{PREFIX}:{which}"]["value"])
        return {fields["event_id"]: fields for fields in found}


@pytest.fixture(params=RELEASES, ids=lambda folder: folder.name)
def release(request: pytest.FixtureRequest) -> Release:
    """Each release that there was."""
    return Release(request.param)


@pytest.fixture
def server(tmp_path: Path, release: Release) -> Iterator[Server]:
    """A Redis as a replica of that release left it."""
    binary = valkey_nine()
    assert binary is not None
    server = Server(binary, tmp_path, "--appendonly", "no")
    restore(server, release.keys)
    yield server
    server.kill()


def world_of(release: Release) -> World:
    """A world in which every worker ends soon."""
    return World(lambda labels: Plan(duration=0.3), phase_lag=0.1)


def bring_back(world: World, release: Release) -> None:
    """Let the pods of that release live in this world, under their own names and uids."""
    for pod in release.pods:
        world._uids = iter([int(pod["metadata"]["uid"].removeprefix("uid-"))])  # type: ignore[assignment]  # count there
        world.create(pod)
    world._uids = iter(range(1000, 2000))  # type: ignore[assignment]  # count there


def test_this_version_is_written_down() -> None:
    """`python -m tests.skew` was run for the version that is about to be released."""
    assert __version__ in {folder.name for folder in RELEASES}


def test_progress_of_every_kind_is_read(release: Release) -> None:
    """Attempts, outcomes, retries, troubles, stop marks, victims, stages: nothing that was written is overlooked."""
    working = release.progress("working")
    assert (working.owner, working.epoch, working.lane, working.version) == ("replica-1", 1, "work", VERSION)
    assert (working.task_id, working.planned, dict(working.entry)["note"]) == ("t-2", 4, "größer")
    assert set(working.accepted) == {(1, 1), (2, 1), (3, 1), (3, 2), (4, 1)}
    assert {index: each["outcome"] for index, each in working.outcomes.items()} == {1: "succeeded"}
    assert {key: each["cause"] for key, each in working.attempts.items()} == {(3, 1): "ExitCode"}
    assert {index: each["cause"] for index, each in working.troubles.items()} == {4: "RegistryUnreachable"}
    assert {key: msgspec.json.decode(text, type=Mark) for key, text in working.marks.items()} == {(2, 1): MARK}
    for asked, victim, cause in (("stopping", "stopped", "Stopped"), ("cancelling", "cancelled", "Cancelled")):
        down, marked = release.progress(asked), release.progress(victim)
        assert (down.lane, down.victims, down.victims_chosen) == ("control", ((marked.event_id, 1),), True)
        assert marked.stops == {1: {"by": down.event_id, "cause": cause}}
    pipeline = release.progress("pipeline")
    assert (pipeline.lane, pipeline.planned) == ("pipelines", 2)
    assert pipeline.accepted[1, 1]["uid"] in {pod["metadata"]["labels"]["ottoscaler/event-id"] for pod in release.pods}
    assert (release.progress("offered").owner, release.progress("offered").epoch) == ("", 0)


def test_every_pod_is_known_by_its_labels(release: Release) -> None:
    """Instance, era, event, index and attempt are read from the labels that were written then."""
    records = {record.uid: record for record in map(PodRecord.from_pod, release.pods)}
    era = release.keys[f"{PREFIX}:era"]["value"]["id"]
    for (index, attempt), accepted in release.progress("working").accepted.items():
        if record := records.get(accepted["uid"]):
            assert (record.event_id, record.index, record.attempt) == (release.events["working"], index, attempt)
            assert (record.era, record.task_id, len(record.instance)) == (era, "t-2", 16)
    assert len(records) == len(release.pods)


@pytest.mark.slow_clock
async def test_what_a_dead_owner_of_that_release_held_is_finished(release: Release, server: Server) -> None:
    """A replica of this version takes it all over: each event ends once, no accepted worker is run again."""
    world = world_of(release)
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        bring_back(world, release)
        replica = Replica(server, world, "new")
        await nursery.start(replica.run)
        with trio.fail_after(50):
            while await replica.stream.live_events() or await unread(replica):  # noqa: ASYNC110 - Redis is asked
                await trio.sleep(0.1)
        results = {fields["event_id"]: fields for fields in await read_all(replica, "results")}
        letters = await read_all(replica, "dlq")
        nursery.cancel_scope.cancel(reason="the test is over")
    replica.backend.disconnect()
    assert [letter["event_id"] for letter in letters] == [release.events["refused"]]
    statuses = {name: results[id_]["status"] for name, id_ in release.events.items() if name != "refused"}
    assert statuses == {
        "fenced": "succeeded",
        "working": "succeeded",
        "stopped": "terminated",
        "stopping": "succeeded",
        "cancelled": "terminated",
        "cancelling": "succeeded",
        "pipeline": "succeeded",
        "offered": "succeeded",
        "unread": "succeeded",
    }
    workers = {each["index"]: each for each in msgspec.json.decode(results[release.events["working"]]["workers"])}
    assert [workers[index]["attempt"] for index in (1, 2, 3, 4)] == [1, 1, 2, 1]
    created = {name for verb, name in world.writes if verb == "create"}
    assert not created & {pod["metadata"]["name"] for pod in release.pods}
    assert not any(workers[1]["name"] == name for name in created)


@pytest.mark.slow_clock
async def test_ends_of_that_release_stand(release: Release, server: Server) -> None:
    """A result and a dead letter are found by event, the letter is replayed, a request id means what it meant."""
    replica = Replica(server, world_of(release), "new")
    stream = replica.stream
    assert await stream.read_ending(release.events["fenced"]) == (
        "results",
        release.entries("results")[release.events["fenced"]],
    )
    letter = release.entries("dlq")[release.events["refused"]]
    assert await stream.read_ending(release.events["refused"]) == ("dlq", letter)
    letter_id = await stream.dead_letter_of(release.events["refused"])
    assert letter_id is not None
    (replayed,) = await stream.replay_dead_letters([letter_id])
    assert replayed.how == "here"
    asked = release.keys[f"{PREFIX}:request:request-1"]["value"]["content"]
    await stream.renew(60, release.keys[f"{PREFIX}:era"]["value"]["id"])
    read = {entry.id for entry in await stream.read(10, 1.0)}
    again = Registration(replayed.event_id, "work", (), "", 1, request_id="request-1", content=asked)
    assert read == {release.events["unread"], replayed.event_id}
    assert await stream.register([again]) == [-2]
    assert [(fence.name, fence.uid) for fence in await stream.list_fences()] == [
        (f"otto-agent-1-{release.events['fenced']}", "uid-1")
    ]
    replica.backend.disconnect()


def test_a_dump_that_is_restored_is_the_same(release: Release, server: Server) -> None:
    """The files say all that there was, so that nothing is proven about a state that never was."""
    assert dump(server) == release.keys


async def unread(replica: Replica) -> bool:
    """Whether an entry of the stream has no end yet."""
    backlog = await replica.stream.backlog()
    return bool(backlog.waiting)


async def read_all(replica: Replica, which: str) -> list[dict[str, str]]:
    """The fields of all results or dead letters."""
    assert which in ("results", "dlq")
    found = await replica.stream.read_entries("results" if which == "results" else "dlq", "0", 1000, 0)
    return [fields for _, fields in found]
