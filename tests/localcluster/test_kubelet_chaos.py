"""Whatever is done to pods, in any order: the kubelet keeps going, phases never go back, the deleted go away."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from ottoscaler.localcluster import harm
from ottoscaler.localcluster.store import NotFound
from ottoscaler.localcluster.strays import marked_processes
from tests.localcluster.kubelet_bench import Bench, open_bench

WORKER = [{"name": "worker", "image": "busybox"}]
KINDS: list[dict[str, Any]] = [
    {"annotations": {"ottoscaler.local/duration": "3", "ottoscaler.local/log-lines": "3"}},
    {"annotations": {"ottoscaler.local/duration": "9", "ottoscaler.local/ignores-term": "true"}},
    {"annotations": {"ottoscaler.local/exit-code": "1", "ottoscaler.local/start-delay": "1"}},
    {"annotations": {"ottoscaler.local/duration": "1"}, "restartPolicy": "Always"},
    {"annotations": {"ottoscaler.local/duration": "9"}, "activeDeadlineSeconds": 2},
    {
        "initContainers": [
            {"name": "i", "image": "busybox"},
            {"name": "s", "image": "busybox", "restartPolicy": "Always"},
        ]
    },
    {"initContainers": [{"name": "s", "image": "x.invalid/y", "restartPolicy": "Always"}]},
    {"nodeSelector": {"no": "such"}},
    {"volumes": [{"name": "v", "configMap": {"name": "none"}}]},
    {"nodeName": "local", "nodeSelector": {"no": "such"}},
]
HARMS = ["delete", "evict", "preempt", "force", "kill", "recreate", "node-lost", "node-back", "label"]
ORDER = {"Pending": 0, "Running": 1, "Succeeded": 2, "Failed": 2}

steps = st.tuples(st.sampled_from([0.0, 0.01, 0.3, 1.0, 2.5]), st.sampled_from(HARMS), st.integers(0, 3))


def do(bench: Bench, what: str, name: str, spec: dict[str, Any]) -> None:
    """One step; a pod that is not there any more is no mistake."""
    do_it = harm.harms(bench.store, bench.kubelet)
    try:
        if what in ("node-lost", "node-back"):
            do_it[what]()
        elif what == "force":
            do_it["delete"](namespace="otto", name=name, grace=0)
        elif what == "recreate":
            do_it["delete"](namespace="otto", name=name, grace=0)
            bench.create(name, terminationGracePeriodSeconds=2, **spec)
        elif what == "label":
            bench.store.update("pods", "otto", name, lambda pod: pod["metadata"].update(labels={"a": "b"}))
        else:
            do_it[what](namespace="otto", name=name)
    except NotFound:
        return


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4), script=st.lists(steps, max_size=12))
def test_any_order_of_harms(kinds: list[dict[str, Any]], script: list[tuple[float, str, int]]) -> None:
    """The kubelet survives every script, no pod's phase goes back, and all pods can be deleted in the end."""

    async def go() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with open_bench(Path(folder)) as bench:
                for number, kind in enumerate(kinds):
                    bench.create(f"pod-{number}", terminationGracePeriodSeconds=2, **kind)
                for pause, what, number in script:
                    await trio.sleep(pause)
                    do(bench, what, f"pod-{number % len(kinds)}", kinds[number % len(kinds)])
                do(bench, "node-back", "", {})
                await trio.sleep(1)
                for pod in bench.store.list("pods"):
                    do(bench, "delete", pod["metadata"]["name"], {})
                await trio.sleep(5)
                assert bench.store.list("pods") == []
                assert bench.kubelet.statistics() == {"pods": 0, "active": 0}
            reached: dict[str, int] = {}
            for change in bench.changes:
                uid, phase = change.object["metadata"]["uid"], ORDER[change.object["status"]["phase"]]
                assert phase >= reached.get(uid, 0), change.object["status"]
                reached[uid] = phase
            assert list(Path(folder).iterdir()) == []

    trio.run(go, clock=MockClock(autojump_threshold=0))


@pytest.mark.slow_clock
@pytest.mark.process
@pytest.mark.parametrize("after", [0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1])
async def test_cancelled_at_any_time_nothing_survives(tmp_path: Path, after: float) -> None:
    """The kubelet cancelled while real pods come and go ends soon, without a process or file."""
    script = 'trap "" TERM; setsid sleep 66 & sleep 66'
    async with open_bench(tmp_path) as bench:
        for number in range(5):
            bench.create(f"p{number}", containers=[WORKER[0] | {"command": ["sh", "-c", script]}])
            bench.create(f"q{number}", containers=[WORKER[0] | {"command": ["true"]}])
        await trio.sleep(after)
        bench.delete("p1", grace=1)
        began = trio.current_time()
    assert trio.current_time() - began < 4
    assert marked_processes(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
