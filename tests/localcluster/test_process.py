"""Containers as real process groups: what they get, how they end, and that nothing of them stays."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from ottoscaler.localcluster.logs import ContainerLog, LogOptions, read_log
from ottoscaler.localcluster.process import ContainerProcess, ProcessPlan, StartError, run_process
from ottoscaler.localcluster.strays import kill_marked, marked_processes
from tests.localcluster.kubelet_bench import RECORDED, open_bench

pytestmark = [pytest.mark.slow_clock, pytest.mark.process]

LEAVES = "setsid sh -c 'touch left; exec sleep 77' >/dev/null 2>&1 & until test -e left; do sleep 0.02; done; echo $!"
"""Has left its group when it says who it is."""

Json = dict[str, Any]


def plan(tmp_path: Path, *words: str, working_dir: str = "", **environment: str) -> ProcessPlan:
    """A plan whose container lives below the test's folder."""
    return ProcessPlan(list(words), environment, working_dir, tmp_path / "pod" / "worker")


async def run(tmp_path: Path, the_plan: ProcessPlan) -> tuple[int, bytes]:
    """Exit code and output of a plan run to its end."""
    log = ContainerLog(tmp_path / "0.log")
    code = await run_process(the_plan, log, lambda process: None)
    log.close()
    return code, b"".join([piece async for piece in read_log(log, LogOptions())])


def worker(*words: str, **more: Any) -> list[Json]:
    """The containers of a pod of one worker."""
    return [{"name": "worker", "image": "busybox:latest", "command": list(words), **more}]


async def log_of(bench: Any, name: str, container: str = "worker") -> bytes:
    """The whole log of a container."""
    pieces = [piece async for piece in bench.kubelet.read_log("otto", name, container, LogOptions())]
    return b"".join(pieces)


async def first_piece(log: AsyncGenerator[bytes, None]) -> bytes:
    """What a follower gets first; it goes away then."""
    async with aclosing(log):
        return await anext(log)


async def wait_until_dead(pids: list[int]) -> None:
    """Wait until none of these processes lives (zombies that nobody reaps count as dead)."""
    while any(is_alive(pid) for pid in pids):  # noqa: ASYNC110 - there is no event for other people's processes
        await trio.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody has reaped does not."""
    try:
        return psutil.Process(pid).status() != "zombie"
    except psutil.NoSuchProcess:
        return False


async def test_output_exit_code_and_environment(tmp_path: Path) -> None:
    """A process gets the pod's variables, PATH, HOME, HOSTNAME and a working directory, and nothing else of ours."""
    os.environ["LEAKS"] = "yes"
    try:
        code, text = await run(tmp_path, plan(tmp_path, "sh", "-c", "env; pwd; exit 3", NAME="value"))
    finally:
        del os.environ["LEAKS"]
    home = tmp_path / "pod" / "worker"
    lines = text.decode().splitlines()
    names = {line.partition("=")[0] for line in lines[:-1]}
    assert code == 3
    assert names <= {"NAME", "PATH", "HOME", "HOSTNAME", "LOCALCLUSTER_CONTAINER", "PWD", "SHLVL", "_", "OLDPWD"}
    assert {"NAME=value", f"HOME={home}"} <= set(lines)
    assert lines[-1] == str(home)


async def test_a_signal_is_128_and_its_number(tmp_path: Path) -> None:
    """A process killed by signal 9 or 15 ends with 137 or 143."""
    for number in (9, 15):
        assert (await run(tmp_path, plan(tmp_path, "sh", "-c", f"kill -{number} $$")))[0] == 128 + number


