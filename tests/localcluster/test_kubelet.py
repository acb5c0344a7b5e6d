"""The kubelet over the store: each kind of pod, its changes beside the recorded ones, under a virtual clock."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ottoscaler.localcluster.logs import LogNotAvailable, LogOptions
from tests.localcluster.kubelet_bench import RECORDED, describe, open_bench, recorded_story

Json = dict[str, Any]


async def test_a_pod_that_succeeds_changes_as_recorded(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Created, bound, creating, sandbox, running, terminated, Succeeded: the recorded order, field by field."""
    async with open_bench(tmp_path, phase_delay=1.1) as bench:
        bench.create("life-ok", annotations={"ottoscaler.local/duration": "2"})
        await bench.wait_phase("life-ok", "Succeeded")
        times = [change.object["status"].get("phase") for change in bench.changes]
        assert times == ["Pending"] * 4 + ["Running"] * 2 + ["Succeeded"]
    told = [line for line in recorded_story("life-ok") if "grace" not in line]
    assert bench.story("life-ok") == told


async def test_a_pod_that_fails_changes_as_recorded(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A non-zero exit shows Error in the container first, Failed in the phase after the delay."""
    async with open_bench(tmp_path) as bench:
        bench.create("life-fail", annotations={"ottoscaler.local/exit-code": "3"})
        await bench.wait_phase("life-fail", "Failed")
    assert bench.story("life-fail") == recorded_story("life-fail")


def without_repeats(story: list[str]) -> list[str]:
    """Each line that differs from the one before: "deletion observed" changes observedGeneration alone."""
    return [line for number, line in enumerate(story) if number == 0 or line != story[number - 1]]


async def test_a_deleted_pod_changes_as_recorded(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Deletion, observed, then end and phase in one change, then grace 0, then DELETED."""
    async with open_bench(tmp_path) as bench:
        bench.create(
            "ignores-term", annotations={"ottoscaler.local/duration": "60", "ottoscaler.local/ignores-term": "true"}
        )
        await bench.wait_phase("ignores-term", "Running")
        began = trio.current_time()
        bench.delete("ignores-term", grace=2)
        assert bench.get("ignores-term")["status"]["observedGeneration"] == 1
        await trio.testing.wait_all_tasks_blocked()
        assert bench.get("ignores-term")["status"]["observedGeneration"] == 2
        await bench.wait_gone("ignores-term")
        assert 2 <= trio.current_time() - began < 3
    assert without_repeats(bench.story("ignores-term")) == recorded_story("ignores-term")


async def test_a_pod_deleted_while_its_sandbox_is_set_up_never_runs(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A node takes its time to start a container: what is deleted meanwhile starts nothing, what is not starts."""
    async with open_bench(tmp_path, start_delay=0.7) as bench:
        began = trio.current_time()
        bench.create("deleted")
        bench.create("kept")
        await bench.wait_waiting("deleted", "ContainerCreating")
        await trio.sleep(0.6)
        bench.delete("deleted")
        await bench.wait_gone("deleted")
        assert not any("running" in line for line in bench.story("deleted"))
        await bench.wait_phase("kept", "Running")
        assert trio.current_time() - began == pytest.approx(0.7, abs=0.01)


async def test_a_deleted_pod_shows_its_end_before_it_goes(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Between the final status and the removal there is time to look at the pod and to read its log."""
    async with open_bench(tmp_path, removal_delay=0.4) as bench:
        bench.create("life-long", annotations={"ottoscaler.local/duration": "60"})
        await bench.wait_phase("life-long", "Running")
        bench.delete("life-long", grace=2)
        await bench.wait_phase("life-long", "Failed")
        ended = trio.current_time()
        await bench.wait_gone("life-long")
        assert 0.4 <= trio.current_time() - ended < 0.5


async def test_deadline_ends_a_pod_as_recorded(tmp_path: Path, autojump_clock: MockClock) -> None:
    """activeDeadlineSeconds: conditions say PodFailed at once, the phase DeadlineExceeded after the grace."""
    async with open_bench(tmp_path) as bench:
        annotations = {"ottoscaler.local/duration": "60", "ottoscaler.local/ignores-term": "true"}
        bench.create("deadline", annotations=annotations, activeDeadlineSeconds=3, terminationGracePeriodSeconds=1)
        began = trio.current_time()
        pod = await bench.wait_phase("deadline", "Failed")
        assert 4 <= trio.current_time() - began < 4.1
    recorded = RECORDED["deadline"]["changes"][-1]["status"]
    assert pod["status"]["message"] == recorded["message"]
    assert bench.story("deadline")[-1] == recorded_story("deadline")[-1]
    assert "Ready=False/PodFailed" in bench.story("deadline")[-2]
    assert "worker:running" in bench.story("deadline")[-2]


def only_container(status: Json, key: str = "containerStatuses") -> Json:
    """The state of the only container, with the resolver's address as here."""
    text = json.dumps(status[key][0]["state"]).replace("10.255.255.53:53", "127.0.0.53:53")
    state: Json = json.loads(text)
    return state


@pytest.mark.parametrize(
    ("name", "container", "reason"),
    [
        ("invalid-image-name", {"image": "NOT//valid"}, "InvalidImageName"),
        ("never-pull", {"image": "registry.invalid/none:1", "imagePullPolicy": "Never"}, "ErrImageNeverPull"),
        ("f-image", {"image": "registry.invalid/none:1"}, "ImagePullBackOff"),
        (
            "missing-secret-key",
            {"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k"}}}]},
            "CreateContainerConfigError",
        ),
        ("f-config", {"envFrom": [{"configMapRef": {"name": "nosuch"}}]}, "CreateContainerConfigError"),
    ],
)
async def test_a_container_that_cannot_start_waits_as_recorded(
    tmp_path: Path, autojump_clock: MockClock, name: str, container: Json, reason: str
) -> None:
    """Reason and message of the waiting state, and of the warnings, are the recorded ones."""
    async with open_bench(tmp_path) as bench:
        bench.create(name, containers=[{"name": "worker", "image": "busybox:latest"} | container])
        status = await bench.wait_waiting(name, reason)
        recorded = RECORDED[name]["changes"][-1]["status"]
        assert only_container(status) == only_container(recorded)
        assert describe("", None, True, status) == describe("", None, True, recorded)
        warnings = {(e["reason"], e["message"]) for e in RECORDED[name].get("events", []) if e["type"] == "Warning"}
        said = {(event["reason"], event["message"]) for event in bench.events(name)}
        assert {(why, text.replace("10.255.255.53", "127.0.0.53")) for why, text in warnings} <= said


