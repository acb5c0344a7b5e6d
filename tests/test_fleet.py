"""The fleet's book-keeping: lists, events, answers, followers and versions."""

from __future__ import annotations

import tracemalloc
from functools import partial
from random import Random
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from ottoscaler.fleet import Fleet, PodRecord


def pod(name: str, version: int, *, uid: str = "", phase: str = "Pending", event: str = "1-0") -> dict[str, Any]:
    """A pod as the API would send it."""
    return {
        "metadata": {
            "name": name,
            "uid": uid or f"uid-{name}",
            "resourceVersion": str(version),
            "labels": {"ottoscaler/event-id": event},
        },
        "status": {"phase": phase},
    }


def bookmark(version: int) -> dict[str, Any]:
    """The object of a BOOKMARK event."""
    return {"kind": "Pod", "metadata": {"resourceVersion": str(version)}}


def is_in(phase: str, record: PodRecord | None) -> bool:
    """Whether the record says this phase."""
    return record is not None and record.phase == phase


def versions(fleet: Fleet) -> dict[str, int]:
    """Name → version of all records."""
    return {name: record.resource_version for name, record in fleet.records.items()}


def test_a_list_replaces_what_was_known_and_reports_what_vanished() -> None:
    """A pod that is in the fleet, is older than the list and not in it, is gone; its follower sees that."""
    fleet = Fleet()
    fleet.replace([pod("a", 1), pod("b", 2)], 5)
    with fleet.follow("a") as follow:
        fleet.replace([pod("b", 6), pod("c", 7)], 8)
        assert follow.record is not None
        assert follow.record.gone
    assert versions(fleet) == {"b": 6, "c": 7}
    assert (fleet.version, fleet.synced) == (8, True)


def test_records_newer_than_the_list_are_kept() -> None:
    """A list that is older than what a create has already answered does not make that pod vanish."""
    fleet = Fleet()
    fleet.replace([], 5)
    fleet.learn(pod("a", 9))
    fleet.replace([], 7)
    assert versions(fleet) == {"a": 9}
    fleet.replace([], 9)
    assert versions(fleet) == {}


def test_older_and_repeated_events_change_nothing() -> None:
    """Of one uid only a newer version counts, in whatever order and however often events come."""
    fleet = Fleet()
    fleet.apply("ADDED", pod("a", 3, phase="Running"))
    for event in ("ADDED", "MODIFIED"):
        fleet.apply(event, pod("a", 3, phase="Failed"))
        fleet.apply(event, pod("a", 2, phase="Failed"))
    fleet.apply("DELETED", pod("a", 2))
    assert fleet.records["a"].phase == "Running"


def test_a_deleted_pod_does_not_come_back_by_a_late_event() -> None:
    """After DELETED an older event or answer about the same uid is ignored; a newer one is not."""
    fleet = Fleet()
    fleet.apply("ADDED", pod("a", 1))
    fleet.apply("DELETED", pod("a", 5))
    fleet.apply("MODIFIED", pod("a", 4))
    fleet.learn(pod("a", 4))
    assert versions(fleet) == {}
    fleet.apply("ADDED", pod("a", 6))  # it had only left the selector
    assert versions(fleet) == {"a": 6}


def test_deleted_with_the_previous_version_counts() -> None:
    """A pod that left the selector may come as DELETED with its last known content and version."""
    fleet = Fleet()
    fleet.apply("ADDED", pod("a", 4))
    fleet.apply("DELETED", pod("a", 4))
    assert versions(fleet) == {}


def test_the_end_of_an_older_pod_does_not_touch_its_successor() -> None:
    """A name used again belongs to the younger uid; the older one's late DELETED changes nothing."""
    fleet = Fleet()
    fleet.apply("ADDED", pod("a", 1, uid="old"))
    fleet.apply("ADDED", pod("a", 5, uid="new"))
    fleet.apply("DELETED", pod("a", 4, uid="old"))
    assert fleet.records["a"].uid == "new"