@pytest.mark.parametrize(
    ("name", "words", "working_dir"),
    [
        ("f-cmd", ["/no/such"], ""),
        ("not-executable", ["/etc/passwd"], ""),
        ("workdir-is-file", ["true"], "/etc/passwd"),
    ],
)
async def test_what_cannot_start_says_so_as_recorded(
    tmp_path: Path, name: str, words: list[str], working_dir: str
) -> None:
    """A missing command, one that is no program, a working directory that is a file: the recorded message."""
    with pytest.raises(StartError) as caught:
        await run(tmp_path, plan(tmp_path, *words, working_dir=working_dir))
    recorded = RECORDED[name]["changes"][-1]["status"]["containerStatuses"][0]["state"]["terminated"]["message"]
    assert str(caught.value) == recorded.replace("/bin/busybox", "/etc/passwd")


async def test_a_working_directory_that_is_not_there_is_made(tmp_path: Path) -> None:
    """workingDir of the image's own files becomes a folder below the container's directory."""
    code, text = await run(tmp_path, plan(tmp_path, "pwd", working_dir="/srv/no-such-app"))
    assert (code, text) == (0, f"{tmp_path}/pod/worker/srv/no-such-app\n".encode())


async def test_a_stop_is_term_then_kill(tmp_path: Path) -> None:
    """SIGTERM first; a process that ignores it is killed after the grace, which a second request shortens."""
    script = 'trap "" TERM; echo ready; while :; do sleep 0.05; done'
    log = ContainerLog(tmp_path / "0.log")
    handles: list[ContainerProcess] = []
    codes = []
    async with trio.open_nursery() as nursery:

        async def go() -> None:
            codes.append(await run_process(plan(tmp_path, "sh", "-c", script), log, handles.append))

        nursery.start_soon(go)
        await first_piece(read_log(log, LogOptions(follow=True)))
        began = time.monotonic()
        handles[0].request_stop(300)
        await trio.sleep(0.1)
        assert codes == []
        handles[0].request_stop(0.2)
    log.close()
    assert codes == [137]
    assert time.monotonic() - began < 30


async def test_the_end_of_process_one_ends_its_group(tmp_path: Path) -> None:
    """Children left in the group die with their first process, and its run ends though they hold the pipes."""
    began = time.monotonic()
    code, text = await run(tmp_path, plan(tmp_path, "sh", "-c", "sleep 77 & echo $!"))
    assert code == 0
    assert time.monotonic() - began < 30
    await wait_until_dead([int(text)])


async def test_processes_that_leave_their_group_are_found_by_their_mark(tmp_path: Path) -> None:
    """A daemon (double fork, setsid) carries the mark and can be killed by it; others are left alone."""
    code, text = await run(tmp_path, plan(tmp_path, "sh", "-c", LEAVES))
    assert code == 0
    assert [mark for _, mark in marked_processes(tmp_path)] == [f"{tmp_path}/pod/worker:0"]
    assert kill_marked(tmp_path / "elsewhere") == 0
    assert kill_marked(tmp_path) == 1
    await wait_until_dead([int(text)])


async def test_a_real_pod_runs_and_is_logged(tmp_path: Path) -> None:
    """Command, args, $(VAR), fieldRef and both output streams come out as the pod says; the events tell of it."""
    fields = ["metadata.name", "metadata.namespace", "metadata.uid", "status.podIP", "metadata.annotations['a']"]
    env = [{"name": f"F{n}", "valueFrom": {"fieldRef": {"fieldPath": path}}} for n, path in enumerate(fields)]
    env += [{"name": "GREETING", "value": "hello $(F0) $$(F0) $(NONE)"}]
    async with open_bench(tmp_path) as bench:
        command = worker("sh", "-c", args=["echo $GREETING; echo $F1 $F2 $F3 $F4 $1; echo err >&2", "$(F0)", "$(F1)"])
        pod = bench.create("real", containers=[command[0] | {"env": env}], annotations={"a": "b"})
        pod = await bench.wait_phase("real", "Succeeded", "Failed")
        assert pod["status"]["phase"] == "Succeeded"
        address = pod["status"]["podIP"]
        text = await log_of(bench, "real")
        assert sorted(text.splitlines()) == [
            b"err",
            b"hello real $(F0) $(NONE)",
            f"otto {pod['metadata']['uid']} {address} b otto".encode(),
        ]
        assert [event["reason"] for event in bench.events("real")] == ["Scheduled", "Pulled", "Created", "Started"]
    assert list(tmp_path.iterdir()) == [], "the kubelet leaves no file"