async def test_an_image_is_tried_again_and_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    """ErrImagePull and ImagePullBackOff take turns, the pauses double, and the events are counted."""
    async with open_bench(tmp_path) as bench:
        bench.create("f-image", containers=[{"name": "worker", "image": "app-missing:1"}])
        await trio.sleep(40)
        reasons = [
            only_container(change.object["status"])["waiting"]["reason"]
            for change in bench.changes
            if "containerStatuses" in change.object["status"]
        ]
        assert reasons[2:] == ["ErrImagePull", "ImagePullBackOff"] * 3
        pulling = [event for event in bench.events("f-image") if event["reason"] == "Pulling"]
        assert [event["count"] for event in pulling] == [3]


async def test_root_is_refused_as_recorded(tmp_path: Path, autojump_clock: MockClock) -> None:
    """runAsNonRoot without a user is refused; with a numeric user it runs."""
    async with open_bench(tmp_path) as bench:
        pod = bench.create(
            "root-refused",
            containers=[{"name": "worker", "image": "busybox:latest", "securityContext": {"runAsNonRoot": True}}],
        )
        status = await bench.wait_waiting("root-refused", "CreateContainerConfigError")
        recorded = only_container(RECORDED["root-refused"]["changes"][-1]["status"])["waiting"]["message"]
        recorded_uid = RECORDED["root-refused"]["created"]["metadata"]["uid"]
        recorded = recorded.replace(recorded_uid, pod["metadata"]["uid"]).replace("_otto-more(", "_otto(")
        assert only_container(status)["waiting"]["message"] == recorded


