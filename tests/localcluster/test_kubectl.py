"""Real kubectl against the local cluster, batched: every command that people use daily."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.process,
    pytest.mark.slow_clock,
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed on this machine"),
]

POD = """
apiVersion: v1
kind: Pod
metadata: {name: applied, labels: {tier: "%s"}}
spec:
  restartPolicy: Never
  containers:
  - name: worker
    image: busybox:latest
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "echo one; sleep 1; echo two"]
"""


class Kubectl:
    """kubectl with a kubeconfig and nothing else of this machine's settings."""

    def __init__(self, kubeconfig: Path, home: Path) -> None:
        self.environ = {"PATH": os.environ["PATH"], "HOME": str(home), "KUBECONFIG": str(kubeconfig)}
        self.home = home

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Begin a command."""
        return subprocess.Popen(
            ["kubectl", *args], env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __call__(self, *args: str, fails: bool = False) -> str:
        """What a command prints; it must succeed, or fail where that is expected."""
        done = subprocess.run(
            ["kubectl", *args], env=self.environ, capture_output=True, text=True, timeout=50, check=False
        )
        assert (done.returncode != 0) is fails, f"kubectl {args}: {done.returncode} {done.stdout} {done.stderr}"
        return done.stderr if fails else done.stdout


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """A running `ottoscaler localcluster`, ended by SIGTERM afterwards, which must leave it with 0."""
    folder = tmp_path_factory.mktemp("kubectl")
    kubeconfig = folder / "kubeconfig"
    command = [sys.executable, "-m", "ottoscaler", "localcluster", "--kubeconfig", str(kubeconfig)]
    with subprocess.Popen([*command, "--data", str(folder / "data")], stdout=subprocess.PIPE, text=True) as cluster:
        assert cluster.stdout is not None
        assert re.search(r"\bready\b", cluster.stdout.readline())
        assert kubeconfig.stat().st_mode & 0o777 == 0o600
        try:
            yield Kubectl(kubeconfig, folder)
        finally:
            cluster.terminate()
            assert cluster.wait(30) == 0


def test_apply_follow_describe_and_wait(kubectl: Kubectl) -> None:
    """A manifest applied becomes a pod that can be followed, described, waited for, changed and applied again."""
    manifest = kubectl.home / "pod.yaml"
    manifest.write_text(POD % "a")
    assert kubectl("apply", "-f", str(manifest)) == "pod/applied created\n"
    kubectl("wait", "pod/applied", "--for=condition=Ready", "--timeout=40s")
    assert kubectl("logs", "-f", "applied") == "one\ntwo\n"
    kubectl("wait", "pod/applied", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=40s")
    assert kubectl("logs", "applied", "--tail=1") == "two\n"
    described = kubectl("describe", "pod", "applied")
    assert re.search(r"Status: +Succeeded", described)
    assert "Successfully assigned default/applied" in described
    assert kubectl("apply", "-f", str(manifest)) == "pod/applied unchanged\n"
    manifest.write_text(POD % "b")
    assert kubectl("apply", "-f", str(manifest)) == "pod/applied configured\n"
    assert "applied" in kubectl("get", "pods", "-l", "tier=b", "-o", "name")
    assert "serverside-applied" in kubectl("apply", "--server-side", "--force-conflicts", "-f", str(manifest))
    assert kubectl("label", "pod", "applied", "extra=1") == "pod/applied labeled\n"
    assert kubectl("annotate", "pod", "applied", "note=x") == "pod/applied annotated\n"
    assert "Started container worker" in kubectl("get", "events")
    assert kubectl("get", "pods", "--field-selector", "status.phase=Running", "-o", "name") == ""
    assert kubectl("delete", "pod", "applied") == 'pod "applied" deleted\n'
    assert "NotFound" in kubectl("get", "pod", "applied", fails=True)


def test_run_watch_and_delete(kubectl: Kubectl) -> None:
    """A pod run by hand appears in the columns and in a watch, and waiting for its end returns when it is gone."""
    watch = kubectl.start("get", "pods", "-w")
    try:
        kubectl("run", "k1", "--image=busybox:latest", "--restart=Never", "--", "sleep", "100")
        kubectl("wait", "pod/k1", "--for=condition=Ready", "--timeout=40s")
        wide = kubectl("get", "pods", "-o", "wide").splitlines()
        assert wide[0].split()[:6] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP"]
        assert re.match(r"k1 +1/1 +Running +0 ", wide[1])
        assert '"phase": "Running"' in kubectl("get", "pod", "k1", "-o", "json")
        assert "phase: Running" in kubectl("get", "pod", "k1", "-o", "yaml")
        assert _read_until(watch, "Running")[0] in ("Pending", "ContainerCreating", "Running")
        kubectl("delete", "pod", "k1", "--grace-period=1", "--wait=false")
        kubectl("wait", "pod/k1", "--for=delete", "--timeout=40s")
        _read_until(watch, "Terminating")
    finally:
        watch.terminate()
        watch.communicate(timeout=30)


def _read_until(watch: subprocess.Popen[str], state: str) -> list[str]:
    """The states of k1 that a watch prints, up to the wanted one."""
    assert watch.stdout is not None
    states: list[str] = []
    while states[-1:] != [state]:
        line = watch.stdout.readline()
        assert line, f"the watch ended after {states}"
        if line.startswith("k1 "):
            states.append(line.split()[2])
    return states


def test_namespaces_rights_and_what_the_api_says_of_itself(kubectl: Kubectl) -> None:
    """Namespaces come and go with all they hold; rights, resources and nodes can be asked for."""
    assert kubectl("create", "ns", "team") == "namespace/team created\n"
    kubectl("run", "p", "-n", "team", "--image=busybox:latest", "--restart=Never", "--", "sleep", "100")
    kubectl("create", "configmap", "c", "-n", "team", "--from-literal=a=b")
    assert kubectl("get", "cm", "c", "-n", "team", "-o", "jsonpath={.data.a}") == "b"
    assert "p " in kubectl("get", "pods", "-A")
    assert re.search(r"team +Active", kubectl("get", "ns"))
    assert kubectl("auth", "can-i", "create", "pods", "-n", "team") == "yes\n"
    assert re.search(r"pods +po +v1 +true +Pod", kubectl("api-resources"))
    assert re.search(r"local +Ready", kubectl("get", "nodes"))
    kubectl("delete", "pod", "p", "-n", "team", "--now")
    kubectl("delete", "ns", "team", "--timeout=40s")
    assert "team" not in kubectl("get", "ns", "-o", "name")
    assert kubectl("delete", "pods", "-l", "none=1") == "No resources found\n"
