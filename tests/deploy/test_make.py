"""The make targets for a cluster: what they would run, and that they do so even where a folder has their name."""

from __future__ import annotations

import re
import subprocess

import pytest

from ottoscaler import __version__
from tests.deploy.helm import ROOT

EXPECTED = {
    "build": f"docker build --tag ottoscaler:{__version__} .",
    "deploy": "sed 's/namespace: default$/namespace: default/' deploy/ottoscaler.yaml | kubectl apply -f -",
    "k8s-deploy": "kubectl -n default rollout status deployment/ottoscaler",
    "logs": "kubectl -n default logs -l app=ottoscaler -f",
    "k8s-logs": "kubectl -n default logs -l app=ottoscaler -f",
    "redis": "--bind 127.0.0.1 --port 6379 --dir build/redis --appendonly yes --appendfsync always",
    "test-event": "ottoscaler send scale_up --pods 3",
    "lock": "--output-file deploy/requirements.lock",
    "manifests": "-m tests.deploy.helm",
}


def dry_run(*words: str) -> str:
    """What make would run."""
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("target", EXPECTED)
def test_a_target_runs_its_command(target: str) -> None:
    """Each has its name, and its command in it."""
    assert EXPECTED[target] in dry_run(target)


def test_a_namespace_is_everywhere() -> None:
    """NAMESPACE reaches both the manifest and kubectl, MANIFEST chooses what is applied."""
    said = dry_run("deploy", "NAMESPACE=team-a", "MANIFEST=deploy/try.yaml")
    assert "namespace: team-a/' deploy/try.yaml" in said
    assert "kubectl -n team-a rollout" in said


def test_documented_targets_are_there() -> None:
    """Every `make ...` of the docs is a target."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in (*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        named = set(re.findall(r"(?:`|^)make ([a-z0-9-]+)", page.read_text(), re.MULTILINE))
        assert named <= targets, page.name