async def test_an_image_alone_runs_its_own_command(tmp_path: Path) -> None:
    """Neither command nor args: a shell without input, which exits 0."""
    async with open_bench(tmp_path) as bench:
        bench.create("plain", containers=[{"name": "worker", "image": "busybox:latest"}])
        await bench.wait_phase("plain", "Succeeded")


async def test_a_command_that_is_missing_is_a_start_error(tmp_path: Path) -> None:
    """StartError, exit 128, Pending until Failed: the recorded status but for its times."""
    async with open_bench(tmp_path) as bench:
        bench.create("f-cmd", containers=worker("/no/such"))
        pod = await bench.wait_phase("f-cmd", "Failed")
        mine = pod["status"]["containerStatuses"][0]["state"]["terminated"]
        recorded = RECORDED["f-cmd"]["changes"][-1]["status"]["containerStatuses"][0]["state"]["terminated"]
        variable = {"finishedAt": "", "containerID": ""}
        assert mine | variable == recorded | variable
        assert "Running" not in {change.object["status"].get("phase") for change in bench.changes}


async def test_memory_above_the_limit_is_oom_killed(tmp_path: Path) -> None:
    """A process that grows beyond its limit ends as OOMKilled 137; one within it is left alone."""
    hog = f"{sys.executable} -c \"import time; x = b'x' * 80_000_000; time.sleep(60)\""
    limits = {"resources": {"limits": {"memory": "64Mi"}, "requests": {"memory": "64Mi"}}}
    async with open_bench(tmp_path, memory_interval=0.05) as bench:
        bench.create("oom-pid1", containers=worker("sh", "-c", hog, **limits))
        bench.create("modest", containers=worker("sh", "-c", "sleep 0.3", **limits))
        pod = await bench.wait_phase("oom-pid1", "Failed")
        ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
        assert (ended["exitCode"], ended["reason"]) == (137, "OOMKilled")
        await bench.wait_phase("modest", "Succeeded")


async def test_shared_memory_counts_once(tmp_path: Path) -> None:
    """Forked processes that share their pages do not add up to an exceeded limit, where the platform can tell."""
    program = "import os, time; x = b'x' * 40_000_000; [os.fork() for _ in range(2)]; time.sleep(0.5)"
    limits = {"resources": {"limits": {"memory": "100Mi"}}}
    async with open_bench(tmp_path, memory_interval=0.05) as bench:
        bench.create("forks", containers=worker(sys.executable, "-c", program, **limits))
        pod = await bench.wait_phase("forks", "Succeeded", "Failed")
        assert pod["status"]["phase"] == ("Succeeded" if sys.platform == "linux" else "Failed")