async def test_a_config_map_that_comes_later_lets_the_pod_run(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A container that waits for its configuration starts once that is there; a simulation's typo is named."""
    async with open_bench(tmp_path) as bench:
        bench.create("typo", annotations={"ottoscaler.local/duration": "soon"})
        status = await bench.wait_waiting("typo", "CreateContainerConfigError")
        assert only_container(status)["waiting"]["message"] == (
            'annotation ottoscaler.local/duration: "soon": expected a number of seconds, not negative'
        )

        def mend(pod: Json) -> None:
            pod["metadata"]["annotations"]["ottoscaler.local/duration"] = "1"

        bench.store.update("pods", "otto", "typo", mend)
        await bench.wait_phase("typo", "Succeeded")


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("no-such-node", {"nodeSelector": {"disk": "none"}}),
        ("too-much-cpu", {"resources": {"requests": {"cpu": "1000"}}}),
        ("too-much-memory", {"resources": {"requests": {"memory": "5Ti"}}}),
        ("missing-claim", {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "none"}}]}),
    ],
)
async def test_what_fits_no_node_stays_unscheduled_as_recorded(
    tmp_path: Path, autojump_clock: MockClock, name: str, spec: Json
) -> None:
    """The PodScheduled condition and the FailedScheduling event carry the recorded reason and message."""
    async with open_bench(tmp_path) as bench:
        resources = spec.pop("resources", {})
        bench.create(name, containers=[{"name": "worker", "image": "busybox", "resources": resources}], **spec)
        await trio.sleep(1)
        recorded = RECORDED[name]["changes"][-1]["status"]["conditions"]
        (mine,) = bench.get(name)["status"]["conditions"]
        assert mine | {"lastTransitionTime": ""} == recorded[0] | {"lastTransitionTime": ""}
        (event,) = bench.events(name)
        assert (event["reason"], event["message"]) == ("FailedScheduling", recorded[0]["message"])
        assert len(bench.story(name)) == 2, "the same verdict is written once"