def test_an_answer_that_list_and_watch_have_passed_is_no_news() -> None:
    """A create's answer that comes after the version has passed, of a pod nobody knows, is of a pod that is gone."""
    fleet = Fleet()
    fleet.replace([], 10)
    fleet.learn(pod("a", 9))
    assert versions(fleet) == {}
    fleet.learn(pod("b", 11))
    assert versions(fleet) == {"b": 11}
    assert fleet.version == 10


def test_a_rewound_history_makes_the_list_the_whole_truth() -> None:
    """After the server was restored, lower versions replace higher ones, and what is not listed is gone."""
    fleet = Fleet()
    fleet.replace([pod("a", 100), pod("b", 101)], 102)
    fleet.replace([pod("a", 40, phase="Running")], 50, rewound=True)
    assert versions(fleet) == {"a": 40}
    fleet.apply("MODIFIED", pod("a", 51))
    assert (fleet.version, versions(fleet)) == (51, {"a": 51})


LIVES = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["ADDED", "MODIFIED", "DELETED"])), max_size=25)


@given(LIVES, st.randoms(use_true_random=False))
def test_the_order_of_events_does_not_matter(life: list[tuple[str, str]], chance: Random) -> None:
    """Every event at least once, in any order and any number: the fleet ends with what was last true."""
    events: list[tuple[str, dict[str, Any]]] = []
    there: dict[str, tuple[str, int]] = {}
    for version, (name, kind) in enumerate(life, 1):
        uid = there[name][0] if name in there else f"{name}{version}"
        if kind == "DELETED" and name not in there:
            continue
        events.append((kind, pod(name, version, uid=uid)))
        if kind == "DELETED":
            del there[name]
        else:
            there[name] = (uid, version)
    told = events + chance.choices(events, k=len(events)) if events else []
    chance.shuffle(told)
    fleet = Fleet()
    for kind, seen in told:
        fleet.apply(kind, seen)
    assert {name: (record.uid, record.resource_version) for name, record in fleet.records.items()} == there
    assert sorted(record.name for record in fleet.pods_of_event("1-0")) == sorted(there)


async def test_wait_version_ends_when_the_version_has_passed(autojump_clock: MockClock) -> None:
    """Events, bookmarks and lists count the version up, and exactly those who wait for no more than it wake."""
    fleet = Fleet()
    passed: list[int] = []

    async def wait(version: int) -> None:
        await fleet.wait_version(version)
        passed.append(version)

    async with trio.open_nursery() as nursery:
        for version in (3, 1, 7, 9):
            nursery.start_soon(wait, version)
        await wait_all_tasks_blocked()
        fleet.apply("ADDED", pod("a", 2))
        await wait_all_tasks_blocked()
        assert sorted(passed) == [1]
        fleet.apply("BOOKMARK", bookmark(5))
        await wait_all_tasks_blocked()
        assert sorted(passed) == [1, 3]
        fleet.replace([], 7)
        await fleet.wait_version(7)
        await wait_all_tasks_blocked()
        assert sorted(passed) == [1, 3, 7]
        fleet.replace([], 4, rewound=True)
    assert sorted(passed) == [1, 3, 7, 9]


async def test_a_follower_waits_for_values(autojump_clock: MockClock) -> None:
    """A follower of a pod that does not exist yet is woken by each record that meets its predicate, and by the end."""
    fleet = Fleet()
    seen: list[tuple[str, bool]] = []

    async def worker() -> None:
        with fleet.follow("a") as follow:
            unseen = follow.record
            assert unseen is None
            for phase in ("Running", "Succeeded"):
                record = await follow.wait(partial(is_in, phase))
                assert record is not None
                seen.append((record.phase, record.gone))
            last = await follow.wait(lambda r: r is not None and r.gone)
            assert last is follow.record
            assert last is not None
            seen.append((last.phase, last.gone))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker)
        await wait_all_tasks_blocked()
        for version, phase in enumerate(("Pending", "Running", "Succeeded"), 1):
            fleet.apply("MODIFIED", pod("a", version, phase=phase))
            await wait_all_tasks_blocked()
        fleet.apply("DELETED", pod("a", 4, phase="Succeeded"))
    assert seen == [("Running", False), ("Succeeded", False), ("Succeeded", True)]
    assert fleet.statistics().followed == 0


