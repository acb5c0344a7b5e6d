"""What befalls pods: each harm's changes, in their order, beside the recorded ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.localcluster import harm
from ottoscaler.localcluster.store import NotFound
from tests.localcluster.kubelet_bench import RECORDED, Bench, open_bench, recorded_story

LONG = {"ottoscaler.local/duration": "60", "ottoscaler.local/ignores-term": "true"}


def without_repeats(story: list[str]) -> list[str]:
    """Each line that differs from the one before."""
    return [line for number, line in enumerate(story) if number == 0 or line != story[number - 1]]


async def running_pod(bench: Bench, name: str, **spec: Any) -> None:
    """A simulated pod that runs and heeds no SIGTERM."""
    bench.create(name, annotations=LONG, terminationGracePeriodSeconds=2, **spec)
    await bench.wait_phase(name, "Running")


@pytest.mark.parametrize(("name", "befalls"), [("evict-me", harm.evict), ("preempted", harm.preempt)])
async def test_disruptions_change_a_pod_as_recorded(
    tmp_path: Path, autojump_clock: MockClock, name: str, befalls: Any
) -> None:
    """DisruptionTarget with its reason, deletionTimestamp, 137 and Failed, grace 0, DELETED: the recorded order."""
    async with open_bench(tmp_path) as bench:
        await running_pod(bench, name)
        befalls(bench.store, bench.kubelet, "otto", name)
        await bench.wait_gone(name)
    assert without_repeats(bench.story(name)) == recorded_story(name)
    recorded = next(c for c in RECORDED[name]["changes"] if "DisruptionTarget" in str(c["status"]))
    mine = next(c.object for c in bench.changes if "DisruptionTarget" in str(c.object["status"]))
    assert mine["status"]["conditions"][-1] | {"lastTransitionTime": ""} == (
        recorded["status"]["conditions"][-1] | {"lastTransitionTime": ""}
    )


async def test_a_lost_node_changes_its_pods_as_recorded(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Not Ready, DisruptionTarget, deletionTimestamp, and Running until the node is back; then it ends."""
    async with open_bench(tmp_path) as bench:
        await running_pod(bench, "node-lost")
        harm.node_lost(bench.store, bench.kubelet, evicting=False)
        await trio.sleep(2)
        harm.evict_from_lost_node(bench.store, bench.kubelet)
        await trio.sleep(100)
        pod = bench.get("node-lost")
        assert pod["status"]["phase"] == "Running"
        assert pod["metadata"]["deletionGracePeriodSeconds"] == 2
        bench.create("waits", annotations={"ottoscaler.local/duration": "1"})
        await trio.sleep(1)
        (condition,) = bench.get("waits")["status"]["conditions"]
        assert condition["message"].startswith("0/1 nodes are available: 1 node(s) had untolerated taint(s). no new")
        harm.node_back(bench.store, bench.kubelet)
        await bench.wait_gone("node-lost")
        await bench.wait_phase("waits", "Succeeded")
    # The simulation ended by itself (exit 0) while the node was silent; the recorded process was killed afterwards.
    told, mine = recorded_story("node-lost"), without_repeats(bench.story("node-lost"))
    deleted = next(number for number, line in enumerate(told) if "grace=2" in line)
    assert mine[: deleted + 1] == told[: deleted + 1]
    assert "Succeeded" in mine[-1]


async def test_a_pod_of_a_lost_node_is_stopped_once_it_is_back(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A pod that still runs when the silent node is heard again is seen Ready, then ends as recorded."""
    async with open_bench(tmp_path) as bench:
        await running_pod(bench, "node-lost")
        harm.node_lost(bench.store, bench.kubelet)
        await trio.sleep(10)
        harm.node_back(bench.store, bench.kubelet)
        await bench.wait_gone("node-lost")
    assert without_repeats(bench.story("node-lost")) == recorded_story("node-lost")
    reasons = {event["reason"] for event in bench.events("node-lost")}
    assert {"NodeNotReady", "TaintManagerEviction"} <= reasons


async def test_kill_and_out_of_memory(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A kill from outside is Error 137 as recorded, an exceeded limit OOMKilled 137."""
    async with open_bench(tmp_path) as bench:
        await running_pod(bench, "killed")
        harm.kill(bench.store, bench.kubelet, "otto", "killed")
        await bench.wait_phase("killed", "Failed")
        assert bench.story("killed") == recorded_story("killed")
        await running_pod(bench, "oom-pid1")
        harm.harms(bench.store, bench.kubelet)["out-of-memory"](namespace="otto", name="oom-pid1")
        await bench.wait_phase("oom-pid1", "Failed")
        assert bench.story("oom-pid1")[-1] == recorded_story("oom-pid1")[-1]


async def test_deletion_by_hand(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Without grace the pod is gone at once; with it, after its end. A pod that is not there: NotFound."""
    async with open_bench(tmp_path) as bench:
        await running_pod(bench, "a")
        await running_pod(bench, "b")
        began = trio.current_time()
        harm.delete_by_hand(bench.store, bench.kubelet, "otto", "a", grace=0)
        with pytest.raises(NotFound):
            bench.get("a")
        harm.delete_by_hand(bench.store, bench.kubelet, "otto", "b")
        await bench.wait_gone("b")
        assert 2 <= trio.current_time() - began < 3
        with pytest.raises(NotFound):
            harm.evict(bench.store, bench.kubelet, "otto", "nosuch")