async def test_a_pod_bound_by_name_is_refused_by_the_node(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Too much CPU and a selector that does not fit: Failed at once, as recorded."""
    async with open_bench(tmp_path, cpu="2") as bench:
        greedy = {"name": "worker", "image": "busybox", "resources": {"requests": {"cpu": "1000"}}}
        bench.create("out-of-cpu", nodeName="local", containers=[greedy])
        bench.create("selector-on-node", nodeName="local", nodeSelector={"disk": "none"})
        for name in ("out-of-cpu", "selector-on-node"):
            pod = await bench.wait_phase(name, "Failed")
            recorded = RECORDED[name]["changes"][-1]["status"]
            assert pod["status"] | {"startTime": "", "qosClass": ""} == recorded | {"startTime": "", "qosClass": ""}


async def test_a_volume_that_cannot_be_mounted_looks_like_creating(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A missing secret's volume: ContainerCreating for ever, the cause in the event alone; deletion still works."""
    async with open_bench(tmp_path) as bench:
        volumes = [{"name": "v", "secret": {"secretName": "none"}}]
        bench.create("missing-volume-secret", volumes=volumes)
        await trio.sleep(5)
        assert bench.story("missing-volume-secret") == recorded_story("missing-volume-secret")
        (event,) = (e for e in bench.events("missing-volume-secret") if e["type"] == "Warning")
        recorded = RECORDED["missing-volume-secret"]["events"][0]
        assert (event["reason"], event["message"]) == (recorded["reason"], recorded["message"])
        bench.delete("missing-volume-secret")
        await bench.wait_gone("missing-volume-secret")
        last = bench.changes[-1].object["status"]
        assert last["phase"] == "Failed"
        assert only_container(last)["terminated"]["reason"] == "ContainerStatusUnknown"


async def test_a_forced_delete_ends_the_worker_at_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A pod removed by force is forgotten, and a new one of the same name runs undisturbed."""
    async with open_bench(tmp_path) as bench:
        bench.create("again", annotations={"ottoscaler.local/duration": "100"})
        await bench.wait_phase("again", "Running")
        bench.store.remove("pods", "otto", "again")
        bench.create("again", annotations={"ottoscaler.local/duration": "1"})
        await bench.wait_phase("again", "Succeeded")
        assert bench.kubelet.statistics() == {"pods": 1, "active": 0}


async def test_finalizers_keep_a_deleted_pod(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A deleted pod with a finalizer ends but stays, until the finalizer is gone."""
    async with open_bench(tmp_path) as bench:
        bench.create("held", annotations={"ottoscaler.local/duration": "100"})
        await bench.wait_phase("held", "Running")
        bench.store.update("pods", "otto", "held", lambda pod: pod["metadata"].update(finalizers=["x/y"]))
        bench.delete("held")
        await bench.wait_phase("held", "Failed")
        await trio.sleep(5)
        assert bench.get("held")["metadata"]["deletionGracePeriodSeconds"] == 0
        bench.store.update("pods", "otto", "held", lambda pod: pod["metadata"].pop("finalizers"))
        await bench.wait_gone("held")


async def test_restarts_follow_the_policy(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Always: restarted at once, then CrashLoopBackOff with growing pauses; lastState and count are kept."""
    async with open_bench(tmp_path) as bench:
        bench.create("crash", annotations={"ottoscaler.local/exit-code": "1"}, restartPolicy="Always")
        status = await bench.wait_waiting("crash", "CrashLoopBackOff")
        container = status["containerStatuses"][0]
        assert container["restartCount"] == 1
        assert container["lastState"]["terminated"]["exitCode"] == 1
        assert status["phase"] == "Running"
        await trio.sleep(35)
        assert bench.get("crash")["status"]["containerStatuses"][0]["restartCount"] == 3


async def test_simulated_logs_follow_the_simulation(tmp_path: Path, autojump_clock: MockClock) -> None:
    """log-lines are written over the duration; a log that does not exist is refused in the API's words."""
    async with open_bench(tmp_path) as bench:
        bench.create("talks", annotations={"ottoscaler.local/duration": "4", "ottoscaler.local/log-lines": "4"})
        await bench.wait_phase("talks", "Running")
        began, seen = trio.current_time(), []
        async for piece in bench.kubelet.read_log("otto", "talks", "worker", LogOptions(follow=True)):
            seen.append((round(trio.current_time() - began), piece))  # noqa: PERF401 - each at its own time
        assert seen == [(0, b"line 1\n"), (1, b"line 2\n"), (2, b"line 3\n"), (3, b"line 4\n")]
        with pytest.raises(LogNotAvailable, match='previous terminated container "worker" in pod "talks" not found'):
            bench.kubelet.read_log("otto", "talks", "worker", LogOptions(previous=True))
        bench.create("waits", containers=[{"name": "worker", "image": "NOT//valid"}])
        await bench.wait_waiting("waits", "InvalidImageName")
        with pytest.raises(LogNotAvailable, match='container "worker" in pod "waits" is waiting to start'):
            bench.kubelet.read_log("otto", "waits", "worker", LogOptions())


async def test_a_thousand_simulated_pods_are_cheap(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A thousand pods need one task each, no file and no process."""
    async with open_bench(tmp_path) as bench:
        for number in range(1000):
            bench.create(f"many-{number}", annotations={"ottoscaler.local/duration": "10"})
        await trio.sleep(5)
        assert trio.lowlevel.current_statistics().tasks_living < 1100
        await trio.sleep(10)
        assert {pod["status"]["phase"] for pod in bench.store.list("pods")} == {"Succeeded"}
        assert bench.kubelet.statistics()["active"] == 0
        assert list(tmp_path.rglob("*.log")) == []