async def test_a_follower_hears_of_a_deletion_it_never_saw_the_pod_before(autojump_clock: MockClock) -> None:
    """DELETED of a pod that was never listed still reaches who follows the name."""
    fleet = Fleet()
    with fleet.follow("a") as follow:
        fleet.apply("DELETED", pod("a", 4, phase="Failed"))
        record = await follow.wait(lambda r: r is not None and r.gone)
    assert record is not None
    assert record.phase == "Failed"
    assert versions(fleet) == {}


def test_a_pod_that_has_gone_is_followed_as_what_it_was() -> None:
    """Who follows it when it is gone already is told its last state, until another pod of its name comes, or the
    history is rewound.
    """
    fleet = Fleet()
    fleet.replace([pod("a", 1), pod("b", 2), pod("c", 3)], 3)
    fleet.apply("DELETED", pod("a", 4, phase="Failed"))
    fleet.replace([pod("c", 3)], 5)
    for name, phase, is_unseen in (("a", "Failed", False), ("b", "Pending", True)):
        with fleet.follow(name) as follow:
            assert follow.record is not None
            assert (follow.record.gone, follow.record.is_unseen, follow.record.phase) == (True, is_unseen, phase)
    fleet.apply("ADDED", pod("a", 6))
    with fleet.follow("a") as follow:
        assert follow.record is not None
        assert not follow.record.gone
    fleet.replace([], 1, rewound=True)
    for name in "abc":
        with fleet.follow(name) as follow:
            assert (follow.record is None) == (name == "b")


async def test_wait_synced_ends_with_the_first_list(autojump_clock: MockClock) -> None:
    """Events alone do not make a fleet synced; a list does."""
    fleet = Fleet()
    fleet.apply("ADDED", pod("a", 1))
    with trio.move_on_after(1) as scope:
        await fleet.wait_synced()
    assert scope.cancelled_caught
    fleet.replace([], 1)
    await fleet.wait_synced()


def test_pods_of_an_event_are_indexed() -> None:
    """The pods of one event are found without looking at the others, also after labels changed and pods went."""
    fleet = Fleet()
    fleet.replace([pod("a", 1), pod("b", 2), pod("c", 3, event="2-0")], 3)
    assert sorted(record.name for record in fleet.pods_of_event("1-0")) == ["a", "b"]
    fleet.apply("DELETED", pod("a", 4))
    fleet.apply("MODIFIED", pod("b", 5, event="2-0"))
    assert fleet.pods_of_event("1-0") == []
    assert sorted(record.name for record in fleet.pods_of_event("2-0")) == ["b", "c"]


def test_statistics_are_a_snapshot() -> None:
    """The numbers say how many pods there are, in which phase, and at which version."""
    fleet = Fleet()
    fleet.replace([pod("a", 1, phase="Running"), pod("b", 2), pod("c", 3, phase="Running")], 9)
    statistics = fleet.statistics()
    assert statistics == (3, {"Running": 2, "Pending": 1}, 0, 9, True)
    assert repr(fleet) == "<Fleet of 3 pods at version 9>"


def test_ten_thousand_records_stay_small() -> None:
    """10,000 records, with their index, take less than 15 MB."""
    fleet = Fleet()
    tracemalloc.start()
    for i in range(10_000):
        fleet.apply("ADDED", pod(f"otto-agent-{i}-1756659802903-0", i + 1, uid=f"{i:036}", event=f"{i % 50}-0"))
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(fleet.records) == 10_000
    assert used < 15_000_000


def test_a_record_cannot_be_changed() -> None:
    """Records are shared by everybody, so nobody can change one."""
    record = PodRecord(name="a")
    with pytest.raises(AttributeError):
        record.phase = "Failed"  # type: ignore[misc]  # that it fails is the point