async def test_deleting_a_real_pod(tmp_path: Path) -> None:
    """A process that heeds SIGTERM ends with its own code, one that ignores it with 137 after the grace."""
    async with open_bench(tmp_path) as bench:
        for name, command in (("heeds-term", "exit 3"), ("ignores-term", "")):
            script = f'trap "{command}" TERM; echo x; while :; do sleep 0.05; done'
            bench.create(name, containers=worker("sh", "-c", script))
        for name, code in (("heeds-term", 3), ("ignores-term", 137)):
            await bench.wait_phase(name, "Running")
            await first_piece(
                bench.kubelet.read_log("otto", name, "worker", LogOptions(follow=True))
            )  # the trap is set
            bench.delete(name, grace=1)
            await bench.wait_gone(name)
            last = bench.changes[-1].object
            assert last["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == code
            assert last["status"]["phase"] == "Failed"
        while list(tmp_path.rglob("*-term*")):  # noqa: ASYNC110 - logs and homes of removed pods go, and tell nobody
            await trio.sleep(0.02)


async def test_init_containers_sidecars_and_companions(tmp_path: Path) -> None:
    """A failing init container fails the pod; a sidecar is ended after the worker; a companion is waited for."""
    side = {"name": "side", "image": "busybox", "restartPolicy": "Always", "command": ["sleep", "100"]}
    init = {"name": "i", "image": "busybox", "command": ["sh", "-c", "exit 7"]}
    async with open_bench(tmp_path) as bench:
        bench.create("f-init", containers=worker("true"), initContainers=[init])
        bench.create(
            "sidecar", containers=worker("sleep", "0.2"), initContainers=[side], terminationGracePeriodSeconds=2
        )
        waits = f"until test -e {tmp_path}/go; do sleep 0.02; done"
        companion = {"name": "side", "image": "busybox", "command": ["sh", "-c", waits]}
        bench.create("two-containers", containers=[*worker("true"), companion])
        pod = await bench.wait_phase("f-init", "Failed")
        recorded = RECORDED["f-init"]["changes"][-1]["status"]
        assert [(c["type"], c["status"], c.get("reason"), c.get("message")) for c in pod["status"]["conditions"]] == [
            (c["type"], c["status"], c.get("reason"), c.get("message")) for c in recorded["conditions"]
        ]
        assert pod["status"]["containerStatuses"][0]["state"] == recorded["containerStatuses"][0]["state"]
        pod = await bench.wait_phase("sidecar", "Succeeded")
        assert pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 143
        between = ("side:running", "worker:terminated/Completed/0")
        await bench.wait_told("two-containers", *between)
        (tmp_path / "go").touch()
        await bench.wait_phase("two-containers", "Succeeded")
        await bench.wait_told("sidecar", *between)


async def test_a_restarted_container_keeps_its_previous_log(tmp_path: Path) -> None:
    """restartPolicy OnFailure: the log of the run before is served as previous, files of both are apart."""
    async with open_bench(tmp_path) as bench:
        script = "if test -e ran; then echo second; else touch ran; echo first; exit 1; fi"
        bench.create("twice", containers=worker("sh", "-c", script), restartPolicy="OnFailure")
        pod = await bench.wait_phase("twice", "Succeeded")
        container = pod["status"]["containerStatuses"][0]
        assert container["restartCount"] == 1
        assert container["lastState"]["terminated"]["exitCode"] == 1
        previous = bench.kubelet.read_log("otto", "twice", "worker", LogOptions(previous=True))
        assert await first_piece(previous) == b"first\n"
        assert await log_of(bench, "twice") == b"second\n"


async def test_a_failing_liveness_probe_kills(tmp_path: Path) -> None:
    """Two failures of an exec probe end the container; only the events say why."""
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 0.1, "failureThreshold": 2}
    async with open_bench(tmp_path) as bench:
        bench.create("liveness", containers=worker("sleep", "60", livenessProbe=probe), terminationGracePeriodSeconds=1)
        pod = await bench.wait_phase("liveness", "Failed")
        assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] == "Error"
        unhealthy = [event for event in bench.events("liveness") if event["reason"] == "Unhealthy"]
        assert [(event["message"], event["count"]) for event in unhealthy] == [("Liveness probe failed: ", 2)]


async def test_what_left_its_group_is_swept_after_its_container(tmp_path: Path) -> None:
    """A daemon that a container leaves behind dies soon after it, while the cluster runs on."""
    async with open_bench(tmp_path) as bench:
        bench.create("daemon", containers=worker("sh", "-c", LEAVES))
        await bench.wait_phase("daemon", "Succeeded")
        await wait_until_dead([int(await log_of(bench, "daemon"))])


