"""The chart, rendered by a real helm; `python -m tests.deploy.helm` writes the manifests that are made from it."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "chart"
HELM = Path(sys.prefix) / "bin" / "helm"
Values = dict[str, Any]
Object = dict[str, Any]

HEADERS = {
    "ottoscaler.yaml": "# Ottoscaler in the namespace default, with a Redis that you have, at redis:6379.",
    "try.yaml": "# Ottoscaler in the namespace default, complete with a Valkey: for trying out, not for production.",
}
OTHER_NAMESPACE = "# For another one: sed 's/namespace: default$/namespace: NAME/' FILE | kubectl apply -f -"
MADE_BY = "# Made from deploy/chart by `make manifests`."
MANIFESTS: dict[str, Values] = {"ottoscaler.yaml": {}, "try.yaml": {"valkey": {"enabled": True}, "replicas": 1}}


class HelmFailed(Exception):
    """Helm refused; the message is what it said."""


def run_helm(*words: str, values: Values | None = None) -> str:
    """What helm prints; `values` go in as a file. Raises HelmFailed."""
    done = subprocess.run(
        [HELM, *words, "--values", "-"], input=json.dumps(values or {}), capture_output=True, text=True
    )
    if done.returncode:
        raise HelmFailed(done.stderr + done.stdout)
    return done.stdout


def render_text(values: Values | None = None, namespace: str = "default") -> str:
    """The chart as YAML documents."""
    return run_helm("template", "ottoscaler", str(CHART), "--namespace", namespace, values=values)


def render(values: Values | None = None, namespace: str = "default") -> dict[tuple[str, str], Object]:
    """The chart's objects by kind and name."""
    return objects_of(_rendered(json.dumps(values or {}), namespace))


@cache
def _rendered(values: str, namespace: str) -> str:
    return render_text(json.loads(values), namespace)


def objects_of(text: str) -> dict[tuple[str, str], Object]:
    """The objects of YAML documents by kind and name, none twice."""
    objects = [each for each in yaml.load_all(text, yaml.CSafeLoader) if each]
    named = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    assert len(named) == len(objects)
    return named


def manifest(name: str) -> str:
    """What a committed manifest must be."""
    return "\n".join((HEADERS[name], OTHER_NAMESPACE, MADE_BY, render_text(MANIFESTS[name])))


if __name__ == "__main__":
    for _name in MANIFESTS:
        (CHART.parent / _name).write_text(manifest(_name))
