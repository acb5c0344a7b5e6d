"""The store: versions, history, subscriptions."""

from __future__ import annotations

from typing import Any

import pytest

from ottoscaler.localcluster.store import AlreadyExists, Expired, NotFound, Store


def _pod(name: str, **fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "otto"}, **fields}


def _set_phase(phase: str) -> Any:
    return lambda pod: pod.setdefault("status", {}).update(phase=phase)


def test_create_gives_identity() -> None:
    """A created object has uid, creation time and version, and its name cannot be taken twice."""
    store = Store()
    metadata = store.create("pods", _pod("a"))["metadata"]
    assert len(metadata["uid"]) == 36
    assert metadata["creationTimestamp"].endswith("Z")
    assert metadata["resourceVersion"] == str(store.revision)
    with pytest.raises(AlreadyExists):
        store.create("pods", _pod("a"))


def test_update_copies_and_keeps_version_when_equal() -> None:
    """Published objects never change; an update that changes nothing makes no version."""
    store = Store()
    before = store.create("pods", _pod("a", spec={"x": [1]}))
    after = store.update("pods", "otto", "a", _set_phase("Running"))
    assert "status" not in before
    assert after["spec"] is before["spec"]
    assert store.update("pods", "otto", "a", _set_phase("Running")) is after


def test_one_counter_over_all_resources() -> None:
    """Versions of different resources come from one growing counter."""
    store = Store()
    first = store.create("pods", _pod("a"))
    second = store.create("events", _pod("a"))
    assert int(second["metadata"]["resourceVersion"]) == int(first["metadata"]["resourceVersion"]) + 1


async def test_subscription_sees_every_change_in_order() -> None:
    """A subscriber gets each change from its entry on, DELETED with the last content at a new version."""
    store = Store()
    store.create("pods", _pod("before"))
    with store.subscribe("pods") as changes:
        store.create("pods", _pod("a"))
        store.update("pods", "otto", "a", _set_phase("Failed"))
        gone = store.remove("pods", "otto", "a")
        seen = [await changes.receive() for _ in range(3)]
    assert [change.type for change in seen] == ["ADDED", "MODIFIED", "DELETED"]
    assert seen[2].object is gone
    assert gone["status"] == {"phase": "Failed"}
    assert [change.revision for change in seen] == sorted(change.revision for change in seen)
    with pytest.raises(NotFound):
        store.get("pods", "otto", "a")


def test_history_can_be_compacted() -> None:
    """Changes since a version are told until compaction, then the answer is Expired."""
    store = Store()
    start = store.revision
    store.create("pods", _pod("a"))
    middle = store.revision
    store.create("pods", _pod("b"))
    assert [change.object["metadata"]["name"] for change in store.changes_since("pods", start)] == ["a", "b"]
    store.compact(middle)
    with pytest.raises(Expired):
        store.changes_since("pods", start)
    assert len(store.changes_since("pods", middle)) == 1


def test_list_at_an_earlier_revision() -> None:
    """A list can be taken as it was: created, changed and removed objects are undone."""
    store = Store()
    store.create("pods", _pod("a"))
    store.create("pods", _pod("b"))
    then = store.revision
    before = store.list("pods")
    store.update("pods", "otto", "a", _set_phase("Running"))
    store.remove("pods", "otto", "b")
    store.create("pods", _pod("c"))
    assert store.list_at("pods", then) == before
    assert [pod["metadata"]["name"] for pod in store.list("pods", "otto")] == ["a", "c"]
    assert store.list("pods", "other") == []