async def test_nothing_survives_the_kubelet(tmp_path: Path) -> None:
    """Whatever ignores SIGTERM, double-forks or calls setsid is dead when the kubelet has ended."""
    scripts = {
        "stubborn": 'trap "" TERM; echo $$$$; while :; do sleep 0.05; done',
        "forks": "(sleep 77 & echo $!) ; sleep 77",
        "leaves": f"{LEAVES}; sleep 77",
    }
    pids = []
    async with open_bench(tmp_path) as bench:
        for name, script in scripts.items():
            bench.create(name, containers=worker("sh", "-c", script))
        for name in scripts:
            await bench.wait_phase(name, "Running")
            follower = bench.kubelet.read_log("otto", name, "worker", LogOptions(follow=True))
            pids.append(int(await first_piece(follower)))
        began = time.monotonic()
    assert time.monotonic() - began < 20
    assert not any(is_alive(pid) for pid in pids)
    assert marked_processes(tmp_path) == []


async def test_nothing_survives_kill_9_of_the_kubelet(tmp_path: Path) -> None:
    """When the kubelet's own process is killed by signal 9, the guard kills its pods' processes."""
    program = textwrap.dedent(
        """
        import sys, trio
        from pathlib import Path
        from ottoscaler.localcluster.kubelet import Kubelet
        from ottoscaler.localcluster.logs import LogOptions
        from ottoscaler.localcluster.store import Store

        async def main():
            store = Store()
            kubelet = Kubelet(store, data_dir=Path(sys.argv[1]))
            async with trio.open_nursery() as nursery:
                await nursery.start(kubelet.run)
                with store.subscribe("pods") as changes:
                    store.create("pods", {
                        "metadata": {"name": "p", "namespace": "n", "generation": 1},
                        "spec": {"restartPolicy": "Never", "containers": [
                            {"name": "c", "image": "busybox",
                             "command": ["sh", "-c", "setsid sleep 77 & echo $$$$ $!; sleep 77"]}
                        ]},
                        "status": {"phase": "Pending"},
                    })
                    async for change in changes:
                        if change.object["status"]["phase"] == "Running":
                            break
                async for piece in kubelet.read_log("n", "p", "c", LogOptions(follow=True)):
                    print(piece.decode(), flush=True)

        trio.run(main)
        """
    )
    kubelet = await trio.lowlevel.open_process(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, start_new_session=True
    )
    assert kubelet.stdout is not None
    try:
        pids = [int(word) for word in (await kubelet.stdout.receive_some()).split()]
        assert len(marked_processes(tmp_path)) >= 2
    finally:
        kubelet.kill()
    with trio.fail_after(30):
        await kubelet.wait()
        await wait_until_dead(pids)
        while marked_processes(tmp_path):  # noqa: ASYNC110 - as above
            await trio.sleep(0.02)
    await kubelet.stdout.aclose()


async def test_what_exec_refuses(tmp_path: Path) -> None:
    """A variable beyond 128 KiB: a container that starts and exits 1, as recorded; a NUL: StartError says why."""
    async with open_bench(tmp_path) as bench:
        huge = [{"name": "HUGE", "value": "x" * 200_000}]
        bench.create("too-big", containers=worker("true", env=huge))
        bench.create("nul", containers=worker("echo", "a\0b"))
        pod = await bench.wait_phase("too-big", "Failed")
        assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 1
        assert b"Argument list too long" in await log_of(bench, "too-big")
        pod = await bench.wait_phase("nul", "Failed")
        ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
        assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
        assert "embedded null byte" in ended["message"]


async def test_starting_a_process_is_cheap(tmp_path: Path) -> None:
    """A container's start, output and end cost less than 10 ms of this process's CPU."""
    await run(tmp_path, plan(tmp_path, "true"))
    began = time.process_time()
    for _ in range(20):
        await run(tmp_path, plan(tmp_path, "true"))
    assert (time.process_time() - began) / 20 < 0.010
